"""All documents in place of the passages that a search found: where they fit the window, and cost less.

Whether they do is counted, not assumed. Few documents are shorter than the passages; more of them still cost less where
many questions are asked in a row, as documents stand first, the same to the byte, and providers sell what they have in
their cache for a tenth. What is not known (a window, a price of cached tokens) speaks for the passages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from windlass.apply.wrappers.budget import ASSUMED_OUTPUT
from windlass.apply.wrappers.fitting import window_of
from windlass.apply.wrappers.tokens import count
from windlass.apply.wrappers.wrapper import Model, costs_of, innermost
from windlass.core.errors import InputError
from windlass.core.values import ChatRequest, Citation, Usage
from windlass.core.windows import Window

Build = Callable[[str, Sequence[Citation]], ChatRequest]
"""Makes the request of a question and the passages that are to answer it."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a question is to be answered, and by which numbers. Tokens are those of a prompt that are read anew, dollars
    those of a call, both on average over the questions."""

    whole: bool
    reason: str
    tokens: tuple[int, int]
    """With all documents, and with the passages found."""
    usd: tuple[float | None, float | None]
    """The same; None where no price is known."""


def route(
    model: Model,
    build: Build,
    question: str,
    whole: Sequence[Citation],
    found: Sequence[Citation],
    *,
    windows: Mapping[str, Window] | None = None,
    questions: int = 1,
) -> Route:
    """Compares the request that holds all documents (`whole`) with the one that holds those `found`.

    `questions`: how many are asked of these documents while the provider has them in its cache; 1: none is expected to
    be there. `windows`: the `[windows]` of windlass.toml. Raises `InputError` for fewer than one question.
    """
    if questions < 1:
        raise InputError(f"{questions} questions cannot be asked of the documents.", "Give at least 1.")
    long, short = build(question, whole), build(question, found)
    read, searched = (count(request, innermost(model)).tokens for request in (long, short))
    answer = long.max_tokens or ASSUMED_OUTPUT
    cached = int(read * _shared(long, build(f"not {question}", whole)))
    first = costs_of(model, Usage(input=read, output=answer), long)
    later = costs_of(model, Usage(input=read - cached, cache_read=cached, output=answer), long)
    if first is not None and later is None:  # not sold from a cache
        later, cached = first, 0
    usd = None if first is None or later is None else (first + (questions - 1) * later) / questions
    tokens = (read - cached * (questions - 1) // questions, searched)
    dollars = (usd, costs_of(model, Usage(input=searched, output=answer), short))
    if (window := window_of(model, windows)) is None:
        return Route(False, f"nobody knows the window of '{model.name}'", tokens, dollars)
    if read > (room := min(window.context - answer, window.input or window.context)):
        return Route(False, f"{read:,} tokens do not fit the room of {room:,}", tokens, dollars)
    if dollars[0] is not None and dollars[1] is not None:
        numbers = f"${dollars[0]:.3g} a question, ${dollars[1]:.3g} for passages"
        return Route(dollars[0] <= dollars[1], numbers, tokens, dollars)
    return Route(tokens[0] <= tokens[1], f"{tokens[0]:,} tokens a question, {searched:,} for passages", tokens, dollars)


def _shared(one: ChatRequest, other: ChatRequest) -> float:
    """The share of a prompt that stands before the first difference from another one."""
    text, another = ("\0".join(message.text for message in request.messages) for request in (one, other))
    same, longest = 0, min(len(text), len(another))
    while same < longest:
        middle = (same + longest + 1) // 2
        if text[:middle] == another[:middle]:
            same = middle
        else:
            longest = middle - 1
    return same / max(1, len(text))
