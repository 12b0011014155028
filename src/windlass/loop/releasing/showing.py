"""A trial as text: who gets what share, what the last look said, and what there is to know besides."""

from __future__ import annotations

from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.cuped import Adjusted, cuped
from windlass.loop.releasing.measuring import before, seen
from windlass.loop.releasing.trial import State, Trial
from windlass.loop.text import ago

ENOUGH = 0.5
"""Share of the users of each arm that must be known from before, for CUPED to say anything."""


def rendered(ws: Workspace, state: State) -> str:
    trial, last = state.trial, state.looks[-1] if state.looks else None
    rows = []
    for arm in trial.arms:
        record = ws.store.artifact(arm)
        decision = "live" if arm == trial.incumbent else (last.decisions.get(arm, "") if last else "")
        values = [_value(state, arm, metric) for metric in trial.policy.metrics]
        units = f"{last.units[arm]:,}" if last else ""
        rows.append([record.ref if record else arm[:12], f"{state.shares[arm]:.1%}", units, *values, decision])
    head = ["variant", "share", "users", *trial.policy.metrics, ""]
    ended = f", {state.outcome} {ago(state.ended)}" if state.outcome and state.ended else ""
    lines = [
        f"{trial.kind} of '{trial.task}' ({trial.id}), began {ago(trial.began)}{ended}; {len(state.looks):,} looks, "
        f"planned for {trial.planned:,} users.",
        table(head, rows, right=range(1, len(head) - 1)),
    ]
    if state.reason:
        lines.append(state.reason)
    elif last is not None:
        lines += [last.reasons[one] for one in trial.candidates]
    return "\n\n".join(lines)


def _value(state: State, arm: str, metric: str) -> str:
    tally = state.looks[-1].metrics[arm].get(metric) if state.looks else None
    return f"{tally['mean']:.4g}" if tally and tally["n"] else ""


def adjusted(ws: Workspace, trial: Trial, candidate: str) -> Adjusted | None:
    """The difference on the primary metric, once without what users were like before (CUPED). None where too few of
    them were there before. It holds for one look, planned beforehand: looked at again and again it promises nothing."""
    metric, found = trial.policy.primary, seen(ws, trial)
    history = before(ws, trial, metric)
    if not history:
        return None
    mean = sum(history.values()) / len(history)
    sides = [found.column(arm, metric) for arm in (trial.incumbent, candidate)]
    known = [sum(unit in history for unit in side) for side in sides]
    if any(n < 2 or n < ENOUGH * len(side) for n, side in zip(known, sides)):
        return None
    values = [list(side.values()) for side in sides]
    covariates = [[history.get(unit, mean) for unit in side] for side in sides]
    try:
        return cuped(values[0], values[1], covariates[0], covariates[1])
    except InputError:  # one value alone in an arm has no spread
        return None
