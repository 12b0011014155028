"""A test that holds a task, or any function, to a score: decided on the interval, never on the point.

    import windlass as wl

    @wl.evaluation(items="reviews.jsonl", metric="equal", at_least=0.9)
    def test_tone(review: str) -> str:
        return tone(review)

pytest runs it like any other test. It passes where the whole interval of the score lies at or above `at_least`, and
fails where it cannot be told: a score of 19 of 20 does not show 0.9. `windlass.loop.evaluating.pytest_plugin` shows the
items that went wrong and sums up what was evaluated; without it the test raises what any runner shows.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.evaluate.experiments.results import ItemResult, Results
    from windlass.evaluate.gate import Verdict
    from windlass.loop.evaluating.items import Item

SHOWN = 5
"""Items that went wrong, in the report of a test that failed."""
ATTRIBUTE = "windlass_evaluation"


class NotShown(AssertionError):
    """The score that a test asks for was not shown. `str` is the report."""


@dataclass(slots=True)
class Evaluation:
    """What a test asks for, and after it ran what came of it."""

    name: str
    metric: str
    at_least: float
    results: Results | None = None
    verdict: Verdict | None = None
    report: str = ""


def evaluation(
    *,
    items: str | Path | Iterable[Any],
    metric: str | Callable[..., Any] = "equal",
    at_least: float,
    repeats: int = 1,
    at_once: int = 1,
    level: float = 0.95,
    error_limit: float = 0.02,
    min_items: int = 10,
    inconclusive: Literal["fail", "pass"] = "fail",
    traces: bool = True,
) -> Callable[[Any], Callable[[], None]]:
    """Makes a test of a task, or of a function that takes an item's inputs by name and returns the answer.

    items: a file of JSON lines, as `windlass eval` takes it; or items, mappings with `inputs` and `expected`, or pairs
        of inputs and what is expected.
    metric: equal, exact, f1, `FILE.py:NAME`, or a function of the wanted and the given answer.
    level: of the two-sided interval whose lower end must reach `at_least`.
    error_limit: share of items on which the function or the metric may fail before nothing is shown.
    inconclusive: what becomes of a test where it cannot be told.
    traces: whether each item leaves a trace in the workspace, if there is one. It counts as no traffic.
    """
    if not 0 < level < 1:
        raise InputError(f"A confidence level lies between 0 and 1, not at {level}.")

    def made(function: Any) -> Callable[[], None]:
        from windlass.loop.evaluating.scorers import scorer
        from windlass.loop.evaluating.tracing import untraced

        told = Evaluation(getattr(function, "__name__", "evaluation"), scorer(metric).name, at_least)

        def test() -> None:
            with contextlib.nullcontext() if traces else untraced():
                told.results = _results(function, _items(items), metric, repeats, at_once)
            told.verdict = _verdict(told, level, error_limit, min_items)
            told.report = _report(told)
            bad = told.verdict.decision == "NO-GO" or (
                told.verdict.decision == "INCONCLUSIVE" and inconclusive == "fail"
            )
            if bad:
                raise NotShown(told.report)

        functools.update_wrapper(test, function, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        vars(test).pop("__wrapped__", None)  # pytest would take the inputs for fixtures
        setattr(test, ATTRIBUTE, told)
        return test

    return made


def _items(given: str | Path | Iterable[Any]) -> list[Item]:
    from windlass.loop.evaluating.items import Item, read_items

    if isinstance(given, str | Path):
        return read_items(Path(given))
    found = []
    for number, one in enumerate(given, 1):
        if isinstance(one, Item):
            found.append(one)
        elif isinstance(one, Mapping) and isinstance(one.get("inputs"), Mapping) and "expected" in one:
            found.append(Item(one["inputs"], one["expected"], str(one.get("cluster", "")), one.get("slices", {})))
        elif isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], Mapping):
            found.append(Item(*one))
        else:
            raise InputError(f'Item {number} is neither {{"inputs": ..., "expected": ...}} nor (inputs, expected).')
    return found


def _results(function: Any, items: Sequence[Item], metric: Any, repeats: int, at_once: int) -> Results:
    from windlass.apply.tasks.functions import Task
    from windlass.loop.evaluating.calling import call_items
    from windlass.loop.evaluating.running import Asking, dataset_digest, run_items
    from windlass.loop.evaluating.scorers import scorers

    found, asking, digest = scorers([metric]), Asking(repeats, None, at_once), dataset_digest(items)
    if isinstance(function, Task):
        return run_items(function, items, found, variant=function.__name__, dataset=digest, asking=asking)
    if inspect.iscoroutinefunction(function):
        raise InputError(f"'{function.__name__}' is asynchronous.", "Evaluate a function that can be waited for.")
    return call_items(function, items, found, variant=function.__name__, dataset=digest, asking=asking)


def _verdict(told: Evaluation, level: float, error_limit: float, min_items: int) -> Verdict:
    from windlass.evaluate.deciding import candidate_interval
    from windlass.evaluate.experiments.naming import bounds
    from windlass.evaluate.experiments.single import column
    from windlass.evaluate.gate import Limit, Verdict, decide_limit

    assert told.results is not None
    found = column(told.results, told.metric)
    if found.missing > error_limit * found.asked or not found.values:
        reason, often = next(iter(found.reasons.items()), ("it applies to none", found.asked))
        return Verdict(
            "INCONCLUSIVE",
            f"{found.missing} of {found.asked} items have no {told.metric} ({often} times: {reason}); at most "
            f"{100 * error_limit:g} % may.",
        )
    low, high = bounds(told.metric)
    if told.metric in ("equal", "exact") or set(found.values) <= {0.0, 1.0}:
        low, high = 0.0, 1.0
    limit = Limit(
        told.metric, at_least=told.at_least, error_rate=(1 - level) / 2, min_items=min_items, min_clusters=min_items
    )
    return decide_limit(candidate_interval(found.pairs((low, high)), limit), limit=limit)


def _report(told: Evaluation) -> str:
    from windlass.evaluate.experiments.regressions import as_text

    assert told.results is not None and told.verdict is not None
    lines = [f"{told.verdict.decision}: {told.verdict.reason}"]
    wrong = [one for one in told.results.items if _bad(one, told.metric)]
    wrong.sort(key=lambda one: one.values.get(told.metric, -1.0))
    if wrong:
        lines.append(
            f"{len(wrong)} of {len(told.results.items)} answers are not right; the worst {min(SHOWN, len(wrong))}:"
        )
    for one in wrong[:SHOWN]:
        problem = one.problem(told.metric)
        lines.append(f"  {as_text(one.input)}".replace("\n", "\n  "))
        lines.append(f"    expected {as_text(one.expected)}".replace("\n", "\n    "))
        lines.append(f"    but      {problem or as_text(one.output)}".replace("\n", "\n    "))
        if problem is None:
            lines.append(f"    {told.metric} {one.values[told.metric]:g}")
    return "\n".join(lines)


def _bad(one: ItemResult, metric: str) -> bool:
    return one.problem(metric) is not None or one.values.get(metric, 1.0) < 1.0
