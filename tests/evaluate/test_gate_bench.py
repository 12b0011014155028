"""The simulation of the gate: that its worlds are what they say, and that its table tells a rule that errs from one
that does not."""

from __future__ import annotations

import numpy as np
import pytest
from bench._gate_data import WORLDS
from bench.gate import chunk, fixed, honest, peeking, row, shown, summary

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


@pytest.mark.parametrize("number", [0, 10])
def test_exact_sums_are_what_draws_come_to(number: int) -> None:
    world, draws = WORLDS[number], 400
    seen = {deserves: fixed(world, deserves, draws, np.random.default_rng(4)) for deserves in (False, True)}
    found = row(world.name, seen[False], seen[True], world)
    assert found.exact is not None and found.kept and found.rate == found.exact and found.rate_error == 0.0
    assert abs(found.wrong - found.exact) <= 4 * found.wrong_error
    assert abs(np.mean(seen[True].ours) - found.power) <= 4 * np.sqrt(found.power * (1 - found.power) / draws)


def test_draws_do_not_depend_on_how_many_processes_make_them() -> None:
    task = (3, False, 20, (1, 3, 0, 0))
    assert (chunk(task).best == chunk(task).best).all()
    assert not (chunk(task).best == chunk((3, False, 20, (1, 3, 0, 500))).best).any()


def test_the_table_and_its_last_line() -> None:
    rng = np.random.default_rng(3)
    worlds = [
        (world, [fixed(world, deserves, 60, rng) for deserves in (False, True)]) for world in (WORLDS[3], WORLDS[9])
    ]
    rows = [row(world.name, *seen, world) for world, seen in worlds]
    rows.append(row("looked at", peeking(False, 20, rng), peeking(True, 20, rng)))
    assert all(one.kept for one in rows) and rows[0].peers["point"][0] > 0.2
    text, last = shown(rows), summary(rows, 60)
    assert WORLDS[3].name in text and "unpaired z" in text
    assert last["bench"] == "gate" and 0.5 < float(str(last["ratio"])) < 1.5
    assert 0 < float(str(last["false_promotion_max_exact"])) <= 0.025
