"""A run as a table: CSV with one row per step, or JSON lines with one line per point."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from windlass.core.files import atomic_write
from windlass.loop.training.runs import Tracked


def to_csv(run: Tracked, folder: Path) -> Path:
    """`RUN.csv`: the step and one column per metric, empty where a step has no value."""
    path = folder / f"{run.record.id}.csv"
    names = list(run.series)
    values = {name: {point.step: point.value for point in points} for name, points in run.series.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    for step in sorted({step for points in values.values() for step in points}):
        writer.writerow([step, *(repr(values[name][step]) if step in values[name] else "" for name in names)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
    return path


def to_jsonl(run: Tracked, folder: Path) -> Path:
    """`RUN.jsonl`: first a line about the run, then one line per point with step, metric, value and time."""
    path, record = folder / f"{run.record.id}.jsonl", run.record
    head = {
        "run": record.id, "kind": record.kind, "name": record.name, "status": record.status, "seed": record.seed,
        "started": record.started, "ended": record.ended, "config": dict(record.config),
        "environment": dict(record.environment),
    }  # fmt: skip
    with atomic_write(path) as file:
        file.write(json.dumps(head).encode() + b"\n")
        for name, points in run.series.items():
            for p in points:
                line = {"step": p.step, "metric": name, "value": p.value, "at": p.at}
                file.write(json.dumps(line).encode() + b"\n")
    return path
