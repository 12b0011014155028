"""Adapters that are stored already: what is in one, one model of it and its base, one adapter of several.

windlass adapters show echo                          kind, rank, places, base; an artifact, or a PEFT folder
windlass adapters merge echo --name whole            base and adapter as one model
windlass adapters combine french=0.5 legal=0.5       their weighted sum, of the same base
windlass adapters combine a=1 b=-0.5 --how svd --rank 8
windlass adapters combine a=1 b=1 --how ties_svd --density 0.3
"""

from __future__ import annotations

import argparse
import json

from windlass.cli.workspace import add_option, opened

_HOWS = (
    "cat", "svd", "linear", "ties", "dare_linear", "dare_ties", "ties_svd", "dare_linear_svd", "dare_ties_svd"
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="show|merge|combine")
    show = actions.add_parser("show", help="what is in an adapter")
    show.add_argument("adapter", help="an artifact, or a folder as PEFT writes it")
    merge = actions.add_parser("merge", help="base and adapter as one model")
    merge.add_argument("adapter", help="an artifact, or a folder as PEFT writes it")
    merge.add_argument("--name", default="merged", help="of the model; default: merged")
    combine = actions.add_parser("combine", help="several adapters of one base as one")
    combine.add_argument("adapters", nargs="+", type=_weighed, metavar="ADAPTER=WEIGHT")
    combine.add_argument(
        "--how",
        choices=_HOWS,
        default="cat",
        metavar="WAY",
        help="cat: the exact sum, ranks side by side; svd: the nearest of a smaller rank; linear: what PEFT calls so, "
        "which is not the sum; ties, dare_linear, dare_ties: of the thin matrices, as PEFT has them; ties_svd, "
        "dare_linear_svd, dare_ties_svd: of what they add, as the papers mean it",
    )
    combine.add_argument("--rank", type=int, help="with svd; default: the largest of the adapters")
    combine.add_argument("--density", type=float, help="share of the numbers that stay, with ties and dare")
    combine.add_argument("--seed", type=int, default=0, help="of what dare drops; default: 0")
    combine.add_argument("--name", default="combined", help="of the adapter; default: combined")
    for action in (show, merge, combine):
        action.add_argument("--base", help="the model it was trained on; default: the one that the artifact names")
        add_option(action)


def run(args: argparse.Namespace) -> int:
    from windlass.build.adapt.peft import artifacts

    with opened(args) as ws:
        if args.action == "show":
            print(json.dumps(artifacts.facts(artifacts.stored(ws, args.adapter, args.base)), indent=2))
            return 0
        if args.action == "merge":
            made = artifacts.merge_stored(ws, artifacts.stored(ws, args.adapter, args.base), args.name)
            print(f"The outputs are within {made.card['merge_error']:.1e} of those of base and adapter.")
            if (bits := made.card.get("base_bits")) is not None:
                print(
                    f"The base is rounded to {bits} bits, as it was in training. Beside the base as it is, the "
                    f"adapter's outputs are up to {made.card['error_beside_whole_base']:.1e} away."
                )
        else:
            ones = [(artifacts.stored(ws, name, args.base), weight) for name, weight in args.adapters]
            made = artifacts.combine_stored(ws, ones, args.name, args.how, args.rank, args.density, args.seed)
            print(f"At worst over all maps, {made.card['lost']:.1%} off the exact sum.")
        print(f"{made.ref}  {made.digest[:12]}\n{made.path}")
    return 0


def _weighed(value: str) -> tuple[str, float]:
    name, given, weight = value.rpartition("=")
    try:
        if given:
            return name, float(weight)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError("must be ADAPTER=WEIGHT, such as french=0.5")
