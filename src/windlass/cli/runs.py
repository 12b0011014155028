"""Lists runs, newest first; shows one with its curves, compares several, or gives one to another tool.

windlass runs                                the newest runs; --kind pretrain: only these
windlass runs ID                             one run: configuration, environment, curves
windlass runs compare ID ID ...              what differs, how they ended, their curves, tokens and time to equal loss
windlass runs export ID --to csv FOLDER      also: jsonl, tensorboard (an event file)
windlass runs export ID --to mlflow ADDRESS  an MLflow tracking server, such as http://127.0.0.1:5000
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.core.terminal import colourful
from windlass.core.workspace import Workspace
from windlass.loop.text import ago, curve
from windlass.loop.training.runs import HELD_OUT, LOSS, Tracked, comparison, summary, tracked


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", metavar="ID | compare ID ID ... | export ID DESTINATION")
    parser.add_argument("--kind", help="only this kind: corpus, pretrain, index, adapt, ...")
    parser.add_argument("--limit", type=int, default=20, help="how many to list; default: 20")
    parser.add_argument("--to", choices=("csv", "jsonl", "tensorboard", "mlflow"), help="format of an export")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise InputError(f"--limit {args.limit} lists nothing.", "Give 1 or more.")
    with opened(args) as ws:
        match args.what:
            case []:
                print(_listing(ws, args.kind, args.limit))
            case ["compare", *ids]:
                print(comparison([tracked(ws, identifier) for identifier in ids], colour=colourful(sys.stdout)))
            case ["export", identifier, destination]:
                print(_export(tracked(ws, identifier), args.to, destination))
            case ["export", *_]:
                raise InputError("An export needs a run and where to.", "windlass runs export ID --to csv FOLDER")
            case [identifier]:
                print(_shown(tracked(ws, identifier)))
            case _:
                raise InputError(f"'{' '.join(args.what)}' is not understood.", "See `windlass runs --help`.")
    return 0


def _listing(ws: Workspace, kind: str | None, limit: int) -> str:
    rows = []
    for r in ws.runs.list(kind, limit=limit):
        took = f"{r.ended - r.started:,.1f} s" if r.ended else ""
        why = textwrap.shorten(r.message.partition("\n")[0], 70, placeholder=" …")
        rows.append([r.id, r.kind, r.name, r.status, ago(r.started), took, why])
    if not rows:
        return "No runs yet. `windlass demo` makes some."
    return table(["run", "kind", "made", "status", "when", "took", ""], rows, right=(5,))


def _shown(run: Tracked) -> str:
    record = run.record
    message = f": {record.message}" if record.message else ""
    lines = [f"{record.id}  {record.status}{message}  seed {record.seed}"]
    facts = {"config": dict(record.config), "environment": dict(record.environment)}
    lines.append(json.dumps(facts, indent=2))
    for name, points in run.series.items():
        if name not in (LOSS, HELD_OUT):
            line = f"{name:<20} {curve(points)}  {points[0].value:.4g} → {points[-1].value:.4g}  ({len(points)} points)"
            lines.append(line)
    return "\n".join([*lines, summary(run)]).rstrip()


def _export(run: Tracked, to: str | None, destination: str) -> str:
    if to is None:
        raise InputError("The format of the export is not given.", "--to csv, jsonl, tensorboard or mlflow")
    count = sum(map(len, run.series.values()))
    if to == "mlflow":
        from windlass.loop.export.mlflow import to_mlflow

        return f"{count:,} points of {run.record.id} are run {to_mlflow(run, destination)} of {destination}"
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    if to == "tensorboard":
        from windlass.loop.export.tensorboard import to_tensorboard

        path = to_tensorboard(run, folder)
    else:
        from windlass.loop.export.files import to_csv, to_jsonl

        path = to_csv(run, folder) if to == "csv" else to_jsonl(run, folder)
    return f"{count:,} points of {run.record.id} → {path}"
