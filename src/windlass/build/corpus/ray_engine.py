"""Judging documents on Ray Data: the same judge, sent to the workers of a cluster.

Documents travel in windows: each is one Ray dataset of some megabytes, whose blocks are judged wherever there is room
and come back in their order. What is in flight is bounded by the window, not by the corpus. Without the address of a
cluster (`RAY_ADDRESS`) one is started on this machine, which listens on the loopback interface only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from windlass.build.corpus.judging import Batch, Engine, Judge, Judged
from windlass.core.errors import InputError, MissingExtra

_WINDOW = 16
"""Batches per worker and window: enough to outweigh what planning a dataset costs."""


def on_ray(workers: int) -> Engine:
    """Judges with `workers` Ray tasks at a time."""

    def judged(judge: Judge, batches: Iterator[Batch]) -> Iterator[Judged]:
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            _start(ray, workers)
        try:
            shared = ray.put(judge)

            def judge_block(block: dict[str, Any]) -> dict[str, Any]:
                found = ray.get(shared)
                return {"number": block["number"], "judged": [found(batch) for batch in block["batch"]]}

            while window := list(islice(batches, _WINDOW * workers)):
                rows = [{"number": number, "batch": batch} for number, batch in enumerate(window)]
                dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
                dataset = dataset.map_batches(judge_block, batch_size=None, concurrency=workers)
                found = sorted(dataset.iter_rows(), key=lambda row: int(row["number"]))
                yield from (row["judged"] for row in found)
        finally:
            if ours:
                ray.shutdown()

    return judged


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reports its use to its makers unless told not to
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra("The engine 'ray'", "ray") from error
    return ray


def _start(ray: Any, workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    except ConnectionError as error:
        raise InputError(
            f"No Ray cluster answers at {address}.", "Correct RAY_ADDRESS, or unset it to start one here."
        ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
