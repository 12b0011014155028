"""Fits a scaling law to a few small runs and checks it on a larger one.

  windlass scaling --depths 2 3 4 --steps 200 400 800                  the law's constants, with intervals
  windlass scaling --depths 2 3 4 --steps 200 400 800 --check 6 1600   predicts this run, trains it, compares

The law is loss(N, D) = E + A / N^a + B / D^b for N weights and D tokens.

Every depth is trained for every number of steps; finished runs are taken up again. The report holds the figures as JSON
and a picture as SVG.
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="what to train; default: the decoder of `windlass train`")
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 4], help="default: 2 3 4")
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 800], help="default: 200 400 800")
    parser.add_argument("--check", type=int, nargs=2, metavar=("DEPTH", "STEPS"), help="a larger run to predict")
    parser.add_argument("--name", default="scaling", help="name of the report; default: scaling")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as in `windlass train`"
    )
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.training.recipe import parse_change, read_recipe
    from windlass.loop.training.scaling import study

    settings = read_recipe(args.recipe, dict(map(parse_change, args.set)))
    with opened(args) as ws:
        corpus, tokenizer = ws.artifacts.get(settings.data.corpus), ws.artifacts.get(settings.data.tokenizer)
        check = None if args.check is None else (args.check[0], args.check[1])
        result, report = study(
            ws, corpus, tokenizer, settings, depths=args.depths, steps=args.steps, target=check, name=args.name
        )
        print(f"{result}\n\n{report.ref}  {report.path}")
    return 0
