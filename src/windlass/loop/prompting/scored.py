"""What a search for better answers maximises, by name: a metric of the catalogue, or a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from windlass.apply.tasks.loading import load_function
from windlass.evaluate.metrics import catalogue
from windlass.loop.evaluating.scorers import Metric, OfTexts


@dataclass(frozen=True, slots=True, repr=False)
class Negative:
    """A metric of which less is better, with its sign turned."""

    metric: OfTexts

    def __call__(self, wanted: Any, given: Any) -> float:
        return -self.metric(wanted, given)

    def __repr__(self) -> str:
        return repr(self.metric)


def scored_by(name: str) -> Metric:
    """`FILE.py:NAME` is a function of (wanted, given); anything else a metric, as `rouge-l`. Raises `InputError` for a
    metric that is not known, and for one that gives single answers no score; and as `load_function`."""
    if ":" in name:
        return load_function(name)
    found = OfTexts(catalogue.metric(name))
    return found if found.known.better == "higher" else Negative(found)
