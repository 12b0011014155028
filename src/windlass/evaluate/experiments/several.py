"""Several candidates at once: each against the incumbent, and the chance that any is promoted wrongly kept as for one.

Holm's step-down, decided on intervals: the candidate with the clearest evidence is judged at the policy's error rate
divided by the number of candidates, the next at that divided by one less, and so on until one does not pass. With m
candidates none of which is better, one is promoted with probability at most the error rate of the policy (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windlass.core.errors import InputError
from windlass.evaluate.experiments.experiment import Experiment, compare
from windlass.evaluate.experiments.pairing import matched, paired
from windlass.evaluate.experiments.planning import Plan
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.gate import Rule, Verdict
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.paired import paired_exceeds_p


def compare_all(
    incumbent: Results,
    candidates: Sequence[Results],
    policy: Policy,
    *,
    seed: int = 0,
    plan: Plan | None = None,
) -> list[Experiment]:
    """An experiment for each candidate, in the order given."""
    if not candidates:
        raise InputError("There is nothing to compare the incumbent with.", "Give at least one candidate.")
    order = sorted(range(len(candidates)), key=lambda at: _p_value(incumbent, candidates[at], policy))
    found: dict[int, Experiment] = {}
    stopped = False
    for rank, at in enumerate(order):
        made = compare(incumbent, candidates[at], stricter(policy, len(candidates) - rank), seed=seed, plan=plan)
        if stopped and made.verdict.decision == "GO":
            reason = (
                f"A candidate with clearer evidence did not pass, so this one may not either. {made.verdict.reason}"
            )
            made = replace(made, verdict=Verdict("INCONCLUSIVE", reason, None, made.verdict.checks))
        stopped = stopped or made.verdict.decision != "GO"
        found[at] = made
    return [found[at] for at in range(len(candidates))]


def stricter(policy: Policy, by: int) -> Policy:
    """The policy with all its error rates divided by `by`."""

    def divided(rule: Rule) -> Rule:
        return replace(rule, error_rate=rule.error_rate / by)

    guards = {name: divided(rule) for name, rule in policy.guards.items()}
    limits = tuple(replace(limit, error_rate=limit.error_rate / by) for limit in policy.limits)
    return replace(policy, rule=divided(policy.rule), guards=guards, limits=limits)


def _p_value(incumbent: Results, candidate: Results, policy: Policy) -> float:
    """One-sided, of the policy's claim on the primary metric."""
    column = paired(matched(incumbent, candidate), policy.primary)
    if not column.items:
        return 1.0
    gain = column.after - column.before if policy.rule.better == "higher" else column.before - column.after
    return paired_exceeds_p(gain, -policy.rule.margin, column.clusters)
