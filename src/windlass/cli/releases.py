"""Lists what each task serves and served: every promotion and rollback with its reason, newest first; and the trials
that run now.

windlass releases             all tasks
windlass releases assistant   this one, with its trials that have ended as well
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened
from windlass.core.tables import table
from windlass.loop.releasing.releases import history
from windlass.loop.releasing.showing import rendered
from windlass.loop.releasing.trial import states
from windlass.loop.releasing.watching import peek
from windlass.loop.text import ago, shortened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="?", help="only this task; default: all")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        rows = []
        live: set[str] = set()
        for row in history(ws, args.task):
            variant = ws.store.artifact(row.variant)
            name = f"{variant.ref if variant else 'missing'} {row.variant[:12]}"
            now = "" if row.task in live else "LIVE"
            live.add(row.task)
            rows.append([str(row.id), row.task, now, row.action, name, ago(row.at), shortened(row.reason, 90)])
        if not rows:
            print("Nothing is released yet. `windlass demo` builds and releases a first variant.")
            return 0
        print(table(["id", "task", "", "change", "variant", "when", "reason"], rows, right=(0,)))
        for task in sorted(live):
            for state in states(ws, task):
                if state.running or args.task is not None:
                    print(f"\n{rendered(ws, peek(ws, state) if state.running else state)}")
    return 0
