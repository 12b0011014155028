"""Several answers to one question, and one of them chosen.

    best(headline.using(temperature=1), notes, n=5, judge=punch)        # the one that a judge likes most
    agreed(total.using(temperature=1), invoice, n=7).share              # the one that most agree on, and how many do
    best([small, large], notes, n=1, judge=punch)                       # an ensemble: one answer of each variant

Best of n: e.g. Cobbe et al. 2021 (arXiv:2110.14168); self-consistency: Wang et al. 2022 (arXiv:2203.11171). Both need
answers that differ: a temperature above 0, or several variants. What all answers cost is summed, also where some fail.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from windlass.apply.tasks.forms.schema import Shape
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.outcome import Attempt, NoAnswer, Outcome, cost_of, usage_of
from windlass.apply.tasks.surroundings import here
from windlass.apply.wrappers.wrapper import closed
from windlass.core.errors import InputError, ProviderError, TimedOut, WindlassError
from windlass.core.values import Usage
from windlass.core.waiting import waited

R = TypeVar("R")
Judge = Callable[..., float | Awaitable[float]]
"""Takes a value, and by name any inputs it wants; returns a score, higher is better. May be a task."""

_FAILURES = (NoAnswer, ProviderError, TimedOut)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[R]):
    variant: int
    """Which of the tasks gave it, from 0 on."""
    outcome: Outcome[R] | None
    error: WindlassError | None
    """Why there is no outcome."""
    score: float | None = None
    """What the judge said, or how many of the others agree."""
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True, slots=True)
class Choice(Generic[R]):
    """The value that was chosen, with all that it was chosen from."""

    value: R
    candidates: Sequence[Candidate[R]]
    chosen: int
    """Which of the candidates."""
    share: float
    """How many of all answers are equal to this one, of 1. Answers that failed agree with nobody."""
    judged: Sequence[Attempt] = ()
    """What a judge that is a task asked."""

    @property
    def usage(self) -> Usage:
        """Tokens of all candidates and of the judge; no count is known when one of them did not report its own."""
        return Usage() if self._lost else usage_of([*_attempts(self.candidates), *self.judged])

    @property
    def cost_usd(self) -> float | None:
        """US dollars of all candidates and of the judge; None when one price is not known."""
        return None if self._lost else cost_of([*_attempts(self.candidates), *self.judged])

    @property
    def _lost(self) -> bool:
        """Whether nobody knows what a candidate took: its provider failed."""
        return any(isinstance(c.error, ProviderError | TimedOut) for c in self.candidates)


def best(tasks: Task[..., R] | Sequence[Task[..., R]], /, *args: Any, n: int, judge: Judge, **kwargs: Any) -> Choice[R]:
    """Asks each task `n` times, all at once, and returns the answer with the highest score; of equals the first.

    Raises `NoAnswer` when every answer failed, and what the judge raises; `InputError` for a score that is no number.
    """
    return waited(_closing(abest(tasks, *args, n=n, judge=judge, **kwargs), tasks, judge))


async def abest(
    tasks: Task[..., R] | Sequence[Task[..., R]], /, *args: Any, n: int, judge: Judge, **kwargs: Any
) -> Choice[R]:
    """As `best`, on the caller's event loop."""
    variants = _variants(tasks)
    found = await _candidates(variants, n, args, kwargs)
    inputs = variants[0].signature.bound(args, kwargs)
    verdicts = await asyncio.gather(*(_scored(judge, candidate, inputs) for candidate in found))
    scored = [candidate for candidate, _ in verdicts]
    judged = [attempt for _, asked in verdicts for attempt in asked]
    scores = {number: candidate.score for number, candidate in enumerate(scored) if candidate.score is not None}
    return _choice(variants[0], scored, max(scores, key=scores.__getitem__), judged)


def agreed(
    tasks: Task[..., R] | Sequence[Task[..., R]],
    /,
    *args: Any,
    n: int,
    same: Callable[[R], Any] | None = None,
    **kwargs: Any,
) -> Choice[R]:
    """Asks each task `n` times, all at once, and returns the answer that most of them gave; of equals the first.

    `same` makes of a value what is compared (`lambda value: value.total`); by default it is the whole value.
    Raises `NoAnswer` when every answer failed.
    """
    return waited(_closing(aagreed(tasks, *args, n=n, same=same, **kwargs), tasks, None))


async def aagreed(
    tasks: Task[..., R] | Sequence[Task[..., R]],
    /,
    *args: Any,
    n: int,
    same: Callable[[R], Any] | None = None,
    **kwargs: Any,
) -> Choice[R]:
    """As `agreed`, on the caller's event loop."""
    variants = _variants(tasks)
    found = await _candidates(variants, n, args, kwargs)
    marks = [None if c.outcome is None else _mark(variants[0], c.outcome.value, same) for c in found]
    votes = [None if mark is None else float(marks.count(mark)) for mark in marks]
    counted = [replace(candidate, score=vote) for candidate, vote in zip(found, votes, strict=True)]
    chosen = max(range(len(votes)), key=lambda number: votes[number] or 0.0)
    return _choice(variants[0], counted, chosen, (), same)


def _variants(tasks: Task[..., R] | Sequence[Task[..., R]]) -> Sequence[Task[..., R]]:
    variants = [tasks] if isinstance(tasks, Task) else list(tasks)
    if not variants:
        raise InputError("There is no task to choose answers of.")
    for variant in variants[1:]:
        if variant.signature.inputs != variants[0].signature.inputs:
            raise InputError(
                f"'{variant.__name__}' and '{variants[0].__name__}' take different inputs.",
                "An ensemble is made of variants of one task: task.using(…).",
            )
    return variants


async def _candidates(
    variants: Sequence[Task[..., R]], n: int, args: Any, kwargs: Mapping[str, Any]
) -> Sequence[Candidate[R]]:
    """`n` answers of each variant. Raises `NoAnswer` when there is none at all, with every attempt."""
    if n < 1:
        raise InputError(f"n={n}: at least one answer must be asked for.")

    asked = [variant for variant in range(len(variants)) for _ in range(n)]

    async def one(number: int, variant: int) -> Candidate[R]:
        task = variants[variant]
        # A draw of its own for each, or a cache would give one answer many times.
        draw = task.settings.parameters.get("draw", 0) * len(asked) + number
        try:
            outcome = await (task.using(draw=draw) if draw else task).arun(*args, **kwargs)
        except _FAILURES as error:
            return Candidate(variant, None, error, attempts=error.attempts if isinstance(error, NoAnswer) else ())
        return Candidate(variant, outcome, None, attempts=outcome.attempts)

    found = await asyncio.gather(*(one(number, variant) for number, variant in enumerate(asked)))
    if all(candidate.outcome is None for candidate in found):
        first = found[0].error
        assert first is not None
        told = f"None of {len(found)} answers is of use; the first: {first.message}"
        raise NoAnswer(told, first.hint, _attempts(found))
    return found


async def _scored(
    judge: Judge, candidate: Candidate[R], inputs: Mapping[str, Any]
) -> tuple[Candidate[R], Sequence[Attempt]]:
    """The candidate with the judge's score, and what the judge asked, if it is a task."""
    if candidate.outcome is None:
        return candidate, ()
    value = candidate.outcome.value
    names = tuple(judge.signature.inputs if isinstance(judge, Task) else inspect.signature(judge).parameters)[1:]
    given = {name: inputs[name] for name in names if name in inputs}
    asked: Sequence[Attempt] = ()
    score: Any
    if isinstance(judge, Task):
        outcome = await judge.arun(value, **given)
        score, asked = outcome.value, outcome.attempts
    else:
        score = judge(value, **given)
        score = await score if inspect.isawaitable(score) else score
    if not isinstance(score, int | float) or score != score:
        raise InputError(f"The judge '{getattr(judge, '__name__', judge)}' gave {score!r}.", "A score is a number.")
    return replace(candidate, score=float(score)), asked


def _choice(
    task: Task[..., R], found: Sequence[Candidate[R]], chosen: int, judged: Sequence[Attempt],
    same: Callable[[R], Any] | None = None,
) -> Choice[R]:  # fmt: skip
    taken = found[chosen].outcome
    assert taken is not None
    mark = _mark(task, taken.value, same)
    equal = sum(c.outcome is not None and _mark(task, c.outcome.value, same) == mark for c in found)
    return Choice(taken.value, tuple(found), chosen, equal / len(found), judged)


def _mark(task: Task[..., Any], value: Any, same: Callable[[Any], Any] | None) -> str:
    """What equal values have in common: their JSON. Texts are compared without the space around them."""
    compared = value if same is None else same(value)
    if isinstance(compared, str):
        return json.dumps(compared.strip())
    kind = task.signature.output if same is None else type(compared)
    return json.dumps(Shape(kind).plain(compared), sort_keys=True)


def _attempts(found: Sequence[Candidate[Any]]) -> list[Attempt]:
    return [attempt for candidate in found for attempt in candidate.attempts]


async def _closing(choosing: Awaitable[Choice[R]], tasks: Any, judge: Any) -> Choice[R]:
    """Closes the connections that belong to this event loop, which ends with the choice."""
    around = here()
    try:
        return await choosing
    finally:
        for task in [*_variants(tasks), *([judge] if isinstance(judge, Task) else [])]:
            await closed(task.settled(around).variant.model(around))
