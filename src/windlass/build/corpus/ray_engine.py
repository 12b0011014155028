"""Judging documents on Ray Data: the same judge, sent to the workers of a cluster.

Documents travel in windows: each is one Ray dataset of some megabytes, whose blocks are judged wherever there is room
and come back in their order. What is in flight is bounded by the window, not by the corpus. Without the address of a
cluster (`RAY_ADDRESS`) one is started on this machine, which listens on the loopback interface only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from windlass.build.corpus.judging import Batch, Engine, Judge, Judged
from windlass.core.errors import InputError, MissingExtra

_WINDOW = 16
"""Batches per worker and window: enough to outweigh what planning a dataset costs."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray reports its use to its makers unless told not to
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever the system: a local cluster stays on the loopback interface
}


@dataclass(frozen=True, slots=True)
class _Packet:
    """Keeps Ray from taking a batch apart into columns: it carries what it has no column type for as it is."""

    content: Any


def on_ray(workers: int) -> Engine:
    """Judges with `workers` Ray tasks at a time."""

    def judged(judge: Judge, batches: Iterator[Batch]) -> Generator[Judged, None, None]:
        ray = _ray()
        ours = not ray.is_initialized()
        if ours:
            _start(ray, workers)
        try:
            shared = ray.put(judge)

            def judge_block(block: dict[str, Any]) -> dict[str, Any]:
                own: Judge = ray.get(shared)
                found = [_Packet(own(packet.content)) for packet in block["batch"]]
                return {"number": block["number"], "judged": found}

            at_a_time = ray.data.TaskPoolStrategy(size=workers)
            while window := list(islice(batches, _WINDOW * workers)):
                rows = [{"number": number, "batch": _Packet(batch)} for number, batch in enumerate(window)]
                dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
                dataset = dataset.map_batches(judge_block, batch_size=None, compute=at_a_time)
                done = sorted(dataset.iter_rows(), key=lambda row: int(row["number"]))
                yield from (row["judged"].content for row in done)
        finally:
            if ours:
                ray.shutdown()

    return judged


def _ray() -> Any:
    for name, value in _ENVIRONMENT.items():
        if name != "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" or "RAY_ADDRESS" not in os.environ:
            os.environ[name] = value  # read when Ray is imported
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra("The engine 'ray'", "ray") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    return ray


def _start(ray: Any, workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, logging_level=logging.ERROR)
        else:
            ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise InputError(
            f"No Ray cluster answers at {address}.", "Correct RAY_ADDRESS, or unset it to start one here."
        ) from error
