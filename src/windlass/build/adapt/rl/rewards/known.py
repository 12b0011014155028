"""The rewards that come with windlass, by name."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.build.adapt.rl.rewards.code import CASES, TESTS
from windlass.build.adapt.rl.rewards.forms import JSON, PATTERN
from windlass.build.adapt.rl.rewards.numbers import NUMBER
from windlass.build.adapt.rl.rewards.reward import Reward

REWARDS: Mapping[str, Reward] = {"number": NUMBER, "json": JSON, "pattern": PATTERN, "cases": CASES, "tests": TESTS}
