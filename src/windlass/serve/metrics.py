"""Counters and histograms in the text format of Prometheus (exposition format 0.0.4), without its client library."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Collection, Sequence
from typing import Any

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of a histogram of durations."""

_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """A set of named metrics. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._values: dict[str, dict[_Labels, float]] = {}
        self._histograms: dict[str, dict[_Labels, _Histogram]] = {}

    def declare(self, name: str, kind: str, text: str) -> None:
        """`kind` is counter, gauge or histogram; `text` becomes the HELP line."""
        self._help[name] = (kind, text)
        if kind == "histogram":
            self._histograms.setdefault(name, {})
        else:
            self._values.setdefault(name, {})

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Adds to a counter or gauge."""
        with self._lock:
            series = self._values[name]
            key = tuple(sorted(labels.items()))
            series[key] = series.get(key, 0) + value

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        with self._lock:
            self._values[name][tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Counts one duration, in seconds, into a histogram."""
        with self._lock:
            key = tuple(sorted(labels.items()))
            self._histograms[name].setdefault(key, _Histogram()).observe(value)

    def keep(self, label: str, values: Collection[str]) -> None:
        """Forgets the series that have this label with any other value, so that what comes and goes under ever new
        names does not fill the memory."""
        with self._lock:
            every: list[dict[_Labels, Any]] = [*self._values.values(), *self._histograms.values()]
            for series in every:
                gone = [key for key in series for name, value in key if name == label and value not in values]
                for key in gone:
                    del series[key]

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at, over all series that have these labels."""
        with self._lock:
            wanted = set(labels.items())
            return sum(value for key, value in self._values[name].items() if wanted <= set(key))

    def render(self) -> str:
        """All metrics as Prometheus reads them."""
        lines = []
        with self._lock:
            for name, (kind, text) in self._help.items():
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                if kind == "histogram":
                    for key, histogram in sorted(self._histograms[name].items()):
                        lines += histogram.lines(name, key)
                else:
                    lines += [f"{name}{_braces(key)} {value:g}" for key, value in sorted(self._values[name].items())]
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(SECONDS, value)] += 1
        self.total += value

    def lines(self, name: str, key: _Labels) -> list[str]:
        lines, seen = [], 0
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts):
            seen += count
            lines.append(f"{name}_bucket{_braces((*key, ('le', bound)))} {seen}")
        return [*lines, f"{name}_sum{_braces(key)} {self.total:.6f}", f"{name}_count{_braces(key)} {seen}"]


def _braces(labels: Sequence[tuple[str, str]]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}" if labels else ""
