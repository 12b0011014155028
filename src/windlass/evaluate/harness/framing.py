"""What stands before a question: instructions and worked examples, as one text or as a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.core.protocols import Prompt
from windlass.core.values import Message

BETWEEN = "\n\n"
"""Stands between instructions, examples and question."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its answer, as the model is shown it."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The same for all questions of a benchmark or of one of its subjects, so that it is read once."""

    system: str = ""
    examples: Sequence[Example] = ()
    chat: bool = False
    """Through the model's chat template: each example is a turn of the user and one of the assistant."""
    delimiter: str = " "
    """Stands between question and answer of a text; in a conversation the template stands there."""

    def prompt(self, question: str) -> Prompt:
        if self.chat:
            turns = [Message("system", self.system)] if self.system else []
            for example in self.examples:
                turns += [Message("user", example.question), Message("assistant", example.answer)]
            return (*turns, Message("user", question))
        before = "".join(f"{one.question}{self.delimiter}{one.answer}{BETWEEN}" for one in self.examples)
        return f"{self._instructions}{before}{question}"

    @property
    def lead(self) -> str:
        """What stands between a prompt and what goes on from it."""
        return "" if self.chat else self.delimiter

    @property
    def _instructions(self) -> str:
        ends = not self.system or self.system[-1].isspace()
        return self.system if ends else self.system + BETWEEN
