"""The trace that every evaluated item leaves: what was asked, what came of it, and all calls below.

It says that it belongs to an evaluation, so it is no traffic: the store keeps it apart (`Store.traces`), nothing is
harvested from it, and no trial counts it. An item's own span stands above all others, so that whatever the variant
calls, released tasks among them, begins no trace of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from windlass.apply.tasks.surroundings import Surroundings, here, surrounded
from windlass.core.semconv import EVALUATED_ITEM, EVALUATED_REPEAT, EVALUATION
from windlass.core.spans import Span
from windlass.core.store import Store
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.loop.evaluating.items import Item


@contextmanager
def traced(item: Item, repeat: int, *, name: str, evaluation: str) -> Iterator[tuple[Span, str | None]]:
    """The span of an item, and the id of its trace; None where nothing is recorded."""
    recorder = here().recorder
    about: dict[str, Any] = {EVALUATION: evaluation, EVALUATED_ITEM: item.key, EVALUATED_REPEAT: repeat}
    with recorder.span(f"evaluate {name}", **about) as span:
        span.input = item.inputs
        yield span, span.trace_id if recorder.stores else None


@contextmanager
def untraced() -> Iterator[None]:
    """Tasks that are called in this block are not recorded."""
    around = here()
    with surrounded(Surroundings(around.workspace, recorder=Recorder(None), resolve=around.model)):
        yield


@contextmanager
def recorded(ws: Workspace) -> Iterator[None]:
    """Items that are evaluated in this block leave traces in the workspace, where around it nothing is recorded."""
    around = Surroundings(ws, recorder=ws.recorder, resolve=here().model)
    try:
        with surrounded(around):
            yield
        ws.recorder.flush()
    finally:
        around.close()


def with_stored_traces(store: Store, results: Results) -> Results:
    """The results without traces that are not there: of an answer that a killed process kept, the trace may be lost."""

    def checked(one: ItemResult) -> ItemResult:
        return one if one.trace is None or store.trace(one.trace) else replace(one, trace=None)

    items: Sequence[ItemResult] = tuple(checked(one) for one in results.items)
    return replace(results, items=items)
