"""How much memory a model takes to serve, told before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from windlass.build.transformer.config import TransformerConfig
from windlass.core.errors import InputError

BYTES_PER_WEIGHT: Mapping[str, float] = {
    "auto": 4.0, "fp32": 4.0, "bf16": 2.0, "int8": 1.0 + 4 / 64, "int4": 0.5 + 4 / 32,
}  # fmt: skip
"""By the policy of the matrices; scales included. "auto" takes the fastest that is faithful, at worst fp32."""
PROCESS = 700 << 20
"""Bytes of a server that has loaded torch and no model yet."""
CACHED_NUMBER = 4
"""Keys and values are kept in float32 on a processor (docs/lab.md)."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes."""

    dense: int
    """The weights in float32, as they are while loading, and stay where a processor cannot do what was asked for."""
    weights: int
    cache: int
    """Keys and values of all requests in progress."""
    process: int = PROCESS

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.process

    @property
    def loading(self) -> int:
        """The most that is held at once: the file's float32 weights beside what is made of them."""
        return self.total + self.dense


def need_of(config: TransformerConfig, *, policy: str, cached_tokens: int) -> Need:
    """Memory of a decoder whose matrices follow `policy`, with room for `cached_tokens` in its cache."""
    if policy not in BYTES_PER_WEIGHT:
        raise InputError(f"'{policy}' is no policy of weights.", f"Choose one of: {', '.join(BYTES_PER_WEIGHT)}.")
    matrices = config.matrix_parameters
    rest = config.parameters - matrices  # embedding, head and vectors stay float32
    per_token = 2 * config.layers * config.kv_heads * config.head_dim * CACHED_NUMBER
    weights = math.ceil(matrices * BYTES_PER_WEIGHT[policy] + rest * 4)
    return Need(config.parameters * 4, weights, per_token * cached_tokens)


def mebibytes(count: int) -> int:
    """Rounded up to 64, as a quantity of Kubernetes reads well."""
    return math.ceil(count / (64 << 20)) * 64
