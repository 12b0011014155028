"""What all benchmarks have in common: their data, what their rows are called, and what stands before a question.

A benchmark is a small file, `benchmarks/NAME.toml`, or one of the user's own. Its `kind` says what a row becomes:
`choice`, `schema`, `continuation`, `answer`, `program` or `perplexity`, one class each, which makes requests of a row
and values of the replies.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Reply, Request
from windlass.evaluate.harness.rows import Row
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.shares import score_interval


@dataclass(frozen=True, slots=True)
class Derived:
    """A field that is made of others: the first group of a pattern in a template. Of a field that is a list, each entry
    is made so."""

    of: str
    match: str = "(.*)"
    without: str = ""
    """A pattern: what it matches is then left out."""
    replace: Mapping[str, str] = field(default_factory=dict)
    """What then takes the place of what."""
    capital: bool = False
    """In the end begun with a capital letter, and gone on with in small ones."""

    def __post_init__(self) -> None:
        for pattern in (self.match, self.without):
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
            if groups < 1 and pattern == self.match:
                raise ValueError(f"{self.match!r} has no group: put what is wanted into parentheses")

    def value(self, row: Row) -> str | list[str]:
        found = templates.value(self.of, row)
        if isinstance(found, list):
            return [self._made(str(one)) for one in found]
        return self._made(templates.text(self.of, row))

    def _made(self, text: str) -> str:
        match = re.search(self.match, text, re.DOTALL)
        if match is None or match[1] is None:
            raise InputError(f"Nothing in {text[:80]!r} matches {self.match!r}.")
        found = str(match[1])
        if self.without:
            found = re.sub(self.without, "", found)
        for old, new in self.replace.items():
            found = found.replace(old, new)
        return found.capitalize() if self.capital else found


@dataclass(frozen=True, slots=True)
class Shots:
    """Worked examples before each question."""

    number: int = 0
    data: str = ""
    """Where they come from, as `Benchmark.data`, with the same names in braces. Empty: the benchmark's own data, whose
    rows are then not asked."""

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError(f"number is {self.number}")


@dataclass(frozen=True, slots=True)
class Lead:
    """Instructions that lie in a file of the data folder."""

    file: str
    """With the same names in braces as `Benchmark.data`."""
    after: str = ""
    """What comes before this, and this itself, is left out."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What one row's replies are worth."""

    values: Mapping[str, float]
    output: Any
    """What the model chose or wrote, as plain JSON."""
    expected: Any


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of a whole benchmark."""

    metric: str
    interval: Interval
    better: Literal["higher", "lower"] = "higher"
    chance: float | None = None
    """What guessing would have."""


@dataclass(frozen=True, kw_only=True)
class Benchmark(abc.ABC):
    """A benchmark by its file. `fields`, templates and patterns are looked at when it is read, rows when they are."""

    name: str = ""
    """That of its file."""
    digest: str = ""
    """SHA-256 of what the file says."""
    what: str
    """One line."""
    data: str | tuple[str, ...]
    """Paths below the data folder. Names in braces stand for parts of file names, and are fields of the rows."""
    source: str = ""
    rows: str = ""
    """The key under which a JSON file holds its rows."""
    split: str = ""
    """A pattern at which plain text is cut into rows."""
    fields: Mapping[str, Derived] = field(default_factory=dict)
    cluster: str = ""
    """A template: rows for which it is the same hang together, such as questions on one passage."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Kind of slice -> a template."""
    system: str = ""
    """Instructions: a template, which reads the first row of a file."""
    lead: Lead | None = None
    shots: Shots = field(default_factory=Shots)
    delimiter: str = " "
    """Stands between a prompt and its answer."""

    texts: ClassVar[tuple[str, ...]] = ()
    """Which of its keys are templates; each is checked when the file is read."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.split)
        except re.error as error:
            raise ValueError(f"split is no regular expression ({error})") from error
        for name in (*self.texts, "cluster", "system"):
            given = getattr(self, name)
            for template in [given] if isinstance(given, str) else given:
                try:
                    templates.names(template)
                except InputError as error:
                    raise ValueError(f"{name}: {error.message}") from error

    @property
    def paths(self) -> Sequence[str]:
        return (self.data,) if isinstance(self.data, str) else self.data

    def complete(self, row: Row) -> Row:
        """The row with its derived fields."""
        found = dict(row)
        for name, derived in self.fields.items():
            found[name] = derived.value(found)
        return found

    @property
    @abc.abstractmethod
    def metrics(self) -> Sequence[str]:
        """The first is the one that the benchmark is known by."""

    @abc.abstractmethod
    def example(self, row: Row) -> Example:
        """The row with its answer, as the model is shown it."""

    def question(self, row: Row) -> str:
        """What is asked, for people."""
        return self.example(row).question

    @abc.abstractmethod
    def requests(self, row: Row, frame: Frame) -> Sequence[Request]: ...

    @abc.abstractmethod
    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        """`replies`: in the order of its requests."""

    def score_all(self, asked: Sequence[tuple[Row, Sequence[Reply]]]) -> list[Scored]:
        """Each row with its replies."""
        return [self.score(row, replies) for row, replies in asked]

    def check(self, row: Row) -> None:
        """Raises `InputError` for a row that could not be scored; called before anything is asked."""
        self.example(row)

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        """The figures of the whole, over the items that have a value: of each metric the share that is right."""
        return [
            Measure(metric, share_of([one for one in items if metric in one.values], metric, level))
            for metric in self.metrics
            if any(metric in one.values for one in items)
        ]


def share_of(items: Sequence[ItemResult], metric: str, level: float) -> Interval:
    """Of the items that are right, exactly, and by clusters where items hang together."""
    found = score_interval([one.values[metric] for one in items], [one.group for one in items], level)
    return found.within(0.0, 1.0)
