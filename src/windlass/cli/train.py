"""Trains a model from random weights, as a recipe says or by one dial, and measures it on held-out text.

  windlass train                               the artifacts called "corpus" and "tokenizer", 3 minutes
  windlass train corpus tokenizer --depth 6    these two, a deeper model
  windlass train decoder --minutes 10          a recipe that comes with windlass; --list shows all
  windlass train my-recipe.toml                your own; it may name its corpus and tokenizer
  windlass train decoder --workers 2           two processes of this machine; also: torchrun -m windlass train ...
  windlass train decoder --check               everything but the training: files, sizes, memory, disk

Every derived size is printed. The run can be stopped with Ctrl-C at any moment: the same command goes on from there.
The model is stored in Hugging Face layout.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from windlass.cli import workers
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "what",
        nargs="*",
        metavar="RECIPE | CORPUS TOKENIZER",
        help="a recipe, two artifacts, or all three",
    )
    parser.add_argument("--depth", type=int, help="number of layers, from which the rest follows; default: 4")
    parser.add_argument("--minutes", type=float, help="time for the training; default: 3")
    parser.add_argument("--steps", type=int, help="a fixed number of steps instead: exactly repeatable")
    parser.add_argument("--name", help="name of the artifact; default: model")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--corpus", help="a corpus artifact: name, name@version or digest")
    parser.add_argument("--tokenizer", help="a tokenizer artifact")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change anything else of the recipe, such as data.batch=16; may be repeated",
    )
    parser.add_argument("--check", action="store_true", help="do not train: check inputs, sizes, memory and disk")
    parser.add_argument("--list", action="store_true", help="show the recipes that come with windlass")
    parser.add_argument(
        "--no-baselines", action="store_true", help="do not measure what compressors or counts make of the same text"
    )
    workers.add_options(parser)
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    workers.quieten()
    from windlass.build.training.checking import check_run
    from windlass.build.training.distributed.workers import joined
    from windlass.build.training.pretrain import pretrain
    from windlass.build.training.recipe import parse_change, read_recipe, shipped_recipes
    from windlass.core.tables import table
    from windlass.loop.training.baselines import comparison
    from windlass.loop.training.runs import summary, tracked

    if args.list:
        print(table(("recipe", "what it trains"), shipped_recipes().items()))
        return 0
    recipe, given = _what(args)
    settings = read_recipe(recipe, given | dict(map(parse_change, args.set)))
    if (status := workers.launched(args)) is not None:
        return status
    with joined(args.device) as team, team.one_voice(), opened(args) as ws:
        corpus, tokenizer = ws.artifacts.get(settings.data.corpus), ws.artifacts.get(settings.data.tokenizer)
        if args.check:
            found = check_run(ws, corpus, tokenizer, settings, args.workers or 1)
            print(found.render())
            return 0 if found.fits else 1
        model = pretrain(ws, corpus, tokenizer, settings, workers=team, parallel=args.parallel)
        if not team.leads:
            return 0
        record = ws.store.artifact(model.digest)
        if record is not None and record.run is not None:
            print(f"\n{summary(tracked(ws, record.run))}\n")
        print(f"{model.ref}  {model.digest[:12]}\n{model.path}\n")
        if not args.no_baselines:
            print("beside it on the same text: gzip, xz, n-grams … (--no-baselines leaves them out)", file=sys.stderr)
            if beside := comparison(ws, model, settings.data.kinds):
                print(f"{beside}\n")
        if settings.model.architecture == "decoder":
            print(f'Next: windlass generate {model.record.name} "Once upon"')
    return 0


def _what(args: argparse.Namespace) -> tuple[str | None, dict[str, Any]]:
    """The recipe, if one is named, and what the options change in it."""
    if len(args.what) > 3:
        raise InputError(f"{len(args.what)} names are given.", "Give a recipe, a corpus and a tokenizer, or all three.")
    named = list(args.what)
    recipe = named.pop(0) if len(named) in (1, 3) else None
    corpus, tokenizer = named or (None, None)
    options = {
        "model.depth": args.depth,
        "schedule.minutes": args.minutes,
        "schedule.steps": args.steps,
        "run.name": args.name,
        "run.seed": args.seed,
        "data.corpus": args.corpus or corpus,
        "data.tokenizer": args.tokenizer or tokenizer,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for end, other in (("schedule.steps", "schedule.minutes"), ("schedule.minutes", "schedule.steps")):
        if end in given and other not in given:
            given[other] = None  # an option takes the place of the recipe's own end
    return recipe, given
