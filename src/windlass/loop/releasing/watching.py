"""Looks at a trial, and what follows from them: a guard that is violated ends it, and what passes may go live.

Every look is valid however many came before (`evaluate.online`), and counts only what is new (`counting`). NO-GO for a
candidate, which is a guard or a limit shown to be violated or a candidate shown to be no better, takes its traffic away
at once. GO promotes it where the trial says so. A share that does not arrive as it was meant (sample-ratio mismatch)
decides nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from windlass.core.errors import InputError, WindlassError, WorkspaceBusy
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Verdict
from windlass.evaluate.online import Period, Tally, look
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.sequences import tally_sequence
from windlass.loop.releasing.bandit import thompson_shares
from windlass.loop.releasing.counting import seen
from windlass.loop.releasing.measuring import BOUNDS, Seen
from windlass.loop.releasing.releases import history, live, promote
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
GROWTH = 1.01
"""A look that says the same as the last one is kept when so many times as many users came: as many looks are kept of a
trial of a month as of one of a day, nearly."""


def watch(ws: Workspace, task: str, *, clock: Clock = time.time) -> State:
    """One look, kept in the history where it tells something new, and what follows from it. Raises `NotFound` where no
    trial runs, `WorkspaceBusy` where another process decided at the same time."""
    state = must_run(ws, task)
    trial = state.trial
    now = live(ws, task)
    if now is None or now.variant != trial.incumbent:
        if now is not None and now.reason.startswith(_mark(trial)):  # killed between the promotion and this note of it
            return end(ws, state, "promoted", now.reason.removeprefix(_mark(trial)), clock(), now.variant)
        return end(ws, state, "stopped", "what is live was changed meanwhile", clock())
    found, verdicts = _now(ws, state)
    looked = _looked(state, found, verdicts, clock())
    state = note_look(ws, state, looked) if _tells(state, looked) else replace(state, looks=[*state.looks, looked])
    out = [one for one in state.left if verdicts[one].decision == "NO-GO"]
    if out:
        return _without(ws, state, out, verdicts, clock())
    won = [one for one in state.left if verdicts[one].decision == "GO"]
    if won and trial.promotes:
        winner = max(won, key=lambda one: _reward(state, found, one))
        return promote_winner(ws, state, winner, verdicts[winner].reason, clock())
    if trial.kind == "bandit":
        return _shared_out(ws, state, found, clock())
    return state


def peek(ws: Workspace, state: State, *, clock: Clock = time.time) -> State:
    """The trial with a look of now, which is neither kept nor acted upon."""
    found, verdicts = _now(ws, state)
    return replace(state, looks=[*state.looks, _looked(state, found, verdicts, clock())])


def _now(ws: Workspace, state: State) -> tuple[Seen, dict[str, Verdict]]:
    found = seen(ws, state.trial)
    return found, {one: verdict(state, found, one) for one in state.trial.candidates}


def _tells(state: State, looked: Looked) -> bool:
    """Whether a look is worth keeping beside the last one that was."""
    last = state.looks[-1] if state.looks else None
    if last is None or last.decisions != looked.decisions or state.changes[-1][0] >= last.at:
        return True
    return sum(looked.units.values()) >= GROWTH * sum(last.units.values()) > 0 or not any(last.units.values())


def verdict(state: State, found: Seen, candidate: str) -> Verdict:
    """Candidate against incumbent, on what there is now; weighted where shares changed on the way."""
    trial = state.trial
    if state.shares[candidate] == 0:
        return _as_it_left(state, candidate)
    metrics = trial.policy.metrics
    sides = [found.tallies(arm, metrics, weighted=not state.steady) for arm in (trial.incumbent, candidate)]
    for metric, rule in {trial.policy.primary: trial.policy.rule, **trial.policy.guards}.items():
        if rule.relative and (sides[0][metric].n < 2 or sides[0][metric].mean <= 0):
            return Verdict("INCONCLUSIVE", f"The incumbent has no {metric} yet that a share could be taken of.")
    units = (found.units[trial.incumbent], found.units[candidate])
    return look(
        trial.policy, *sides, planned=max(2, trial.planned), units=units, periods=_periods(state, found, candidate)
    )


def _as_it_left(state: State, candidate: str) -> Verdict:
    """What the last look said of a candidate that is out."""
    said = state.looks[-1] if state.looks else None
    if said is None or said.decisions.get(candidate) != "NO-GO":
        return Verdict("INCONCLUSIVE", "It was taken out by hand.")
    return Verdict("NO-GO", said.reasons[candidate])


def _periods(state: State, found: Seen, candidate: str) -> list[Period]:
    """The shares that two arms were to get, and the units that came while they were: by the propensity that units say,
    which names the period where there are two arms. Of three, one may have kept its share when others changed: then
    nothing is held to anything."""
    incumbent = state.trial.incumbent
    shares = {(at[incumbent], at[candidate]) for _, at, _ in state.changes if at[candidate] > 0}
    if len(shares) > 1 and len(state.trial.arms) > 2:
        return []
    periods = []
    for one, other in sorted(shares):
        counts = found.arrivals[incumbent].get(one, 0), found.arrivals[candidate].get(other, 0)
        periods.append((counts, (one / (one + other), other / (one + other))))
    return periods


def _without(ws: Workspace, state: State, out: list[str], verdicts: dict[str, Verdict], at: float) -> State:
    """Takes their traffic away; the last candidate ends the trial."""
    trial = state.trial
    reason = " ".join(f"{_name(ws, one)}: {_why(verdicts[one])}" for one in out)
    if not set(state.left) - set(out):
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


def _looked(state: State, found: Seen, verdicts: dict[str, Verdict], at: float) -> Looked:
    trial = state.trial
    metrics = tuple(dict.fromkeys([*trial.policy.metrics, *([trial.reward] if trial.reward else [])]))
    return Looked(
        at,
        {one: said.decision for one, said in verdicts.items()},
        {one: said.reason for one, said in verdicts.items()},
        found.units,
        {arm: {name: one.to_json() for name, one in found.tallies(arm, metrics).items()} for arm in trial.arms},
        {
            one: {metric: part.interval.to_json() for metric, part in said.checks if part.interval is not None}
            for one, said in verdicts.items()
        },
        {
            arm: {
                name: _mean(trial, name, one).to_json()
                for name, one in found.tallies(arm, metrics, weighted=not state.steady).items()
                if one.n
            }
            for arm in trial.arms
        },
    )


def _mean(trial: Trial, metric: str, tally: Tally) -> Interval:
    """An arm's own mean and its confidence sequence."""
    level, planned = trial.policy.rule.level, max(2, trial.planned // 2)
    found = tally_sequence(tally.n, tally.mean, tally.variance, level, planned=planned)
    low, high = (0.0, 1.0) if metric == trial.reward else BOUNDS.get(metric, (-math.inf, math.inf))
    return found if math.isinf(found.low) else found.within(low, high)


def _why(said: Verdict) -> str:
    """What was violated alone, where several checks were made."""
    bad = [part.reason for _, part in said.checks if part.decision == "NO-GO"]
    return " ".join(bad) or said.reason


def _reward(state: State, found: Seen, arm: str) -> float:
    policy = state.trial.policy
    tally: Tally = found.tallies(arm, (policy.primary,), weighted=not state.steady)[policy.primary]
    return tally.mean if policy.rule.better == "higher" else -tally.mean


def _name(ws: Workspace, digest: str) -> str:
    record = ws.store.artifact(digest)
    return record.ref if record else digest[:12]


class Watcher:
    """Looks at the trials that run in a workspace every so often, from a thread of its own, until it is closed: those
    of tasks that are served elsewhere as well, by an application in Python for instance.

    Whatever goes wrong in one look is told, once, and the next look comes all the same: a guard that nobody looks at
    any more protects nobody."""

    def __init__(self, ws: Workspace, *, every: float = 30.0, tell: Callable[[str], object]) -> None:
        self._ws, self._every, self._tell = ws, every, tell
        self._told: dict[str, str] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windlass-trials", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            try:
                tasks = sorted({row.task for row in history(self._ws)})
            except WindlassError as error:
                self._say("", f"trials cannot be looked at: {error.message}")
                continue
            for task in tasks:
                self._look(task)

    def _look(self, task: str) -> None:
        try:
            before = running(self._ws, task)
            if before is not None:
                self._say(task, news(self._ws, before, watch(self._ws, task)))
        except WorkspaceBusy:
            pass  # another process looked at the same time
        except WindlassError as error:
            self._say(task, f"trial of '{task}' cannot be looked at: {error.message}")
        except Exception as error:  # noqa: BLE001 - or the thread would end, and with it all guards
            self._say(task, f"trial of '{task}' cannot be looked at: {type(error).__name__}: {error}")

    def _say(self, task: str, line: str) -> None:
        if line and self._told.get(task) != line:
            self._told[task] = line
            self._tell(line)


def news(ws: Workspace, before: State, now: State) -> str:
    """What a look has changed, in one line for whoever reads the log of a server; empty: nothing."""
    task, look_now = now.trial.task, now.looks[-1] if now.looks else None
    if not now.running:
        return f"trial of '{task}' {now.outcome}: {now.reason}"
    if gone := [one for one in before.left if one not in now.left]:
        return f"trial of '{task}' goes on without {', '.join(_name(ws, one) for one in gone)}: {now.changes[-1][2]}"
    passed = [one for one in now.left if look_now is not None and look_now.decisions.get(one) == "GO"]
    if passed:
        names = ", ".join(_name(ws, one) for one in passed)
        return f"trial of '{task}': {names} may go live: windlass canary promote {task} {names.partition(',')[0]}"
    return ""


def with_shares(state: State, candidates: dict[str, float]) -> dict[str, float]:
    """These shares for candidates, all others unchanged, and the rest for the incumbent."""
    shares = {**state.shares, **candidates}
    del shares[state.trial.incumbent]
    rest = 1 - sum(shares.values())
    return {state.trial.incumbent: 0.0 if abs(rest) < 1e-9 else rest, **shares}
