"""One turn: harvest the feedback, train a candidate, compare it with what is live, promote it or say why not.

The comparison is paired, on exam questions that neither feedback nor training has touched, and decided on the
interval. Interrupted and run again, it goes on where it was. `windlass rollback` undoes a promotion.

Exits with 0 when the candidate was promoted and with 3 when it was refused.
"""

from __future__ import annotations

import argparse
import sys

from windlass.cli.workspace import add_option, opened

REFUSED = 3


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", default="assistant", help="default: assistant")
    parser.add_argument("--seed", type=int, default=0, help="of the training; default: 0")
    parser.add_argument(
        "--shuffled",
        action="store_true",
        help="train on answers dealt out to the wrong questions: a candidate that must be refused",
    )
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.loop.candidate import Recipe
    from windlass.loop.turn import render_turn, turn

    recipe = Recipe(kind="shuffled" if args.shuffled else "learned", seed=args.seed)
    with opened(args) as ws:
        report = turn(ws, args.task, recipe=recipe, tell=lambda line: print(line, file=sys.stderr))
        print(render_turn(report))
    return 0 if report.promoted else REFUSED
