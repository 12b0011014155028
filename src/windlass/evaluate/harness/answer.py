"""Answers that the model writes: generated up to a stop string, taken out of the text, and compared with what is right.

[extract.exact_match]             the metric's name
pattern = "#### (.*)"             which part of the text is the answer
pick = "last"                     of several matches
alike = "number"                  when it is the same as what is right: text, words, number, letter
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Scored
from windlass.evaluate.harness.extraction import Answer as Extract
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Reply, Request, Write
from windlass.evaluate.harness.rows import Row


@dataclass(frozen=True, kw_only=True)
class Answer(Benchmark):
    prompt: str
    answers: str
    """What is right: a template, or the one field that holds several."""
    shown: str = ""
    """What an example is shown with; empty: the first of the answers."""
    stop: tuple[str, ...] = ("\n",)
    max_tokens: int = 64
    extract: Mapping[str, Extract] = field(default_factory=lambda: {"exact_match": Extract()})

    texts: ClassVar[tuple[str, ...]] = ("prompt", "answers", "shown")

    def __post_init__(self) -> None:
        Benchmark.__post_init__(self)
        if self.max_tokens < 1 or not all(self.stop):
            raise ValueError("max_tokens must be at least 1, and no stop string empty")

    @property
    def metrics(self) -> Sequence[str]:
        return tuple(self.extract)

    def example(self, row: Row) -> Example:
        shown = templates.text(self.shown, row) if self.shown else self._gold(row)[0]
        return Example(templates.text(self.prompt, row), shown)

    def check(self, row: Row) -> None:
        self.example(row)
        for how in self.extract.values():
            how.right("0", self._gold(row))

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        return [Write(frame.prompt(templates.text(self.prompt, row)), self.max_tokens, self.stop)]

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        gold, (said,) = self._gold(row), replies
        assert isinstance(said, str), "the request was for a text"
        found = {name: how.found_in(said) for name, how in self.extract.items()}
        values = {name: float(how.right(found[name], gold)) for name, how in self.extract.items()}
        return Scored(values, {"text": said, "answers": found}, gold)

    def _gold(self, row: Row) -> list[str]:
        found = templates.value(self.answers, row)
        return [str(one) for one in found] if isinstance(found, list) else [templates.text(self.answers, row)]
