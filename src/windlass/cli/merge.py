"""One model of several that were trained from the same base, by their weights alone; no training, no data.

windlass merge maths=0.5 chat=0.5                            a weighted mean (model soup)
windlass merge maths chat --method slerp                     half way along the arc between two
windlass merge maths chat code --method ties --base base     task vectors, trimmed, where they agree
windlass merge maths=1 chat=1 --method dare_linear --base base --density 0.2 --seed 0
windlass merge ./a ./b --method ties --base ./base --out ./merged     Hugging Face folders, without a workspace

A model is an artifact of the workspace or a folder. One tensor of each is in memory at a time. Models of different
shapes, tokenizers or labels are refused. Whether the merge is any good only an evaluation can tell.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", type=_weighed, metavar="MODEL[=WEIGHT]")
    parser.add_argument(
        "--method",
        choices=("linear", "slerp", "ties", "dare_linear", "dare_ties"),
        default="linear",
        help="default: linear",
    )
    parser.add_argument("--base", help="what the models were trained from: for ties and dare")
    parser.add_argument(
        "--density", type=float, help="share of each task vector that stays; default: 0.2 for ties, 0.1 for dare"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the merged task vector; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="of what dare drops; default: 0")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="to store in; default: as the first model is"
    )
    parser.add_argument("--name", default="merged", help="of the artifact; default: merged")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write a folder instead of an artifact")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.build.adapt.merging.settings import Merging
    from windlass.build.adapt.merging.storing import source_of, store_merge, write_folder

    given = [weight for _, weight in args.models if weight is not None]
    if given and len(given) < len(args.models):
        raise InputError("Some models have a weight and others have none.", "Give all of them one, or none.")
    asked = Merging(args.method, tuple(given), args.density, args.scale, args.seed)
    asked.check(len(args.models), args.base is not None)
    names = [name for name, _ in args.models]
    alone = args.out is not None and all(Path(name).is_dir() for name in [*names, args.base or "."])
    with ExitStack() as stack:
        ws = None if alone else stack.enter_context(opened(args))
        models = [source_of(ws, name) for name in names]
        base = None if args.base is None else source_of(ws, args.base)
        if args.out is not None:
            write_folder(models, base, asked, args.out, dtype=args.dtype)
            print(args.out)
            return 0
        assert ws is not None
        made = store_merge(ws, models, base, asked, args.name, dtype=args.dtype)
        print(f"{made.ref}  {made.digest[:12]}\n{made.path}")
    return 0


def _weighed(value: str) -> tuple[str, float | None]:
    name, given, weight = value.rpartition("=")
    if not given:
        return value, None
    try:
        return name, float(weight)
    except ValueError:
        raise argparse.ArgumentTypeError("must be MODEL or MODEL=WEIGHT, such as maths=0.5") from None
