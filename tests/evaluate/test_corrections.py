"""Corrections of several p-values beside scipy, by hand, and what they promise by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from windlass.core.errors import InputError
from windlass.evaluate.statistics.multiple import benjamini_hochberg, hochberg, holm

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(p=P_VALUES)
def test_benjamini_hochberg_is_scipys(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p, method="bh"))


def test_hochberg_by_hand() -> None:
    assert hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert hochberg([0.04, 0.045]) == pytest.approx([0.045, 0.045]), "Holm would refuse both at 0.05"


@given(p=P_VALUES)
def test_each_finds_at_least_what_the_stricter_one_finds(p: list[float]) -> None:
    assert (np.array(p) <= benjamini_hochberg(p) + 1e-12).all()
    assert (benjamini_hochberg(p) <= hochberg(p) + 1e-12).all()
    assert (hochberg(p) <= holm(p) + 1e-12).all()
    assert (holm(p) <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all(), "and Bonferroni is the strictest"


def test_no_p_value_outside_of_0_and_1() -> None:
    for correct in (holm, hochberg, benjamini_hochberg):
        with pytest.raises(InputError, match="between 0 and 1"):
            correct([0.1, -0.1])


def test_holm_and_hochberg_keep_false_alarms_and_bh_their_share() -> None:
    """20 tests, 12 of them of nothing, positively dependent through a shared part."""
    rng = np.random.default_rng(1)
    repetitions, truth = 2000, np.append(np.zeros(12), np.full(8, 3.0))
    z = truth + np.sqrt(0.3) * rng.normal(size=(repetitions, 1)) + np.sqrt(0.7) * rng.normal(size=(repetitions, 20))
    p = stats.norm.sf(z)
    alarms, shares = {holm: 0, hochberg: 0}, []
    for row in p:
        for correct in alarms:
            alarms[correct] += bool((correct(row)[:12] <= 0.05).any())
        found = benjamini_hochberg(row) <= 0.1
        shares.append(found[:12].sum() / max(1, found.sum()))
    limit = 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert all(count / repetitions <= 0.05 + limit for count in alarms.values())
    assert alarms[hochberg] >= alarms[holm] > 0
    assert np.mean(shares) <= 0.1 * 12 / 20 + 3 * np.std(shares) / np.sqrt(repetitions)
