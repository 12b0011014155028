"""A trial of variants on live traffic, and its history: entries that are only ever appended.

The state is what the entries add up to, so a process that is killed leaves it as it was before or after an entry, and
two processes that decide at the same time are told apart by the store: the second is refused.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from windlass.core.errors import InputError, NotFound
from windlass.core.records import Mark
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Rule
from windlass.evaluate.online import check_live
from windlass.evaluate.policy import Policy

Kind = Literal["canary", "bandit"]
Outcome = Literal["promoted", "rolled back", "stopped"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What was said when it began. `canary`: shares change by hand. `bandit`: by what the arms earned."""

    id: str
    task: str
    incumbent: str
    """Digest of the variant that is live."""
    candidates: Sequence[str]
    policy: Policy
    planned: int
    """About how many units (users, sessions) all arms together are to have; looks are narrowest around half of it."""
    kind: Kind = "canary"
    reward: str = ""
    """Bandit: the metric that is earned, from 0 to 1."""
    floor: float = 0.05
    """Bandit: the share that every arm keeps."""
    promotes: bool = False
    """Whether a candidate that passes goes live by itself."""
    began: float = 0.0
    after: Mark = field(default_factory=Mark)
    """Where the store stood: the calls of the trial come after it."""

    @property
    def arms(self) -> list[str]:
        return [self.incumbent, *self.candidates]


@dataclass(frozen=True, slots=True)
class Looked:
    """One look at the figures, as it was taken."""

    at: float
    decisions: Mapping[str, str]
    """Candidate -> GO, NO-GO or INCONCLUSIVE."""
    reasons: Mapping[str, str]
    units: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Arm -> metric -> its tally, as the values came."""
    differences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Candidate -> metric -> the interval that it was decided on."""
    means: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> metric -> the interval of its mean; weighted where shares had changed."""


@dataclass(frozen=True, slots=True)
class State:
    """A trial as its entries leave it."""

    trial: Trial
    shares: Mapping[str, float]
    """Of all traffic; the incumbent's is the rest."""
    looks: Sequence[Looked] = ()
    changes: Sequence[tuple[float, Mapping[str, float], str]] = ()
    """When shares changed, to what, and why."""
    outcome: Outcome | None = None
    """None while it runs."""
    winner: str | None = None
    reason: str = ""
    ended: float | None = None
    last: int = 0
    """Id of the last entry."""

    @property
    def running(self) -> bool:
        return self.outcome is None

    @property
    def steady(self) -> bool:
        """Whether each arm had one share all along. Else means as they came are misleading: they are weighted."""
        return len(self.changes) < 2

    @property
    def left(self) -> list[str]:
        """The candidates that still get traffic."""
        return [one for one in self.trial.candidates if self.shares[one] > 0]


def stream(task: str) -> str:
    return f"trial:{task}"


def states(ws: Workspace, task: str) -> list[State]:
    """All trials of a task, newest first."""
    return _folded([], ws.store.log(stream(task)))[::-1]


class Followed:
    """The trial of a task that runs now, read as its entries come: for whoever asks with every call."""

    def __init__(self, ws: Workspace, task: str) -> None:
        self._ws, self._task = ws, task
        self._states: list[State] = []
        self._lock = threading.Lock()

    def running(self) -> State | None:
        with self._lock:
            last = self._states[-1].last if self._states else 0
            self._states = _folded(self._states, self._ws.store.log(stream(self._task), after=last))[-1:]
            return self._states[-1] if self._states and self._states[-1].running else None


def _folded(found: list[State], entries: Sequence[tuple[int, float, Any]]) -> list[State]:
    """Oldest first."""
    for identifier, at, entry in entries:
        if entry["entry"] == "began":
            said = entry["trial"]
            policy, candidates = Policy.from_json(said["policy"]), tuple(said["candidates"])
            after = Mark(**said.get("after", {}))
            trial = Trial(**{**said, "candidates": candidates, "policy": policy, "after": after})
            changes = [(at, entry["shares"], entry["reason"])]
            found.append(State(trial, entry["shares"], changes=changes, last=identifier))
        else:
            found[-1] = replace(_after(found[-1], at, entry), last=identifier)
    return found


def _after(state: State, at: float, entry: Mapping[str, Any]) -> State:
    if entry["entry"] == "shares":
        changes = [*state.changes, (at, entry["shares"], entry["reason"])]
        return replace(state, shares=entry["shares"], changes=changes)
    if entry["entry"] == "look":
        said = {name: value for name, value in entry.items() if name != "entry"}
        return replace(state, looks=[*state.looks, Looked(at, **said)])
    return replace(state, outcome=entry["outcome"], winner=entry["winner"], reason=entry["reason"], ended=at)


def running(ws: Workspace, task: str) -> State | None:
    """The trial that runs now."""
    newest = next(iter(states(ws, task)), None)
    return newest if newest is not None and newest.running else None


def must_run(ws: Workspace, task: str) -> State:
    """Raises `NotFound` where none runs."""
    state = running(ws, task)
    if state is None:
        raise NotFound(f"No trial of '{task}' runs.", f"Begin one: windlass canary start {task} VARIANT --share 0.1")
    return state


NO_WORSE = Policy("failed", Rule("non-inferiority", 0.02, "lower"))
"""What a trial asks for where nobody says anything: failures may not grow by 2 % of the calls."""
LEAST_FLOOR = 0.001
PLANNED = 2000
"""Users of a trial where nobody says how many."""


def begin(ws: Workspace, trial: Trial, shares: Mapping[str, float], reason: str = "") -> State:
    """Raises `InputError` for shares that are none, and where a trial of the task runs already."""
    newest = next(iter(states(ws, trial.task)), None)
    if newest is not None and newest.running:
        raise InputError(
            f"A trial of '{trial.task}' runs already, since {time.ctime(newest.trial.began)}.",
            f"Stop it first: windlass canary stop {trial.task}",
        )
    check_live(trial.policy)
    _check_settings(trial)
    _check(trial, shares)
    if not all(shares.values()):
        raise InputError(
            "An arm without a share is compared with nobody.", "Give the candidates shares above 0, and below 1 in all."
        )
    trial = replace(trial, after=ws.store.mark())
    entry = {
        "entry": "began",
        "trial": {**asdict(trial), "policy": trial.policy.to_json(), "candidates": list(trial.candidates)},
        "shares": dict(shares),
        "reason": reason,
    }
    ws.store.append(stream(trial.task), entry, after=newest.last if newest else 0, at=trial.began)
    return must_run(ws, trial.task)


def change_shares(ws: Workspace, state: State, shares: Mapping[str, float], reason: str, at: float) -> State:
    """A candidate whose share becomes 0 is out, and does not come back: users who came meanwhile could not have got it,
    so there is nothing to compare them with. Raises `InputError` for that, and where nobody is left to compare with."""
    _check(state.trial, shares)
    if back := [one for one in state.trial.candidates if shares[one] > 0 and state.shares[one] == 0]:
        raise InputError(
            f"{back[0][:12]} is out of this trial: it had no share for a while.",
            f"Stop the trial, and begin another: windlass canary stop {state.trial.task}",
        )
    if shares[state.trial.incumbent] == 0:
        raise InputError(
            "With all of the users a variant is compared with nobody.",
            f"Make it live: windlass canary promote {state.trial.task} VARIANT",
        )
    if not any(shares[one] for one in state.trial.candidates):
        raise InputError("No candidate would be left.", f"End the trial: windlass canary stop {state.trial.task}")
    entry = {"entry": "shares", "shares": dict(shares), "reason": reason}
    ws.store.append(stream(state.trial.task), entry, after=state.last, at=at)
    return must_run(ws, state.trial.task)


def note_look(ws: Workspace, state: State, look: Looked) -> State:
    said = {name: value for name, value in asdict(look).items() if name != "at"}
    ws.store.append(stream(state.trial.task), {"entry": "look", **said}, after=state.last, at=look.at)
    return must_run(ws, state.trial.task)


def end(ws: Workspace, state: State, outcome: Outcome, reason: str, at: float, winner: str | None = None) -> State:
    entry = {"entry": "ended", "outcome": outcome, "winner": winner, "reason": reason}
    ws.store.append(stream(state.trial.task), entry, after=state.last, at=at)
    return states(ws, state.trial.task)[0]


def new_id() -> str:
    return uuid.uuid4().hex[:12]


def _check_settings(trial: Trial) -> None:
    """What would else be found out at the first look, when users have come."""
    if trial.planned < 2:
        raise InputError(f"A trial planned for {trial.planned:,} users compares nobody.", "Plan for hundreds at least.")
    if trial.kind != "bandit":
        return
    if not trial.floor >= LEAST_FLOOR or trial.floor * len(trial.arms) >= 1:
        raise InputError(
            f"{len(trial.arms)} arms cannot keep a share of {trial.floor:g} each.",
            f"Give a floor from {LEAST_FLOOR:g} to below {1 / len(trial.arms):.3g}: what nobody gets is not compared.",
        )
    if trial.reward in ("latency_ms", "cost_usd"):
        raise InputError(
            f"A bandit's reward lies between 0 and 1, and more is better: {trial.reward} is no such metric.",
            "Let it follow feedback, and guard this one by a policy.",
        )


def _check(trial: Trial, shares: Mapping[str, float]) -> None:
    if set(shares) != set(trial.arms):
        raise InputError("Every arm of a trial has a share, and nothing else has one.")
    if any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        raise InputError(
            f"The shares {', '.join(f'{share:g}' for share in shares.values())} are not parts of one whole.",
            "Give the candidates shares between 0 and 1; the incumbent gets the rest.",
        )
