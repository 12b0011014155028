"""What a turn works on, whatever the task: the candidates it could make, and the questions that judge them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from windlass.core.artifacts import Artifact
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Decision
from windlass.evaluate.metrics.catalogue import Better
from windlass.evaluate.statistics.intervals import Interval
from windlass.loop.turning.race import Score

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate that could be made."""

    name: str
    what: str
    """For somebody who does not know what it is made of."""
    make: Callable[[str], Artifact | None]
    """From a key that belongs on the variant's card to the variant. None: nothing came of it that differs from what is
    live. Made again with the same key it is the same."""
    minutes: float = 0.0
    """About how long that takes."""


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference that the gate looked at, in the words of the report."""

    what: str
    before: float
    after: float
    difference: Interval
    share: bool
    """Whether it is a share, to be told as so many of a hundred."""
    better: Better = "higher"
    """Which way is good."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A candidate beside what is live, on questions that nothing had seen."""

    decision: Decision
    reason: str
    number: int
    """Which comparison on these questions it was, from 1."""
    error_rate: float
    experiment: Artifact
    name: str
    """Of the candidate among the proposals."""
    candidate: Artifact
    gains: Sequence[Gain]

    @classmethod
    def of(cls, ws: Workspace, experiment: Artifact, gains: Sequence[Gain]) -> Compared:
        """As a turn has stored it."""
        card = experiment.card
        candidate = ws.artifacts.get(experiment.parent("candidate"))
        verdict = card["verdict"], card["reason"], card["number"], card["error_rate"]
        return cls(*verdict, experiment, card["origin"], candidate, gains)


class Ground(Protocol):
    """What is live of a task, what was learned about it, and questions. Made for one turn."""

    task: str

    @property
    def incumbent(self) -> Artifact: ...

    @property
    def dataset(self) -> Artifact:
        """What candidates are made from."""
        ...

    @property
    def lesson(self) -> str:
        """Digest of what candidates are made from and judged by, whatever is live."""
        ...

    @property
    def clusters(self) -> Sequence[str]:
        """Of each dev question."""
        ...

    @property
    def test_questions(self) -> int: ...

    def proposals(self) -> Sequence[Proposal]: ...

    def score(self, variant: Artifact) -> Score:
        """The variant on dev questions."""
        ...

    def compare(self, name: str, candidate: Artifact, key: str, lesson: str) -> Compared:
        """On the test questions, under an error rate of its own, and stored; or as it was stored already. `name`, `key`
        and `lesson` go on its card as `origin`, `of` and `lesson`."""
        ...

    def compared(self, experiment: Artifact) -> Compared:
        """What such an experiment said."""
        ...

    def spent(self) -> dict[str, float]:
        """Dollars, tokens and calls of language models."""
        ...

    def go_on(self, spent: Mapping[str, float]) -> None:
        """So much was spent by an earlier, interrupted run of this turn."""
        ...
