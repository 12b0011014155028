"""Lists runs, newest first; with an id, shows one: configuration, environment and the curve of every metric."""

from __future__ import annotations

import argparse
import json
from itertools import groupby

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import NotFound
from windlass.core.tables import table
from windlass.loop.text import ago, curve


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="default: list them")
    parser.add_argument("--kind", help="only this kind: corpus, pretrain, index, adapt, ...")
    parser.add_argument("--limit", type=int, default=20, help="how many to list; default: 20")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        if args.id is None:
            rows = []
            for r in ws.runs.list(args.kind, limit=args.limit):
                took = f"{r.ended - r.started:,.1f} s" if r.ended else ""
                rows.append([r.id, r.kind, r.name, r.status, ago(r.started), took, r.message])
            print(
                table(["run", "kind", "made", "status", "when", "took", ""], rows, right=(5,))
                if rows
                else "No runs yet. `windlass demo` makes some."
            )
            return 0
        record = ws.runs.get(args.id)
        if record is None:
            raise NotFound(f"There is no run '{args.id}' in this workspace.", "`windlass runs` lists them.")
        message = f": {record.message}" if record.message else ""
        print(f"{record.id}  {record.status}{message}  seed {record.seed}")
        print(json.dumps({"config": dict(record.config), "environment": dict(record.environment)}, indent=2))
        for name, group in groupby(ws.store.metrics(record.id), key=lambda point: point.name):
            points = list(group)
            print(f"{name:<20} {curve(points)}  {points[0].value:.4g} → {points[-1].value:.4g}  ({len(points)} points)")
    return 0
