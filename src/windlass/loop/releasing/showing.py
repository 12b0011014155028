"""A trial as text: who gets what share, what the last look said, and what there is to know besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.gate import Rule
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.cuped import Adjusted, cuped
from windlass.loop.releasing.counting import Count
from windlass.loop.releasing.measuring import before
from windlass.loop.releasing.trial import Looked, State
from windlass.loop.text import ago

ENOUGH = 0.5
"""Share of the users of each arm that must be known from before, for CUPED to say anything."""
WEIGHTED = (
    "Shares changed on the way: believe the weighted means, in which each user counts by one over the share that the "
    "variant had when he came. As it came, the mean of a variant that grew while users became happier is too high."
)


def rendered(ws: Workspace, state: State) -> str:
    trial, last = state.trial, state.looks[-1] if state.looks else None
    metrics = list(dict.fromkeys([*trial.policy.metrics, *([trial.reward] if trial.reward else [])]))
    rows = []
    for arm in trial.arms:
        decision = last.decisions.get(arm, "") if last else ""
        if arm == (state.winner or trial.incumbent):
            decision = "live" if state.winner is None else f"{decision}, went live"
        values = [_mean(last, arm, metric) for metric in metrics]
        units = f"{last.units[arm]:,}" if last else ""
        rows.append([_ref(ws, arm), f"{state.shares[arm]:.1%}", units, *values, decision])
    head = ["variant", "share", "users", *(name if state.steady else f"{name}, weighted" for name in metrics), ""]
    ended = f", {state.outcome} {ago(state.ended)}" if state.outcome and state.ended else ""
    lines = [
        f"{trial.kind} of '{trial.task}' ({trial.id}), began {ago(trial.began)}{ended}; planned for "
        f"{trial.planned:,} users. What must hold: {asked(trial.policy)}.",
        table(head, rows, right=range(1, len(head) - 1)),
    ]
    if last is not None and not state.steady:
        came = [[_ref(ws, arm), *(_as_it_came(last, arm, metric) for metric in metrics)] for arm in trial.arms]
        lines += [WEIGHTED, table(["variant", *(f"{name}, as it came" for name in metrics)], came, right=range(1, 9))]
    if state.reason:
        lines.append(state.reason)
    elif last is not None:
        lines += [f"{_ref(ws, one)}: {last.reasons[one]}" for one in trial.candidates]
    else:
        lines.append("Nobody has looked yet: `windlass serve` does, every half minute, and `windlass canary look`.")
    return "\n\n".join(lines)


def asked(policy: Policy) -> str:
    """What a policy asks, in words."""
    rules = {policy.primary: policy.rule, **policy.guards}
    said = [f"{metric} {_words(rule)}" for metric, rule in rules.items()]
    for limit in policy.limits:
        ends = (("at most", limit.at_most), ("at least", limit.at_least))
        said += [f"{limit.metric} {word} {end:g}" for word, end in ends if end is not None]
    return ", ".join(said)


def _words(rule: Rule) -> str:
    if rule.kind == "superiority":
        return "better"
    margin = f"{100 * rule.margin:g} %" if rule.relative else f"{rule.margin:g}"
    return f"at most {margin} worse" if rule.kind == "non-inferiority" else f"different by less than {margin}"


def _ref(ws: Workspace, digest: str) -> str:
    record = ws.store.artifact(digest)
    return record.ref if record else digest[:12]


def _mean(look: Looked | None, arm: str, metric: str) -> str:
    """With the interval at any look, where there are enough users for one."""
    said: Mapping[str, Any] | None = None if look is None else look.means.get(arm, {}).get(metric)
    if look is None or said is None:
        return "" if look is None else _as_it_came(look, arm, metric)
    if said["low"] is None or said["high"] is None:
        return f"{said['estimate']:.3g}"
    return f"{said['estimate']:.3g} [{said['low']:.3g}, {said['high']:.3g}]"


def _as_it_came(look: Looked, arm: str, metric: str) -> str:
    tally = look.metrics[arm].get(metric)
    return f"{tally['mean']:.3g}" if tally and tally["n"] else ""


def adjusted(ws: Workspace, state: State, candidate: str) -> Adjusted | None:
    """The difference on the primary metric, once without what users were like before (CUPED). None where too few of
    them were there before, and where shares changed on the way, so that the arms' users differ in more than chance. It
    holds for one look, planned beforehand: looked at again and again it promises nothing."""
    trial, metric = state.trial, state.trial.policy.primary
    history = before(ws, trial, metric) if state.steady else {}
    if not history:
        return None
    mean = sum(history.values()) / len(history)
    with Count(ws, trial) as count:
        count.update()
        sides = [count.column(arm, metric) for arm in (trial.incumbent, candidate)]
    known = [sum(unit in history for unit in side) for side in sides]
    if any(n < 2 or n < ENOUGH * len(side) for n, side in zip(known, sides)):
        return None
    values = [list(side.values()) for side in sides]
    covariates = [[history.get(unit, mean) for unit in side] for side in sides]
    try:
        return cuped(values[0], values[1], covariates[0], covariates[1])
    except InputError:  # one value alone in an arm has no spread
        return None
