"""Things in few characters: a text cut short, a metric as a curve of blocks, how long ago, how many bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from windlass.core.records import MetricPoint

_BLOCKS = "▁▂▃▄▅▆▇█"


def shortened(text: str, length: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def curve(points: Sequence[MetricPoint], *, width: int = 60) -> str:
    """A metric over its steps in one line of blocks, each the mean of the steps it stands for."""
    values = [point.value for point in points if point.value == point.value and abs(point.value) != float("inf")]
    if not values:
        return "(no finite values)"
    width = min(width, len(values))
    means = []
    for i in range(width):
        part = values[i * len(values) // width : (i + 1) * len(values) // width]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def ago(at: float, now: float | None = None) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max((time.time() if now is None else now) - at, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def counted(count: int, one: str, several: str = "") -> str:
    """`1 document`, `2 documents`."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def size(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
