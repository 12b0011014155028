"""Reasoning: what a model thinks before it answers, between tags such as <think> and </think>.

Which tags a model uses shows in its chat template. A template may open the section in the prompt, so that the answer
begins inside of it. The section is kept apart from the content while it is streamed, it is free of the grammar that the
answer must obey, and it may have a budget: when that is used up, the section is closed for the model. Some models leave
it by beginning a tool call, so the mark that announces calls may end it too.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from windlass.core.errors import InputError
from windlass.serve.engine.constraints.constraint import Constraint
from windlass.serve.engine.dialect.calls import overlap

State = Literal["start", "thinking", "answer"]


@dataclass(frozen=True, slots=True)
class Tags:
    open: str
    close: str


KNOWN = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
)


def find_tags(template: str) -> Tags | None:
    """The tags that a chat template writes, or takes out of earlier answers; None where there are none."""
    return next((tags for tags in KNOWN if tags.close in template), None)


class Sections:
    """Takes an answer apart as it is written. White space around the section belongs to neither part."""

    def __init__(self, tags: Tags, *, inside: bool, calls: str | None = None) -> None:
        """`inside`: whether the prompt has opened the section. `calls`: a mark that ends it too, and is content."""
        self._tags, self._calls = tags, calls
        self._held = ""
        self._state = "inside" if inside else "before"
        self._begun = False
        """Whether anything but white space has been thought."""

    def push(self, text: str) -> tuple[str, str]:
        """Reasoning and content that have become certain."""
        self._held += text
        reasoning = ""
        if self._state == "before":
            start = self._held.lstrip()
            if start.startswith(self._tags.open):
                self._held, self._state = start.removeprefix(self._tags.open), "inside"
            elif self._tags.open.startswith(start):  # nothing yet, or the beginning of the tag
                return "", ""
            else:
                self._state = "content"
        if self._state == "inside":
            self._held = self._held if self._begun else self._held.lstrip()
            self._begun = self._begun or bool(self._held)
            thought, closed, rest = self._held.partition(self._tags.close)
            if self._calls is not None and self._calls in thought:
                thought, closed, _ = thought.partition(self._calls)
                rest = self._held[len(thought) :]
            if not closed:
                ends = filter(None, (self._tags.close, self._calls))
                thought = thought[: len(thought) - max(overlap(thought, end) for end in ends)]
            reasoning = thought.rstrip()
            self._held = self._held[len(reasoning) :]
            if not closed:
                return reasoning, ""
            self._held, self._state = rest, "after"
        if self._state == "after":
            self._held = self._held.lstrip()
            if not self._held:
                return reasoning, ""
            self._state = "content"
        content, self._held = self._held, ""
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """What was held back until now."""
        rest, self._held = self._held, ""
        return (rest.rstrip(), "") if self._state == "inside" else ("", "" if self._state == "after" else rest)

    @property
    def thinking(self) -> bool:
        """Whether what comes next is still reasoning."""
        return self._state == "inside"


class Thinking:
    """A `Constraint` on an answer that may begin with reasoning: the section is free but for its budget, and `answer`
    holds for what comes behind it."""

    def __init__(
        self,
        answer: Constraint | None,
        open: int,
        close: int,
        *,
        inside: bool,
        ends: frozenset[int],
        budget: int | None = None,
        calls: int | None = None,
    ) -> None:
        """`open` and `close`: the tags, each one token. `inside`: whether the prompt has opened the section; if not,
        the first token may open it. `ends`: tokens that end an answer, of no use inside. `budget`: tokens of reasoning,
        tags not counted. `calls`: a token that ends the section too, as the first of the answer.

        Raises `InputError` for a budget below 0.
        """
        if budget is not None and budget < 0:
            raise InputError(f"The budget for reasoning is {budget} tokens, but must be at least 0.")
        self._answer = answer
        self._open, self._close, self._calls, self._ends = open, close, calls, sorted(ends)
        self._budget = budget
        self._state: State = "thinking" if inside else "start"
        self._states: list[tuple[State, bool]] = []
        """For each token written, the state it was written in, and whether it belongs to the answer."""

    @property
    def ended(self) -> bool:
        return self._state == "answer" and self._answer is not None and self._answer.ended

    def allow(self, logits_V: Tensor) -> None:
        if self._state == "thinking":
            if self._spent():
                kept = logits_V[self._close].clone()
                logits_V.fill_(-torch.inf)
                logits_V[self._close] = kept
            else:
                logits_V[self._ends] = -torch.inf
            return
        opening = logits_V[self._open].clone()
        if self._answer is not None:
            self._answer.allow(logits_V)
        if self._state == "start":
            logits_V[self._open] = -torch.inf if self._budget == 0 else opening

    def accept(self, token: int) -> None:
        before = self._state
        if before == "start" and token == self._open:
            self._state = "thinking"
        elif before != "thinking" or token in (self._close, self._calls):
            self._state = "answer"
        answered = self._state == "answer" and not (before == "thinking" and token == self._close)
        self._states.append((before, answered))
        if answered and self._answer is not None:
            self._answer.accept(token)

    def forced(self) -> list[int]:
        if self._state == "thinking":
            return [self._close] if self._spent() else []
        return self._answer.forced() if self._state == "answer" and self._answer is not None else []

    def rollback(self, count: int) -> None:
        for _ in range(count):
            self._state, answered = self._states.pop()
            if answered and self._answer is not None:
                self._answer.rollback(1)

    def copy(self) -> Thinking:
        twin = copy(self)
        twin._answer = None if self._answer is None else self._answer.copy()
        twin._states = list(self._states)
        return twin

    def _spent(self) -> bool:
        return self._budget is not None and self._states.count(("thinking", False)) >= self._budget
