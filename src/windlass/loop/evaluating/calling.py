"""Any function over items: called with the inputs by name, and scored as a task's answers are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from windlass.apply.tasks.prompt import Example
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results, split_values
from windlass.loop.evaluating.answering import Answered, at_once
from windlass.loop.evaluating.items import Item, different
from windlass.loop.evaluating.running import Asking, evaluation_of, score
from windlass.loop.evaluating.scorers import Scorer
from windlass.loop.evaluating.tracing import traced


def call_items(
    function: Callable[..., Any],
    items: Sequence[Item],
    scorers: Sequence[Scorer],
    *,
    variant: str,
    dataset: str,
    asking: Asking | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Results:
    """What a function raises is the error of the item, and scores nothing."""
    different(items)
    asking = asking or Asking()

    def one(place: tuple[Item, int]) -> ItemResult:
        item, repeat = place
        values: dict[str, float] = {}
        errors: dict[str, str] = {}
        with traced(item, repeat, name=variant, evaluation=evaluation_of(variant, dataset)) as (span, trace):
            began = clock()
            try:
                value = function(**item.inputs)
            except Exception as error:  # noqa: BLE001 - what a function raises is the item's error, and is counted
                span.error = f"{type(error).__name__}: {error}"
                errors, value = {OUTPUT: f"raised {span.error}"}, None
            else:
                values, errors = split_values({"latency_ms": 1000 * (clock() - began)})
                span.output = _plain(value)
        if OUTPUT not in errors:
            for scorer in scorers:
                found, wrong = score(scorer, Example(item.inputs, item.answer), Answered(value))
                values |= found
                errors |= wrong
        return ItemResult(
            item.key, item.group, repeat, values, errors, _plain(value), item.slices, trace, item.inputs, item.answer
        )

    rows = at_once(asking.at_once, one, [(item, r) for r in range(asking.repeats) for item in items])
    return Results(variant, None, dataset, tuple(rows), {s.name: s.digest for s in scorers})


def _plain(value: Any) -> Any:
    """As JSON, as far as it is; else its text."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)
