"""Ask, read, and ask again with the precise fault, until the answer fits or the means are used up.

Nothing is sent here: `asking` yields requests and is sent responses, so that one text serves callers that wait and
callers on an event loop. Every attempt is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from windlass.apply.tasks.forms.reading import Reader
from windlass.apply.tasks.forms.schema import Unfit
from windlass.apply.tasks.outcome import Attempt, NoAnswer, Outcome, Refused
from windlass.core.values import ChatRequest, ChatResponse, Message, ToolSpec

T = TypeVar("T")

Mode = Literal["text", "schema", "tool", "prompt"]
"""How the answer is asked for: free text; by the provider's structured output; as the arguments of a tool; or by the
prompt alone."""

TOOL = "answer"


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One call of a task."""

    request: ChatRequest
    mode: Mode
    read: Callable[[str], T]
    """Raises `Unfit`."""
    refusal: Callable[[str], T] | None = None
    """Makes a value of a refusal; None: a refusal is an error."""
    attempts: int = 3
    tokens: int | None = None
    """How many all attempts may take together: none is begun that would pass it, as far as the last one tells."""


def asking(question: Question[T]) -> Generator[ChatRequest, ChatResponse, Outcome[T]]:
    """Raises `NoAnswer`, or `Refused`."""
    request = question.request
    made: list[Attempt] = []
    while True:
        response = yield request
        problems: Sequence[str] = ()
        if response.refused:
            if question.refusal is not None:
                return Outcome(question.refusal(response.message.text), (*made, Attempt(request, response)))
            raise Refused(
                f"The model declined: {response.message.text[:300] or 'it did not say why'}",
                "Ask otherwise, or let the task answer with `Absent` as well.",
                [*made, Attempt(request, response, ("declined",))],
            )
        try:
            if response.finish_reason == "length":
                raise Unfit(["the whole: cut off at the limit of its tokens"])
            value = question.read(_said(response, question.mode))
            return Outcome(value, (*made, Attempt(request, response)))
        except Unfit as unfit:
            problems = unfit.problems
        made.append(Attempt(request, response, problems))
        _stop(question, made)
        request = replace(request, messages=[*request.messages, *_again(response, question.mode, problems)])


def _said(response: ChatResponse, mode: Mode) -> str:
    if mode != "tool":
        return response.message.text
    calls = [call for call in response.message.tool_calls if call.name == TOOL]
    if len(calls) != 1:
        raise Unfit([f"the whole: the tool '{TOOL}' was called {len(calls)} times, not once"])
    return calls[0].arguments


def _stop(question: Question[Any], made: Sequence[Attempt]) -> None:
    """Raises when there must be no other attempt."""
    last = made[-1]
    faults = "; ".join(last.problems)
    if last.response.finish_reason == "length":
        limit = question.request.max_tokens
        raise NoAnswer(
            f"The answer was cut off{'' if limit is None else f' after max_tokens={limit}'}.",
            "Raise max_tokens, or ask for less.",
            made,
        )
    if len(made) >= question.attempts:
        raise NoAnswer(
            f"No answer fits after {len(made)} attempt{'s' if len(made) > 1 else ''}; the last: {faults}.",
            "Look at the attempts on the trace: is the type too strict, or the model too small?",
            made,
        )
    if question.tokens is not None:
        usage = last.response.usage
        spent = sum(attempt.response.usage.total or 0 for attempt in made)  # at least
        next_one = (usage.total or 0) + (usage.completion or 0)  # what was answered is read again
        if spent + next_one > question.tokens:
            raise NoAnswer(
                f"{spent} of {question.tokens} tokens are spent, and another attempt may take {next_one}; "
                f"the last: {faults}.",
                "Raise the task's tokens, or mend what the answers get wrong.",
                made,
            )


def _again(response: ChatResponse, mode: Mode, problems: Sequence[str]) -> list[Message]:
    """What was said, and what is wrong with it. All before stays as it was, for the provider's cache."""
    faults = "\n".join(f"- {problem}" for problem in problems)
    told = f"This answer cannot be used:\n{faults}\nAnswer again, whole and corrected."
    said, calls = response.message, response.message.tool_calls
    if not said.text.strip() and not calls:  # providers refuse messages that say nothing
        return [Message("user", told)]
    if mode == "tool" and calls:
        return [said, *(Message("tool", told, tool_call_id=call.id, name=call.name) for call in calls)]
    return [said, Message("user", told)]


def form(mode: Mode, reader: Reader[Any] | None) -> dict[str, Any]:
    """What a request says of the form of its answer, to be asked for in the way of `mode`."""
    if reader is None or mode in ("text", "prompt"):
        return {}
    if mode == "schema":
        return {"schema": reader.schema}
    return {"tools": [ToolSpec(TOOL, "Give the answer.", reader.schema)], "tool_choice": TOOL}


def checked(
    read: Callable[[str], T], checks: Sequence[Callable[..., Any]], inputs: Mapping[str, Any]
) -> Callable[[str], T]:
    """`read`, and then the task's own checks: each takes the value, and inputs it names, and raises `ValueError`."""
    import inspect

    wanted = [tuple(inspect.signature(check).parameters)[1:] for check in checks]

    def both(text: str) -> T:
        value = read(text)
        problems = []
        for check, names in zip(checks, wanted):
            try:
                check(value, **{name: inputs[name] for name in names})
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise Unfit(problems)
        return value

    return both
