"""Makes a model better at one job, by examples: as a recipe says, on whatever data you have.

  windlass tune chat --base model --data conversations.jsonl   a recipe that comes with windlass; --list shows all
  windlass tune my-recipe.toml                                 your own; it may name its base and its data
  windlass tune chat --base model --data rows.jsonl --set adapter.rank=64 --epochs 1

Data: JSON lines, JSON, CSV or Parquet with `messages`, `conversations`, `instruction` and `output`, or `prompt` and
`completion`; or a dataset of the workspace. The run can be stopped with Ctrl-C at any moment: the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", nargs="?", help="a recipe that comes with windlass, or a .toml file")
    parser.add_argument("--base", help="what is tuned: a model artifact, or a folder in Hugging Face layout")
    parser.add_argument("--data", help="a file of rows, or a dataset artifact")
    parser.add_argument("--name", help="name of the artifact; default: tuned")
    parser.add_argument("--epochs", type=float, help="how often each example is seen; default: 3")
    parser.add_argument("--steps", type=int, help="a fixed number of steps instead")
    parser.add_argument("--minutes", type=float, help="a time for the training instead")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change anything else of the recipe, such as adapter.rank=64; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="show the recipes that come with windlass")
    parser.add_argument("--workers", type=int, help="train on so many processes of this machine; default: 1")
    parser.add_argument(
        "--parallel",
        choices=("ddp", "fsdp"),
        default="ddp",
        help="several workers: each a whole copy of the model (ddp) or a part of it (fsdp); default: ddp",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.adapt.recipe import TUNING
    from windlass.build.training.recipe import parse_change
    from windlass.core.tables import table

    if args.list:
        print(table(("recipe", "what it makes"), TUNING.shipped().items()))
        return 0
    if "RANK" in os.environ:  # before torch is loaded: a lost worker is reported in words, not by traces of C++
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from windlass.build.adapt.tuning import tune
    from windlass.build.training.distributed.launch import launch
    from windlass.build.training.distributed.workers import joined
    from windlass.loop.runs import summary, tracked

    options = {
        "model.base": args.base,
        "data.dataset": args.data,
        "data.epochs": args.epochs,
        "schedule.steps": args.steps,
        "schedule.minutes": args.minutes,
        "run.name": args.name,
        "run.seed": args.seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = TUNING.read(args.recipe, given | dict(map(parse_change, args.set)))
    if args.workers is not None and args.workers != 1 and "RANK" not in os.environ:
        return launch(args.workers, [sys.executable, "-m", "windlass", *sys.argv[1:]])
    with joined(args.device) as workers, workers.one_voice(), opened(args) as ws:
        model = tune(ws, settings, workers=workers, parallel=args.parallel)
        if not workers.leads:
            return 0
        record = ws.store.artifact(model.digest)
        if record is not None and record.run is not None:
            print(f"\n{summary(tracked(ws, record.run))}\n")
        print(f"{model.ref}  {model.digest[:12]}\n{model.path}")
    return 0
