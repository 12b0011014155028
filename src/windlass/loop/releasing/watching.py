"""Looks at a trial, and what follows from them: a guard that is violated ends it, and what passes may go live.

Every look is valid however many came before (`evaluate.online`). NO-GO for a candidate, which is a guard or a limit
shown to be violated or a candidate shown to be no better, takes its traffic away at once. GO promotes it where the
trial says so. A share that does not arrive as it was meant (sample-ratio mismatch) decides nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from windlass.core.errors import InputError, WindlassError, WorkspaceBusy
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Verdict
from windlass.evaluate.online import Tally, look
from windlass.loop.releasing.bandit import thompson_shares
from windlass.loop.releasing.measuring import Seen, seen
from windlass.loop.releasing.releases import live, promote
from windlass.loop.releasing.trial import (
    Looked,
    State,
    Trial,
    change_shares,
    end,
    must_run,
    note_look,
    running,
)

Clock = Callable[[], float]
LEAST_CHANGE = 0.02
"""A bandit's shares are changed when one of them would change by more than this."""


def watch(ws: Workspace, task: str, *, clock: Clock = time.time) -> State:
    """One look, kept in the history, and what follows from it. Raises `NotFound` where no trial runs, `WorkspaceBusy`
    where another process decided at the same time."""
    state = must_run(ws, task)
    trial = state.trial
    now = live(ws, task)
    if now is None or now.variant != trial.incumbent:
        if now is not None and now.reason.startswith(_mark(trial)):  # killed between the promotion and this note of it
            return end(ws, state, "promoted", now.reason.removeprefix(_mark(trial)), clock(), now.variant)
        return end(ws, state, "stopped", "what is live was changed meanwhile", clock())
    found = seen(ws, trial)
    verdicts = {candidate: verdict(trial, state, found, candidate) for candidate in trial.candidates}
    state = note_look(ws, state, _looked(trial, found, verdicts, clock()))
    out = [candidate for candidate, said in verdicts.items() if said.decision == "NO-GO" and state.shares[candidate]]
    if out:
        return _without(ws, state, out, verdicts, clock())
    won = [candidate for candidate, said in verdicts.items() if said.decision == "GO"]
    if won and trial.promotes:
        winner = max(won, key=lambda one: _reward(trial, found, one))
        return promote_winner(ws, state, winner, verdicts[winner].reason, clock())
    if trial.kind == "bandit":
        return _shared_out(ws, state, found, clock())
    return state


def verdict(trial: Trial, state: State, found: Seen, candidate: str) -> Verdict:
    """Candidate against incumbent, on what there is now."""
    metrics = trial.policy.metrics
    sides = [found.tallies(arm, metrics) for arm in (trial.incumbent, candidate)]
    for metric, rule in {trial.policy.primary: trial.policy.rule, **trial.policy.guards}.items():
        if rule.relative and (sides[0][metric].n < 2 or sides[0][metric].mean <= 0):
            return Verdict("INCONCLUSIVE", f"The incumbent has no {metric} yet that a share could be taken of.")
    weights = state.shares[trial.incumbent], state.shares[candidate]
    whole = sum(weights)
    # Arms whose shares changed on the way have no one share that they could be held to.
    steady = len(state.changes) == 1 and min(weights) > 0
    units = (found.units[trial.incumbent], found.units[candidate])
    meant = (weights[0] / whole, weights[1] / whole) if steady else _as_arrived(units)
    return look(trial.policy, *sides, planned=max(2, trial.planned), units=units, shares=meant)


def _as_arrived(units: tuple[int, int]) -> tuple[float, float]:
    whole = units[0] + units[1] + 2
    return (units[0] + 1) / whole, (units[1] + 1) / whole


def _without(ws: Workspace, state: State, out: list[str], verdicts: dict[str, Verdict], at: float) -> State:
    """Takes their traffic away; the last candidate ends the trial."""
    trial = state.trial
    reason = " ".join(f"{_name(ws, one)}: {_why(verdicts[one])}" for one in out)
    left = [one for one in trial.candidates if one not in out and state.shares[one] > 0]
    if not left:
        return end(ws, state, "rolled back", reason, at)
    shares = {arm: 0.0 if arm in out else share for arm, share in state.shares.items()}
    shares[trial.incumbent] = 1 - sum(share for arm, share in shares.items() if arm != trial.incumbent)
    return change_shares(ws, state, shares, reason, at)


def promote_winner(ws: Workspace, state: State, winner: str, reason: str, at: float) -> State:
    """Makes a candidate of the trial what the task serves, and ends the trial."""
    if winner not in state.trial.candidates:
        raise InputError(f"{winner[:12]} is no candidate of this trial.")
    promote(ws, state.trial.task, ws.artifacts.get(winner), None, f"{_mark(state.trial)}{reason}")
    return end(ws, state, "promoted", reason, at, winner)


def _mark(trial: Trial) -> str:
    """What the reason of a promotion by a trial begins with."""
    return f"trial {trial.id}: "


def _shared_out(ws: Workspace, state: State, found: Seen, at: float) -> State:
    trial = state.trial
    playing = [arm for arm in trial.arms if state.shares[arm] > 0 or arm == trial.incumbent]
    rewards = {arm: found.tallies(arm, (trial.reward,))[trial.reward] for arm in playing}
    shares = dict.fromkeys(trial.arms, 0.0) | thompson_shares(rewards, floor=trial.floor, seed=len(state.looks))
    if max(abs(shares[arm] - state.shares[arm]) for arm in trial.arms) < LEAST_CHANGE:
        return state
    return change_shares(ws, state, shares, "Thompson sampling", at)


def _looked(trial: Trial, found: Seen, verdicts: dict[str, Verdict], at: float) -> Looked:
    metrics = dict.fromkeys([*trial.policy.metrics, *([trial.reward] if trial.reward else [])])
    return Looked(
        at,
        {one: said.decision for one, said in verdicts.items()},
        {one: said.reason for one, said in verdicts.items()},
        found.units,
        {
            arm: {name: tally.to_json() for name, tally in found.tallies(arm, tuple(metrics)).items()}
            for arm in trial.arms
        },
        {
            one: {metric: part.interval.to_json() for metric, part in said.checks if part.interval is not None}
            for one, said in verdicts.items()
        },
    )


def _why(said: Verdict) -> str:
    """What was violated alone, where several checks were made."""
    bad = [part.reason for _, part in said.checks if part.decision == "NO-GO"]
    return " ".join(bad) or said.reason


def _reward(trial: Trial, found: Seen, arm: str) -> float:
    tally: Tally = found.tallies(arm, (trial.policy.primary,))[trial.policy.primary]
    return tally.mean if trial.policy.rule.better == "higher" else -tally.mean


def _name(ws: Workspace, digest: str) -> str:
    record = ws.store.artifact(digest)
    return record.ref if record else digest[:12]


class Watcher:
    """Looks at the running trials of some tasks every so often, from a thread of its own, until it is closed."""

    def __init__(self, ws: Workspace, tasks: list[str], *, every: float = 30.0, tell: Callable[[str], object]) -> None:
        self._ws, self._tasks, self._every, self._tell = ws, tasks, every, tell
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windlass-trials", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            for task in self._tasks:
                try:
                    if running(self._ws, task) is not None:
                        state = watch(self._ws, task)
                        if not state.running:
                            self._tell(f"trial of '{task}' {state.outcome}: {state.reason}")
                except WorkspaceBusy:
                    continue  # another process looked at the same time
                except WindlassError as error:
                    self._tell(f"trial of '{task}' cannot be looked at: {error.message}")


def with_shares(state: State, candidates: dict[str, float]) -> dict[str, float]:
    """These shares for candidates, all others unchanged, and the rest for the incumbent."""
    shares = {**state.shares, **candidates}
    del shares[state.trial.incumbent]
    rest = 1 - sum(shares.values())
    return {state.trial.incumbent: 0.0 if abs(rest) < 1e-9 else rest, **shares}
