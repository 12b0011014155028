"""The simulation of the gate: that its worlds are what they say, and that its table tells a rule that errs from one
that does not."""

from __future__ import annotations

import numpy as np
import pytest
from bench._gate_data import WORLDS
from bench.gate import fixed, honest, peeking, shown, summary

from windlass.evaluate.deciding import difference_interval
from windlass.evaluate.gate import Rule


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_candidate_at_the_edge_stands_at_the_edge(world) -> None:  # type: ignore[no-untyped-def]
    """The mean over draws of the difference on the claim that is false there lies at the margin."""
    rng = np.random.default_rng(1)
    metric, rule = list({world.policy.primary: world.policy.rule, **world.policy.guards}.items())[-1]
    plain = Rule("superiority", better=rule.better, relative=rule.relative)
    found = [difference_interval(world.draw(rng, False)[metric], plain).estimate for _ in range(50)]
    edge = -rule.margin if rule.better == "higher" and rule.kind != "equivalence" else rule.margin
    assert np.mean(found) == pytest.approx(edge, abs=4 * np.std(found) / np.sqrt(50))


def test_critical_values_are_raised_only_for_tests_that_err() -> None:
    z = np.random.default_rng(2).normal(size=20_000)
    assert honest(z) == pytest.approx(1.96, abs=0.06)
    assert honest(z - 1) == pytest.approx(1.96, abs=1e-3)
    raised = honest(z + 1)
    assert np.mean(z + 1 > raised) <= 0.025 < np.mean(z + 1 > raised - 0.05)


def test_the_table_and_its_last_line() -> None:
    rows = [fixed(WORLDS[0], 60, seed=1), fixed(WORLDS[9], 60, seed=2), peeking(20, seed=3)]
    assert all(one.kept for one in rows) and rows[0].peers["point"][0] > 0.2
    text, last = shown(rows), summary(rows, 60)
    assert WORLDS[0].name in text and "unpaired z" in text
    assert last["bench"] == "gate" and 0.5 < float(str(last["ratio"])) < 1.5
