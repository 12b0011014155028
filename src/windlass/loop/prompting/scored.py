"""What scores the answers of a task, by name: a metric of the catalogue, or a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from windlass.apply.tasks.loading import load_function
from windlass.core.errors import InputError
from windlass.evaluate.metrics import catalogue
from windlass.evaluate.metrics.measure import values_of
from windlass.loop.evaluating.scorers import Metric, text_of


@dataclass(frozen=True, slots=True, repr=False)
class ByName:
    """A metric of texts as a function of the wanted and the given answer. Answers that are no text are compared as
    JSON. Of a metric of which less is better it is the negative, since a search looks for more."""

    metric: catalogue.Metric

    def __call__(self, wanted: Any, given: Any) -> float:
        value = float(values_of(self.metric, [text_of(given)], [[text_of(wanted)]])[0])
        return value if self.metric.better == "higher" else -value

    def __repr__(self) -> str:
        return self.metric.name


def scored_by(name: str) -> Metric:
    """`FILE.py:NAME` is a function of (wanted, given); anything else a metric, as `rouge-l`. Raises `InputError` for a
    metric that is not known, and for one that gives single answers no score; and as `load_function`."""
    if ":" in name:
        return load_function(name)
    found = catalogue.metric(name)
    if found.values is None:
        scores = [one.name for one in catalogue.METRICS.values() if one.values is not None]
        raise InputError(
            f"The metric '{found.name}' does not score answers one by one.", f"These do: {', '.join(scores)}."
        )
    return ByName(found)
