"""What each way to merge promises, as properties of plain tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from windlass.build.adapt.merging.methods import agreed, chance, dropped, slerp, trimmed, weighted
from windlass.build.adapt.merging.settings import Merging
from windlass.core.errors import InputError

seeds = st.integers(0, 1 << 30)


def drawn(seed: int, *shape: int, count: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@given(seeds, st.floats(0, 1))
def test_an_arc_ends_where_it_should_and_keeps_its_length(seed: int, share: float) -> None:
    first, second = drawn(seed, 5, 7, count=2)
    assert torch.equal(slerp(first, second, 0.0), first)
    assert torch.allclose(slerp(first, second, 1.0), second, atol=1e-6)
    second = second * (first.norm() / second.norm())
    point = slerp(first, second, share)
    assert math.isclose(point.norm(), first.norm(), rel_tol=1e-5)
    angles = [math.acos(min(1.0, float((one * point).sum() / (one.norm() * point.norm())))) for one in (first, second)]
    whole = math.acos(float((first * second).sum() / (first.norm() * second.norm())))
    assert math.isclose(angles[0], share * whole, abs_tol=2e-3) and math.isclose(sum(angles), whole, abs_tol=2e-3)


def test_an_arc_between_vectors_that_are_nearly_the_same_is_the_chord() -> None:
    (first,) = drawn(0, 100)
    near = first + 1e-4 * drawn(1, 100)[0]
    assert torch.allclose(slerp(first, near, 0.3), 0.7 * first + 0.3 * near, atol=1e-6)
    assert torch.allclose(slerp(first, first, 0.3), first, atol=1e-6)
    nothing = torch.zeros(100)
    assert torch.allclose(slerp(nothing, first, 0.5), 0.5 * first)
    assert torch.isfinite(slerp(first, -first, 0.5)).all()


@given(seeds, st.floats(0.01, 1.0))
def test_trimming_keeps_the_largest(seed: int, density: float) -> None:
    (delta,) = drawn(seed, 11, 9)
    kept = trimmed(delta, density)
    assert int(kept.count_nonzero()) == max(1, int(density * 99))
    left = delta[kept == 0].abs()
    assert not len(left) or left.max() <= kept[kept != 0].abs().min()
    assert torch.equal(kept[kept != 0], delta[kept != 0])


def test_numbers_of_one_size_stay_together() -> None:
    assert trimmed(torch.tensor([1.0, -1.0, 1.0, 0.5]), 0.5).tolist() == [1.0, -1.0, 1.0, 0.0]
    assert trimmed(torch.tensor([0.0, 0.0]), 0.5).tolist() == [0.0, 0.0]


def test_what_is_dropped_by_chance_stays_in_expectation() -> None:
    (delta,) = drawn(0, 40)
    draws = torch.stack([dropped(delta, 0.3, chance(7, "some", number)) for number in range(4000)])
    error = delta.abs() * math.sqrt(0.7 / 0.3 / 4000)  # deviation of the mean of a number that stays with 0.3
    assert ((draws.mean(0) - delta).abs() < 5 * error).all()
    assert abs((draws != 0).float().mean() - 0.3) < 0.01
    assert torch.equal(dropped(delta, 0.3, chance(7, "some", 3)), draws[3])
    assert not torch.equal(draws[3], dropped(delta, 0.3, chance(7, "other", 3)))
    assert torch.equal(dropped(delta, 1.0, chance(0, "some", 0)), delta)


@given(seeds, st.permutations(range(3)))
def test_agreement_is_a_matter_of_sides_and_of_no_order(seed: int, order: list[int]) -> None:
    deltas = drawn(seed, 6, 5, count=3)
    weights = [0.2, 0.5, 0.3]
    shares = [weight * delta for weight, delta in zip(weights, deltas)]
    found = agreed(shares, shares, weights)
    again = agreed([shares[i] for i in order], [shares[i] for i in order], [weights[i] for i in order])
    assert torch.allclose(found, again, atol=1e-6)
    stacked = torch.stack(shares)
    for place in [(0, 0), (2, 3), (5, 4)]:  # the definition, number by number
        own = [float(one[place]) for one in shares]
        side = 1 if sum(own) >= 0 else -1
        those = [number for number, one in enumerate(own) if one * side > 0]
        wanted = sum(own[i] for i in those) / sum(weights[i] for i in those) if those else 0.0
        assert math.isclose(found[place], wanted, rel_tol=1e-4, abs_tol=1e-6)
    assert (found.sign() == stacked.sum(0).sign()).all()
    assert torch.allclose(weighted(deltas, weights), sum(shares), atol=1e-6)


def test_what_does_not_conflict_is_summed_and_what_is_the_same_stays() -> None:
    first, second = torch.tensor([1.0, -2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0, -4.0])
    halves = [0.5 * first, 0.5 * second]
    assert torch.equal(agreed(halves, halves, [0.5, 0.5]), first + second)
    same = [0.5 * first, 0.5 * first]
    assert torch.equal(agreed(same, same, [0.5, 0.5]), first)
    apart = [0.5 * first, -0.25 * first]
    assert torch.equal(agreed(apart, apart, [0.5, 0.5]), first)  # the lighter side is not heard


@pytest.mark.parametrize(
    ("asked", "models", "base", "message"),
    [
        (Merging(), 1, False, "nothing to merge"),
        (Merging("slerp"), 3, False, "but 3 are named"),
        (Merging("ties"), 2, False, "no base is named"),
        (Merging("linear"), 2, True, "no use for a base"),
        (Merging("linear", density=0.5), 2, False, "no density"),
        (Merging("ties", density=0.0), 2, True, "density is 0"),
        (Merging("ties", density=1.5), 2, True, r"density is 1\.5"),
        (Merging("linear", (1.0, 2.0, 3.0)), 2, False, "2 models, but 3 weights"),
        (Merging("linear", (1.0, -1.0)), 2, False, "0 in sum"),
        (Merging("ties", (1.0, -0.5)), 2, True, "no negative ones"),
        (Merging("linear", (1.0, math.nan)), 2, False, "A weight is a number|weights are"),
        (Merging("dare_linear", scale=math.inf), 2, True, "scale is inf"),
        (Merging("median"), 2, False, "no method 'median'"),  # type: ignore[arg-type]
    ],
)
def test_a_merge_that_means_nothing_is_refused(asked: Merging, models: int, base: bool, message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked.check(models, base)


def test_weights_are_shares_of_a_mean_and_factors_of_a_sum() -> None:
    assert Merging("linear", (2.0, 6.0)).shares(2) == [0.25, 0.75]
    assert Merging("linear", (1.0, -0.5, 0.5)).shares(3) == [1.0, -0.5, 0.5]
    assert Merging("dare_linear", (1.0, 1.0)).shares(2) == (1.0, 1.0)
    assert Merging("dare_linear").shares(4) == (0.25,) * 4
