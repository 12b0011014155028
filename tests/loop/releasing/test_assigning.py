"""Who gets which variant: exact shares, sticky users, and nobody moved who need not be."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.loop.releasing.assigning import arm_of

USERS = [f"user-{n}" for n in range(20_000)]


def test_arms_get_their_shares() -> None:
    shares = {"a": 0.7, "b": 0.2, "c": 0.1}
    counts = Counter(arm_of("salt", user, shares) for user in USERS)
    for arm, share in shares.items():
        spread = (share * (1 - share) / len(USERS)) ** 0.5
        assert abs(counts[arm] / len(USERS) - share) < 5 * spread


def test_a_share_that_grows_keeps_its_users() -> None:
    had: set[str] = set()
    for share in (0.01, 0.05, 0.2, 0.5, 1.0):
        has = {user for user in USERS if arm_of("salt", user, {"live": 1 - share, "new": share}) == "new"}
        assert had <= has and len(has) > len(had)
        had = has
    assert had == set(USERS)


def test_when_one_arm_leaves_only_its_users_move() -> None:
    before = {user: arm_of("s", user, {"a": 0.5, "b": 0.3, "c": 0.2}) for user in USERS}
    after = {user: arm_of("s", user, {"a": 0.5, "b": 0.3, "c": 0.0}) for user in USERS}
    assert all(before[user] in ("c", after[user]) for user in USERS)


def test_another_trial_divides_the_same_users_otherwise() -> None:
    both = Counter(
        (arm_of("one", user, {"a": 0.5, "b": 0.5}), arm_of("two", user, {"a": 0.5, "b": 0.5})) for user in USERS
    )
    assert all(abs(n / len(USERS) - 0.25) < 0.02 for n in both.values())


@given(st.text(), st.text(), st.dictionaries(st.text(), st.floats(0, 1), max_size=4))
def test_it_is_always_the_same_arm_with_a_share(salt: str, unit: str, shares: dict[str, float]) -> None:
    if not any(share > 0 for share in shares.values()):
        with pytest.raises(InputError, match="No arm has a share"):
            arm_of(salt, unit, shares)
        return
    arm = arm_of(salt, unit, shares)
    assert shares[arm] > 0 and arm_of(salt, unit, dict(reversed(shares.items()))) == arm
