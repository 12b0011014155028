"""Reasoning: what a model thinks before it answers, between tags such as <think> and </think>.

Which tags a model uses shows in its chat template. A template may open the section in the prompt, so that the answer
begins inside of it. The section is kept apart from the content while it is streamed, it is free of the grammar that the
answer must obey, and it may have a budget: when that is used up, the section is closed for the model.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from windlass.core.errors import InputError
from windlass.serve.engine.constraints.constraint import Constraint

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

    def __init__(self, tags: Tags, *, inside: bool) -> None:
        """`inside`: whether the prompt has opened the section."""
        self._tags = tags
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
            thought, found, rest = self._held.partition(self._tags.close)
            if not found:
                thought = thought[: len(thought) - self._overlap(thought)]
            reasoning = thought.rstrip()
            self._held = self._held[len(reasoning) :]
            if not found:
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

    def _overlap(self, text: str) -> int:
        close = self._tags.close
        longest = min(len(close) - 1, len(text))
        return next((length for length in range(longest, 0, -1) if text.endswith(close[:length])), 0)


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
    ) -> None:
        """`open` and `close`: the tags, each one token. `inside`: whether the prompt has opened the section; if not,
        the first token may open it. `ends`: tokens that end an answer, of no use inside. `budget`: tokens of reasoning,
        tags not counted.

        Raises `InputError` for a budget below 0.
        """
        if budget is not None and budget < 0:
            raise InputError(f"The budget for reasoning is {budget} tokens, but must be at least 0.")
        self._answer = answer
        self._open, self._close, self._ends = open, close, sorted(ends)
        self._budget = budget
        self._state: State = "thinking" if inside else "start"
        self._states: list[State] = []
        """For each token written, the state it was written in."""

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
        self._states.append(self._state)
        if self._state == "start" and token == self._open:
            self._state = "thinking"
        elif self._state == "thinking":
            self._state = "answer" if token == self._close else "thinking"
        else:
            self._state = "answer"
            if self._answer is not None:
                self._answer.accept(token)

    def forced(self) -> list[int]:
        if self._state == "thinking":
            return [self._close] if self._spent() else []
        return self._answer.forced() if self._state == "answer" and self._answer is not None else []

    def rollback(self, count: int) -> None:
        for _ in range(count):
            after, self._state = self._state, self._states.pop()
            if after == "answer" and self._state != "thinking" and self._answer is not None:
                self._answer.rollback(1)

    def copy(self) -> Thinking:
        twin = copy(self)
        twin._answer = None if self._answer is None else self._answer.copy()
        twin._states = list(self._states)
        return twin

    def _spent(self) -> bool:
        return self._budget is not None and self._states.count("thinking") >= self._budget
