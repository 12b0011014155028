"""Trains a small language model from random weights on a corpus, and measures it beside gzip, xz and an n-gram model.

One dial, --depth, decides every size; each derivation is printed. The run can be stopped with Ctrl-C at any moment:
the same command goes on from there. The model is stored in Hugging Face layout.
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help="a corpus artifact: name, name@version or digest")
    parser.add_argument("tokenizer", help="a tokenizer artifact")
    parser.add_argument(
        "--depth", type=int, default=4, help="number of layers, from which the rest follows; default: 4"
    )
    parser.add_argument("--minutes", type=float, help="time for everything but the baselines; default: 3")
    parser.add_argument("--steps", type=int, help="a fixed number of steps instead: exactly repeatable")
    parser.add_argument("--name", default="model", help="name of the artifact; default: model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="kinds of documents to train on; default: all but docstrings")
    parser.add_argument("--context", type=int, help="tokens that the model reads; default: derived")
    parser.add_argument("--batch", type=int, help="sequences per step; default: derived")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="auto", help="torch.compile; default: auto")
    parser.add_argument("--no-baselines", action="store_true", help="do not measure gzip, xz and the n-gram model")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.training.pretrain import pretrain
    from windlass.build.training.settings import PretrainSettings
    from windlass.loop.baselines import comparison

    settings = PretrainSettings(
        depth=args.depth,
        minutes=args.minutes,
        steps=args.steps,
        name=args.name,
        seed=args.seed,
        kinds=tuple(args.kinds) if args.kinds else None,
        context=args.context,
        batch=args.batch,
        precision=args.precision,
        compile=args.compile,
    )
    with opened(args) as ws:
        model = pretrain(ws, ws.artifacts.get(args.corpus), ws.artifacts.get(args.tokenizer), settings)
        print(f"{model.ref}  {model.digest[:12]}\n{model.path}\n")
        if not args.no_baselines:
            print(comparison(ws, model, settings.kinds))
    return 0
