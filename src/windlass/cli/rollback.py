"""Makes a task serve the variant that was live before; repeated, it goes further back.

Nothing is deleted: a rollback is one more row of `windlass releases`.
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened
from windlass.loop.releasing.releases import rollback


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", default="assistant", help="default: assistant")
    parser.add_argument("--reason", default="rolled back by hand", help="kept with the release")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        row = rollback(ws, args.task, args.reason)
        print(f"'{row.task}' serves {ws.artifacts.get(row.variant).ref} ({row.variant[:12]}) again.")
    return 0
