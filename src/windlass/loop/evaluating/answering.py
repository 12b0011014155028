"""What a task answers to one item: a value, no answer that fits, or a provider that failed; and what that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from windlass.apply.tasks.forms.reading import json_in
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.mapping.run import HOPELESS
from windlass.apply.tasks.mapping.silence import Silence
from windlass.apply.tasks.outcome import Attempt, NoAnswer, Outcome, usage_of
from windlass.apply.tasks.prompt import Example
from windlass.core.errors import ProviderError, TimedOut, TooLong
from windlass.core.spans import carried

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Answered:
    value: Any = None
    """Of the task's own type; None where there is none."""
    reasoning: str = ""
    problem: str = ""
    """Why there is no answer that fits: the variant's own doing, and so is a prompt that is too long for its model."""
    failed: str = ""
    """Why nobody answered: the provider's doing, which says nothing of the variant."""
    latency_ms: float | None = None
    """None where an answer was not waited for, because it was kept."""
    cost_usd: float | None = None
    tokens: int | None = None
    trace: str | None = None
    """Id of the trace that it left; None where none was kept."""


def ask(
    variant: Task[..., Any],
    item: Example,
    clock: Callable[[], float] = time.perf_counter,
    silence: Silence | None = None,
) -> Answered:
    """Raises what a budget raises, and `ProviderError` for a provider that lets nobody in, or that has answered nothing
    in the run whose `silence` is given."""
    silence = silence or Silence()
    began = clock()
    try:
        outcome: Outcome[Any] = variant.run(**item.inputs)
    except NoAnswer as error:
        return _told(error.attempts, clock() - began, error.cost_usd, problem=error.message)
    except TooLong as error:
        return Answered(problem=error.message)
    except (ProviderError, TimedOut) as error:
        if getattr(error, "status", None) in HOPELESS:
            raise
        silence.failed(error)
        return Answered(failed=error.message or type(error).__name__)
    silence.broken()
    thought = _reasoning(outcome) if variant.settings.think else ""
    return _told(outcome.attempts, clock() - began, outcome.cost_usd, value=outcome.value, reasoning=thought)


def at_once(many: int, do: Callable[[A], B], things: Iterable[A]) -> list[B]:
    """`do` for each, `many` at a time, in their order. What it raises is raised once what is under way has ended."""
    if many == 1:
        return [do(thing) for thing in things]
    with ThreadPoolExecutor(many) as threads:
        try:
            return list(threads.map(carried(do), things))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _told(attempts: Iterable[Attempt], seconds: float, cost: float | None, **said: Any) -> Answered:
    made = list(attempts)
    waited = made and all(attempt.response.kept is None for attempt in made)
    return Answered(**said, latency_ms=1000 * seconds if waited else None, cost_usd=cost, tokens=usage_of(made).total)


def _reasoning(outcome: Outcome[Any]) -> str:
    message = outcome.attempts[-1].response.message
    said = json_in(message.tool_calls[0].arguments if message.tool_calls else message.text)
    return str(said["reasoning"])
