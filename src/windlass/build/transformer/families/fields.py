"""Reading a `config.json`: every value that would change the arithmetic is either understood or refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from windlass.build.transformer.config import Activation, RopeScaling
from windlass.core.errors import InputError

Known = TypeVar("Known")


class Fields:
    """The values of one `config.json`; `where` names the file in errors."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def get(self, key: str, default: Any = None) -> Any:
        """The value; absent and null are the same, as in transformers."""
        found = self.values.get(key)
        return default if found is None else found

    def size(self, key: str) -> int:
        """A whole number of at least 1, which must be there."""
        found = self.values.get(key)
        if found is None:
            raise InputError(f"{self.where}: '{key}' is missing.", "Take the config.json that came with the weights.")
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise InputError(f"{self.where}: '{key}' is {found!r}, but must be a whole number of at least 1.")
        return found

    def only(self, key: str, known: Any) -> None:
        """Refuses any value but the one that is computed here."""
        found = self.get(key, known)
        if found != known:
            raise self.refused(key, found)

    def choice(self, key: str, default: str, known: Mapping[str, Known]) -> Known:
        """One of the known words, translated."""
        found = self.get(key, default)
        if found not in known:
            raise self.refused(key, found)
        return known[found]

    def split(self, key: str, parts: int) -> int:
        """The value divided by `parts`, which must go evenly."""
        whole = self.size(key)
        if whole % parts:
            raise InputError(f"{self.where}: {key} {whole} cannot be split into {parts} heads.")
        return whole // parts

    def refused(self, key: str, found: Any) -> InputError:
        return InputError(f"{self.where}: '{key}' is {found!r}, which this model does not compute.")


ACTIVATIONS: dict[str, Activation] = {
    "swish": "silu",
    "silu": "silu",
    "gelu": "gelu",
    "relu": "relu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Their words for an activation -> ours. Of several, the last is the one to write."""


def rope_of(fields: Fields, theta: float = 10_000.0, rope: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields rope_theta, rope_scaling and rotary_share; `theta` is the family's default.

    `rope` holds the parameters when the family keeps several sets of them. Both spellings are read, that of
    transformers 4 (rope_theta beside rope_scaling) and that of 5 (rope_parameters).
    """
    if rope is None:
        rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    share = float(rope.get("partial_rotary_factor") or fields.get("partial_rotary_factor", 1.0))
    found: dict[str, Any] = {"rope_theta": float(rope.get("rope_theta") or fields.get("rope_theta", theta))}
    if share != 1.0:
        found["rotary_share"] = share
    scaling = _scaling(fields, rope)
    return found | ({"rope_scaling": scaling} if scaling else {})


_LLAMA3 = {"low_freq_factor": "low", "high_freq_factor": "high"}
_YARN = {"beta_fast": "fast", "beta_slow": "slow", "truncate": "truncate"}
_LONGROPE = {"short_factor": "short_factors", "long_factor": "long_factors"}
_KINDS = {"linear": {}, "llama3": _LLAMA3, "yarn": _YARN, "longrope": _LONGROPE, "su": _LONGROPE}


def _scaling(fields: Fields, rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind not in _KINDS:
        raise fields.refused("rope_type", kind)
    names = _KINDS[kind]
    values: dict[str, Any] = {
        ours: tuple(rope[key]) if isinstance(rope[key], list) else rope[key]
        for key, ours in names.items()
        if rope.get(key) is not None
    }
    context = fields.size("max_position_embeddings")
    if kind != "linear":
        original = fields.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings")
        values["original_context"] = int(original or context)
        values["attention_factor"] = rope.get("attention_factor")
    factor = rope.get("factor") or context / values.get("original_context", context)
    if kind == "yarn" and values["attention_factor"] is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        part, whole = (0.1 * rope[key] * math.log(factor) + 1.0 for key in ("mscale", "mscale_all_dim"))
        values["attention_factor"] = part / whole if factor > 1 else 1.0
    return RopeScaling(kind="longrope" if kind == "su" else kind, factor=float(factor), **values)


def rope_to_hf(theta: float, scaling: RopeScaling | None, share: float = 1.0) -> dict[str, Any]:
    """One set of rope parameters as transformers 5 writes it."""
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if share != 1.0:
        found["partial_rotary_factor"] = share
    if scaling is None:
        return found
    found |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.original_context:
        found["original_max_position_embeddings"] = scaling.original_context
    if scaling.attention_factor is not None:
        found["attention_factor"] = scaling.attention_factor
    for key, ours in _KINDS[scaling.kind].items():
        value = getattr(scaling, ours)
        found[key] = list(value) if isinstance(value, tuple) else value
    return found
