"""The flow of a turn: make candidates, let them race, compare the winner with what is live, release it or say why not.

**What is promised.** The race sees dev questions only. A finalist is compared on test questions that neither harvest,
training, fitting nor race has seen, and promoted when the interval says so. Each such comparison has its own number on
these questions and the error rate that belongs to it (`comparison.py`): a second finalist of one turn is tested after
the refusal of the first one, as if it came a turn later, so all comparisons of all turns together ever promote a
candidate that is no better with probability at most `total_error`. Where nobody gains on the dev questions nothing is
compared, and nothing of the error rate is spent.

**Release.** What passed goes live, or, with a share for a canary, to that share of the users first: the trial makes it
live once its users show that it does no harm, and takes it back where it does (`loop/releasing`).

**Crashes.** What a stage finished is in the ledger of the turn, and each artifact is there whole or not at all; run
again, a killed turn goes on where it was, and never compares twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.wrappers.budget import OverBudget
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.records import ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.loop.ledger import Ledger
from windlass.loop.releasing.releases import history, live, promote
from windlass.loop.releasing.trial import NO_WORSE, PLANNED, State, Trial, begin, new_id, states
from windlass.loop.turning.ground import Compared, Ground, Proposal, Tell
from windlass.loop.turning.page import Page, Tried
from windlass.loop.turning.race import Positions, Score, Standing, race
from windlass.loop.turning.report import store_page
from windlass.loop.turning.spending import Clock, Limits


@dataclass(frozen=True, slots=True)
class Turned:
    """What came of a turn."""

    task: str
    incumbent: Artifact
    dataset: Artifact
    tried: Sequence[Tried]
    compared: Sequence[Compared]
    """The finalists that were compared on test questions, in that order; the last one decided."""
    release: ReleaseRecord | None
    """The promotion; None when nothing was promoted."""
    trial: State | None
    """The trial that was begun instead; None when none was."""
    page: Page
    report: Artifact
    """The page as an artifact of kind `report`."""
    resumed: bool
    """Whether all of it had been decided before: by a turn that was interrupted, or on the same feedback."""

    @property
    def promoted(self) -> bool:
        return self.release is not None


def turn_all(
    ws: Workspace,
    ground: Ground,
    *,
    limits: Limits | None = None,
    finalists: int = 1,
    only: Sequence[str] = (),
    canary: float | None = None,
    tell: Tell = lambda _: None,
) -> Turned:
    """Makes what the limits allow of the ground's proposals (or `only` these), and promotes at most one; with a share
    for a `canary`, it begins a trial of it.

    Run again on the same feedback it repeats its verdict without testing again. The caller holds the lock of the task.
    Raises `InputError` for a proposal that there is not, for less than one finalist, for a share that is none, and
    where another trial of the task runs when this one should begin: nothing is lost then.
    """
    limits = limits or Limits()
    if finalists < 1:
        raise InputError(f"{finalists} finalists are none.", "Give at least 1.")
    if canary is not None and not 0 < canary < 1:
        raise InputError(f"A canary gets a share between 0 and 1 of the users, not {canary:g}.", "Give 0.1, say.")
    lesson = sha256_json([ground.lesson, asdict(limits), finalists, sorted(only)])
    done = _promoted_before(ws, ground.task, lesson)
    key = sha256_json([ground.incumbent.digest, lesson]) if done is None else str(done.card["of"])
    work = _Work(ws, ground, Ledger(ws, f"turn:{key}"), key, lesson, limits, tell)
    resumed = work.ledger.has("ended")
    compared = work.done(finalists, only) if done is None else [ground.compared(done)]
    return work.told(compared, resumed, canary)


def _promoted_before(ws: Workspace, task: str, lesson: str) -> Artifact | None:
    """The comparison by which what is live was promoted, if it rests on this very lesson: the turn was killed between
    promotion and report, or is run again."""
    row = live(ws, task)
    if row is None or row.action != "promote" or row.experiment is None:
        return None
    experiment = ws.artifacts.get(row.experiment)
    return experiment if experiment.card.get("lesson") == lesson else None


class _Work:
    """One turn, from the proposals to the report. Each step finds what an earlier run of it made."""

    def __init__(
        self, ws: Workspace, ground: Ground, ledger: Ledger, key: str, lesson: str, limits: Limits, tell: Tell
    ) -> None:
        self.ws, self.ground, self.ledger, self.key, self.lesson, self.tell = ws, ground, ledger, key, lesson, tell
        self.clock = Clock(limits, before=float(ledger.get("minutes", 0.0)))
        ground.go_on(ledger.get("spent", {}))

    def done(self, finalists: int, only: Sequence[str]) -> list[Compared]:
        """What was compared, until one was better."""
        made = self.made(only)
        compared: list[Compared] = []
        for standing in self.raced(made, finalists):
            if standing.fate == "finalist" and not (compared and compared[-1].decision == "GO"):
                self.tell(
                    f"compare '{standing.name}' on {self.ground.test_questions:,} questions that nothing has seen"
                )
                compared.append(self.ground.compare(standing.name, made[standing.name], self.key, self.lesson))
        if not self.ledger.has("ended"):
            self._note_costs()
            self.ledger.note("ended", True)
        return compared

    def _note_costs(self) -> None:
        self.ledger.note("minutes", self.clock.minutes)
        self.ledger.note("spent", self.ground.spent())

    # candidates -----------------------------------------------------------------------------------------------------

    def made(self, only: Sequence[str]) -> dict[str, Artifact]:
        """The candidates by name, those left out that there is no time for, or of which nothing came."""
        proposals = self.ground.proposals()
        if not proposals:
            raise InputError(
                f"There is nothing to try for '{self.ground.task}': its answers are not a few values that a small "
                "model could learn, or too few of them are known, and no budget is given to search for a prompt.",
                "Give --dollars or --tokens, or collect more feedback.",
            )
        if unknown := sorted(set(only) - {one.name for one in proposals}):
            known = ", ".join(one.name for one in proposals)
            raise InputError(f"There is no candidate '{unknown[0]}' for '{self.ground.task}'.", f"There are: {known}.")
        found: dict[str, Artifact] = {}
        for proposal in proposals:
            if only and proposal.name not in only:
                continue
            row = self.ledger.get(f"made:{proposal.name}") or self._make(proposal)
            if row["digest"] is not None and row["digest"] != self.ground.incumbent.digest:
                found[proposal.name] = self.ws.artifacts.get(row["digest"])
        return found

    def _make(self, proposal: Proposal) -> dict[str, Any]:
        before = self.clock.minutes
        why = self.clock.refusal(proposal.minutes)
        variant = None
        if why is None:
            self.tell(f"make '{proposal.name}': {proposal.what}")
            try:
                variant = proposal.make(sha256_json([self.key, proposal.name]))
            except (InputError, OverBudget) as error:  # too little data for this one, say: the others are tried
                why = f"could not be made: {error.message}"
        if why is None and (variant is None or variant.digest == self.ground.incumbent.digest):
            why = "nothing came of it that differs from what is live"
        row = {
            "name": proposal.name,
            "what": proposal.what,
            "digest": None if variant is None else variant.digest,
            "why": why or "",
            "minutes": self.clock.minutes - before,
        }
        if why:
            self.tell(f"'{proposal.name}' is left out: {why}")
        self._note_costs()
        self.ledger.note(f"made:{proposal.name}", row)
        return row

    # the race -------------------------------------------------------------------------------------------------------

    def raced(self, made: dict[str, Artifact], finalists: int) -> list[Standing]:
        def run() -> list[dict[str, Any]]:
            if made:
                self.tell(f"race: {', '.join(made)} on {len(self.ground.clusters):,} dev questions")
            runners = {name: self._kept(variant) for name, variant in made.items()}
            found = race(self._kept(self.ground.incumbent), runners, self.ground.clusters, finalists=finalists)
            for one in found:
                self.tell(f"  {one.name}: {one.gain.estimate:+.4f}, {one.why}")
            self._note_costs()
            return [one.to_json() for one in found]

        return [Standing.from_json(row) for row in self.ledger.value("standings", run)]

    def _kept(self, variant: Artifact) -> Score:
        """The variant's score, each heat of which is asked once."""
        score: Score | None = None

        def values(positions: Positions) -> NDArray[np.float64]:
            def ask() -> list[float | None]:
                nonlocal score
                score = score or self.ground.score(variant)
                return [value if np.isfinite(value) else None for value in score(positions).tolist()]

            step = f"dev:{variant.digest}:{sha256_json(positions.tolist())[:16]}"
            return np.array([np.nan if one is None else one for one in self.ledger.value(step, ask)])

        return values

    # the end --------------------------------------------------------------------------------------------------------

    def told(self, compared: Sequence[Compared], resumed: bool, canary: float | None) -> Turned:
        passed = compared[-1] if compared and compared[-1].decision == "GO" else None
        row = self._released(passed) if passed and canary is None else None
        trial = self._tried_on(passed, canary) if passed and canary is not None else None
        ground, standings = self.ground, [Standing.from_json(one) for one in self.ledger.get("standings", [])]
        rows = [value for step, value in self.ledger.items() if step.startswith("made:")]
        tried = [_tried(one, next((s for s in standings if s.name == one["name"]), None)) for one in rows]
        last = compared[-1] if compared else None
        incumbent = ground.incumbent if last is None else self.ws.artifacts.get(last.experiment.parent("incumbent"))
        page = Page(
            task=ground.task,
            incumbent=incumbent.ref,
            promoted=None if row is None or last is None else last.candidate.ref,
            on_trial=None if trial is None or last is None else last.candidate.ref,
            share=0.0 if trial is None or last is None else trial.shares[last.candidate.digest],
            verdict=_verdict(compared, tried, row or trial),
            gains=() if last is None else tuple(last.gains),
            tried=tried,
            learned=f"{ground.dataset.card.get('items', 0):,} items of {ground.dataset.ref}",
            synthetic=bool(ground.dataset.card.get("synthetic")),
            tested=ground.test_questions if compared else 0,
            number=last.number if last else None,
            error_rate=last.error_rate if last else None,
            minutes=float(self.ledger.get("minutes", 0.0)),
            spent=self.ledger.get("spent", {}),
            chosen=last.name if last else None,
        )
        parents = [("incumbent", incumbent), ("dataset", ground.dataset)]
        parents += [("experiment", one.experiment) for one in compared]
        report = store_page(self.ws, page, parents)
        self.tell(f"report: {report.path / 'report.html'}")
        return Turned(ground.task, incumbent, ground.dataset, tried, compared, row, trial, page, report, resumed)

    def _released(self, passed: Compared) -> ReleaseRecord | None:
        """The promotion; None for what was promoted on this evidence before and rolled back since."""
        task = self.ground.task
        now = live(self.ws, task)
        if now is not None and now.action == "promote" and now.experiment == passed.experiment.digest:
            return now
        if any(row.experiment == passed.experiment.digest for row in history(self.ws, task)):
            return None
        row = promote(self.ws, task, passed.candidate, passed.experiment, passed.reason)
        self.tell(f"promoted: '{task}' serves {passed.candidate.ref}")
        return row

    def _tried_on(self, passed: Compared, share: float) -> State | None:
        """The trial of it that runs, or is begun; None where one of it has ended."""
        task, candidate, incumbent = self.ground.task, passed.candidate.digest, self.ground.incumbent.digest
        for state in states(self.ws, task):
            if candidate in state.trial.candidates:
                return state if state.running else None
        trial = Trial(new_id(), task, incumbent, (candidate,), NO_WORSE, PLANNED, promotes=True, began=time.time())
        state = begin(self.ws, trial, {incumbent: 1 - share, candidate: share}, passed.reason)
        self.tell(f"on trial: {100 * share:g} % of the users of '{task}' get {passed.candidate.ref}")
        return state


def _tried(row: dict[str, Any], standing: Standing | None) -> Tried:
    fate = row["why"] or (standing.why if standing else "was not raced")
    return Tried(row["name"], row["what"], fate, standing.gain if standing else None, float(row["minutes"]))


def _verdict(compared: Sequence[Compared], tried: Sequence[Tried], done: ReleaseRecord | State | None) -> str:
    if not compared:
        return (
            f"None of {len(tried)} candidates did better on the questions to choose by, so none was put to the test, "
            "and no evidence was used up."
        )
    last = compared[-1]
    if last.decision == "GO" and done is None:
        return (
            "It was promoted, or on trial, on this evidence before and rolled back since; new feedback is needed. "
            f"{last.reason}"
        )
    return last.reason
