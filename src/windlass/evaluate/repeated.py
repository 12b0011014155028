"""Several verdicts on the same questions: how often each may be wrong, so that all together seldom are.

Each verdict tells the next turn something about the test questions: at most one bit, since nothing but promotion or
refusal flows back. Before turn k there are at most 2^(k-1) different histories, hence at most as many different
candidates that turn k could test; with an error rate of `total / 2^(2k-1)` for turn k, the union bound over all of them
is `total / 2^k`, and over all turns together `total` (the argument of Blum and Hardt 2015,
https://arxiv.org/abs/1502.04585). So the chance that any number of turns on the same questions *ever* promotes a
candidate that is no better stays below `total`; the price is that later turns need clearer evidence, until a new exam
with fresh questions starts anew. Scores that a person read and acted upon are beyond any such promise.
"""

from __future__ import annotations

from dataclasses import replace

from windlass.evaluate.policy import Policy

TOTAL_ERROR = 0.05
"""Chance, at most, that all turns on one exam together ever promote a candidate that is no better."""


def error_rate(number: int, total: float = TOTAL_ERROR) -> float:
    """The one-sided error rate of turn `number` (from 1) on the same questions; see the module's text."""
    return total * 0.5 ** (2 * number - 1)


def at_rate(policy: Policy, rate: float) -> Policy:
    """The same policy, each of whose rules and limits lets what is no better through at most this often."""
    guards = {name: replace(rule, error_rate=rate) for name, rule in policy.guards.items()}
    limits = tuple(replace(limit, error_rate=rate) for limit in policy.limits)
    return replace(policy, rule=replace(policy.rule, error_rate=rate), guards=guards, limits=limits)
