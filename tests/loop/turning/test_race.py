"""The race, and what all comparisons of all turns together promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.gate import decide, superiority
from windlass.evaluate.repeated import error_rate
from windlass.evaluate.statistics.intervals import mean_interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.turning.race import Positions, Score, Standing, _heats, race


def scored(values: Sequence[float] | NDArray[np.float64], asked: list[int] | None = None) -> Score:
    whole = np.asarray(values, np.float64)

    def score(positions: Positions) -> NDArray[np.float64]:
        if asked is not None:
            asked.extend(positions.tolist())
        return whole[positions]

    return score


def alone(count: int) -> list[str]:
    return [f"c{n}" for n in range(count)]


def test_the_better_one_wins_and_the_clearly_worse_leave_early() -> None:
    rng = np.random.default_rng(0)
    live = rng.normal(size=400)
    asked: dict[str, list[int]] = {"better": [], "worse": [], "same": []}
    shifts = {"better": 0.4, "worse": -0.4, "same": 0.0}
    runners = {name: scored(live + shift + rng.normal(0, 0.3, 400), asked[name]) for name, shift in shifts.items()}
    found = race(scored(live), runners, alone(400))
    assert found[0].name == "better" and found[0].fate == "finalist"
    assert {one.name: one.fate for one in found[1:]} == {"same": "beaten", "worse": "beaten"}
    assert len(asked["better"]) == 400 == len(set(asked["better"])), "each question once"
    assert len(asked["worse"]) == 100, "and who is clearly behind is asked a quarter of them"
    assert all(Standing.from_json(one.to_json()) == one for one in found)


def test_nobody_who_gains_nothing_is_a_finalist() -> None:
    live = np.tile([0.0, 1.0], 60)
    found = race(scored(live), {"same": scored(live), "worse": scored(live - 0.1)}, alone(120), finalists=2)
    assert {one.name: one.fate for one in found} == {"same": "no better", "worse": "beaten"}
    assert race(scored(live), {}, alone(120)) == []


def test_a_race_ends_when_nobody_is_left() -> None:
    asked: list[int] = []
    live = np.ones(80)
    (one,) = race(scored(live, asked), {"bad": scored(np.zeros(80) + np.arange(80) % 2 / 100)}, alone(80))
    assert one.fate == "no better" and one.questions == 20 == len(asked)


def test_questions_without_a_value_are_left_out_as_pairs() -> None:
    live, other = np.zeros(90), np.ones(90)
    live[:30] = np.nan
    (one,) = race(scored(live), {"other": scored(other)}, alone(90))
    assert one.gain.n == 60 and one.fate == "finalist"
    with pytest.raises(InputError, match="have no value for any"):
        race(scored(np.full(90, np.nan)), {"other": scored(other)}, alone(90))
    with pytest.raises(InputError, match="needs dev questions"):
        race(scored(live), {"other": scored(other)}, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(1, 5), st.integers(0, 3))
def test_heats_ask_every_question_once_and_keep_clusters_together(codes: list[int], heats: int, seed: int) -> None:
    clusters = [f"c{code}" for code in codes]
    found = _heats(clusters, heats, seed)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(codes)))
    assert 1 <= len(found) <= heats
    seen: set[str] = set()
    for heat in found:
        here = {clusters[at] for at in heat.tolist()}
        assert not here & seen
        seen |= here


@pytest.mark.slow
def test_many_turns_with_races_promote_nothing_that_is_no_better() -> None:
    """Everybody is exactly as good as what is live. Each turn races six of them on dev questions and compares up to two
    on the same test questions, the second at the next turn's rate; a promotion makes the candidate the one to beat."""
    rng = np.random.default_rng(7)
    dev, test, worlds, turns = 60, 120, 250, 4
    wrong = 0
    for _ in range(worlds):
        number, promoted = 0, False
        for _turn in range(turns):
            hardness = rng.normal(size=dev)
            runners = {f"r{n}": scored(hardness + rng.normal(size=dev)) for n in range(6)}
            standings = race(scored(hardness + rng.normal(size=dev)), runners, alone(dev), finalists=2)
            for _finalist in (one for one in standings if one.fate == "finalist"):
                number += 1
                rule = superiority(error_rate=error_rate(number))
                difference = paired_difference(
                    rng.normal(size=test), rng.normal(size=test), None, rule.level
                ).difference
                if decide(difference, rule=rule).decision == "GO":
                    promoted = True
                    break
        wrong += promoted
    share = mean_interval(np.r_[np.ones(wrong), np.zeros(worlds - wrong)])
    assert share.low <= 0.05, f"{wrong} of {worlds} worlds saw a wrong promotion"
    assert wrong < 0.09 * worlds
