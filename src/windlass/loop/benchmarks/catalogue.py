"""The benchmarks that come with windlass, and which of their data are there."""

from __future__ import annotations

import os
from pathlib import Path

from windlass.core.errors import NotFound
from windlass.evaluate.harness.definitions import KINDS, read_benchmark, shipped
from windlass.evaluate.harness.items import files_of
from windlass.loop.benchmarks.evaluating import VARIABLE


def overview(folder: Path | None) -> list[tuple[str, str, str, int, str]]:
    """Name, kind, number of rows, examples by default, and what it is; without a folder the rows are not counted."""
    place = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    kinds = {kind: name for name, kind in KINDS.items()}
    found = []
    for name in shipped():
        benchmark = read_benchmark(name)
        number = "?"
        if place is not None:
            try:
                number = f"{sum(len(one.rows) for one in files_of(benchmark, place)):,}"
            except NotFound:
                number = "no data"
        found.append((name, kinds[type(benchmark)], number, benchmark.shots.number, benchmark.what))
    return found
