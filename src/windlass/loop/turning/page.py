"""The report of a turn: one page that says what was tried, what it cost, what it brought and how to go back.

For people who know the application and no statistics: an interval is told as a range of so many of a hundred, and what
was not shown is said not to be shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windlass.evaluate.statistics.intervals import Interval
from windlass.loop.turning.ground import Gain
from windlass.loop.turning.words import told


@dataclass(frozen=True, slots=True)
class Tried:
    name: str
    what: str
    fate: str
    gain: Interval | None
    """Over what is live on the dev questions; None where it was not made."""
    minutes: float


@dataclass(frozen=True, slots=True)
class Page:
    task: str
    incumbent: str
    """What was live before."""
    promoted: str | None
    """What is live since; None: nothing was promoted."""
    verdict: str
    """The gate's words."""
    gains: Sequence[Gain]
    tried: Sequence[Tried]
    learned: str
    synthetic: bool
    """Whether candidates learned from questions that nobody asked."""
    tested: int
    """Questions of the comparison; 0: nothing was compared."""
    number: int | None
    error_rate: float | None
    minutes: float
    spent: Mapping[str, float]
    on_trial: str | None = None
    """What a share of the users gets since; None: nothing."""
    share: float = 0.0
    """Theirs, of all."""
    chosen: str | None = None
    """Which of those that were tried was compared last; None: none was."""

    @property
    def title(self) -> str:
        if self.on_trial:
            return f"An improvement of '{self.task}' is on trial"
        return f"'{self.task}' was improved" if self.promoted else f"'{self.task}' stays as it is"

    @property
    def done(self) -> str:
        if self.promoted:
            return f"PROMOTED: '{self.task}' now serves {self.promoted}; it served {self.incumbent} before."
        if self.on_trial:
            return (
                f"ON TRIAL: {100 * self.share:g} of a hundred users of '{self.task}' get {self.on_trial}, the others "
                f"{self.incumbent}. It goes live by itself once its users show that it does no harm, and is taken back "
                "where it does."
            )
        return f"REFUSED: '{self.task}' goes on serving {self.incumbent}."

    @property
    def brought(self) -> list[str]:
        return [told(gain) for gain in self.gains]

    @property
    def sure(self) -> str:
        """What the comparison is worth, in words."""
        if not self.tested or self.error_rate is None:
            return "Nothing was compared on the questions that are kept for that."
        return (
            f"Compared on {self.tested:,} questions that nothing had learned from. What is no better passes such a "
            f"comparison by luck at most once in {1 / self.error_rate:,.0f} times. It was number {self.number} on "
            "these questions; each further one must show more."
        )

    @property
    def cost(self) -> str:
        parts = [f"{self.minutes:,.1f} minutes"]
        unpriced = self.spent.get("unpriced", 0)
        if priced := self.spent.get("calls", 0) - unpriced:
            parts.append(f"${self.spent.get('usd', 0.0):,.4f} for {priced:,.0f} calls of language models")
        if unpriced:
            parts.append(f"{unpriced:,.0f} calls of language models whose price is not known")
        if tokens := self.spent.get("tokens"):
            parts.append(f"{tokens:,.0f} tokens")
        return ", ".join(parts)

    @property
    def back(self) -> str:
        if self.on_trial:
            return f"`windlass canary stop {self.task}` ends it; `windlass canary show {self.task}` says how it stands."
        if self.promoted:
            return f"`windlass rollback {self.task}` serves {self.incumbent} again; nothing is deleted."
        return "There is nothing to undo."

    @property
    def caution(self) -> str:
        if not self.synthetic:
            return ""
        return "The candidates learned from made-up questions, not from users: ask again when there is feedback."

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        return [
            (
                one.name,
                one.what,
                "" if one.gain is None else f"{one.gain.estimate:+.4f}",
                f"{one.minutes:.1f}",
                one.fate,
            )
            for one in self.tried
        ]

    def markdown(self) -> str:
        brought = "\n".join(f"- {line}" for line in self.brought) or "- Nothing that was shown."
        header = ("tried", "what it is", "gain on dev", "minutes", "what came of it")
        table = "\n".join(f"| {' | '.join(row)} |" for row in (header, ("---",) * 5, *self.rows()))
        caution = f"\n\n{self.caution}" if self.caution else ""
        return (
            f"# {self.title}\n\n**{self.done}**{caution}\n\n## What it brings\n\n{brought}\n\n{self.sure}\n\n"
            f"## What was tried\n\nLearned from {self.learned}.\n\n{table}\n\n"
            f"## What it cost\n\n{self.cost}.\n\n## How to go back\n\n{self.back}\n\n"
            f"## The gate's own words\n\n{self.verdict}\n"
        )

    def to_json(self) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in ("title", "done", "brought", "sure", "cost", "back", "caution")}
        gains = [{**asdict(one), "difference": one.difference.to_json()} for one in self.gains]
        tried = [{**asdict(one), "gain": None if one.gain is None else one.gain.to_json()} for one in self.tried]
        return {**asdict(self), "gains": gains, "tried": tried, **said}
