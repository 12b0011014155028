"""A judge as a value: what it looks at, by which criteria and levels, which models give the verdict.

Without models it is a rubric for people, who then answer the very question that a model will (`evaluate.review`).
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from windlass.core.files import sha256_json

Kind = Literal["rubric", "pairwise"]
Vote = Literal["median", "mean", "majority"]
"""How a panel's opinions become one judgement."""

FIRST, TIE, SECOND = "first", "tie", "second"
SIDES = ("_1", "_2")
"""What the names of the two outputs of a pair end in."""


def _identifier(name: str, what: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise ValueError(f"'{name}' cannot be the name of a {what}: use letters, digits and '_'")


@dataclass(frozen=True, slots=True)
class Level:
    name: str
    value: float
    """Larger is better."""
    what: str = ""
    """When an output is of this level."""


@dataclass(frozen=True, slots=True)
class Criterion:
    name: str
    asks: str
    levels: tuple[Level, ...]
    passes: str = ""
    """The lowest level that is good enough; by default the best one."""

    def __post_init__(self) -> None:
        _identifier(self.name, "criterion")
        names = [level.name for level in self.levels]
        if len(names) < 2 or len({level.value for level in self.levels}) < 2:
            raise ValueError(f"the criterion '{self.name}' needs two levels of different value")
        if len(set(names)) < len(names) or not all(names):
            raise ValueError(f"two levels of '{self.name}' have one name, or one has none")
        if self.passes and self.passes not in names:
            raise ValueError(f"'{self.name}' passes at '{self.passes}', which is none of its levels")

    def value(self, level: str) -> float:
        return next(one.value for one in self.levels if one.name == level)

    def passed(self, value: float) -> bool:
        return value >= self.bar

    @property
    def bar(self) -> float:
        """The value from which it is passed."""
        return self.value(self.passes) if self.passes else self.highest

    @property
    def lowest(self) -> float:
        return min(level.value for level in self.levels)

    @property
    def highest(self) -> float:
        return max(level.value for level in self.levels)

    @property
    def is_binary(self) -> bool:
        return len(self.levels) == 2


PREFERRED = Criterion(
    "preferred",
    "Which of the two outputs is better?",
    (Level(SECOND, 0.0), Level(TIE, 0.5), Level(FIRST, 1.0)),
)
"""The one criterion of a pairwise judge. As a number it is how far the first output is preferred."""


@dataclass(frozen=True)
class Judge:
    """Raises `ValueError` for what cannot be asked."""

    name: str
    instructions: str
    """What the judge is told before its criteria: who it is, what matters, what does not."""
    kind: Kind = "rubric"
    """A rubric looks at one output, a pairwise judge at two, and says which one is better."""
    inputs: tuple[str, ...] = ("input", "output")
    """The fields of an item that it reads. Of a pair, the last one is there twice: `output_1` and `output_2`."""
    reference: str = ""
    """The field that holds a right answer, where the judge is to go by one."""
    criteria: tuple[Criterion, ...] = ()
    """Of a rubric. A pairwise judge has one of its own: `preferred`."""
    models: tuple[str, ...] = ()
    """Who is asked: `provider:name`, `local:NAME`, or `classifier:NAME`. Several are a panel."""
    better: str = ""
    """Of a pairwise judge by a classifier: the label of an output that is good."""
    vote: Vote = "median"
    max_errors: float = 0.05
    """With a larger share of items without a judgement, no verdict may rest on it."""
    settings: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0.0})
    """Parameters of the requests."""

    def __post_init__(self) -> None:
        if not self.instructions.strip():
            raise ValueError("a judge without instructions: write what matters below the settings")
        if self.kind == "pairwise":
            if self.criteria not in ((), (PREFERRED,)):
                raise ValueError("a pairwise judge has no criteria of its own: say in the instructions what is better")
            object.__setattr__(self, "criteria", (PREFERRED,))
        if not self.criteria:
            raise ValueError("a rubric needs criteria: write [[criteria]] with name, asks and levels")
        for what, names in (
            ("input", [*self.inputs, self.reference] if self.reference else self.inputs),
            ("criterion", [criterion.name for criterion in self.criteria]),
            ("model", self.models),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"the {what} '{next(n for n in names if list(names).count(n) > 1)}' stands twice")
        for name in (*self.inputs, *([self.reference] if self.reference else [])):
            _identifier(name, "input")
        if not self.inputs:
            raise ValueError("a judge needs inputs: the fields of an item that it reads")
        if not 0 <= self.max_errors < 1:
            raise ValueError(f"max_errors is a share from 0 to below 1, not {self.max_errors}")

    @property
    def pairwise(self) -> bool:
        return self.kind == "pairwise"

    @property
    def judged(self) -> str:
        """The field that holds the output."""
        return self.inputs[-1]

    @property
    def context(self) -> tuple[str, ...]:
        """The other fields: what was asked, and a right answer where there is one."""
        return (*self.inputs[:-1], *([self.reference] if self.reference else []))

    @property
    def fields(self) -> tuple[str, ...]:
        """What an item must have."""
        judged = tuple(f"{self.judged}{side}" for side in SIDES) if self.pairwise else (self.judged,)
        return (*self.context, *judged)

    def criterion(self, name: str) -> Criterion:
        return next(one for one in self.criteria if one.name == name)

    def score_name(self, criterion: str) -> str:
        """What the scores of a criterion are called."""
        return self.name if len(self.criteria) == 1 else f"{self.name}.{criterion}"

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        if self.pairwise:
            del row["criteria"]
        return row

    @cached_property
    def digest(self) -> str:
        """Of all that decides a verdict. Its name does not: a copy under another name judges alike."""
        return sha256_json({name: value for name, value in self.to_json().items() if name != "name"})
