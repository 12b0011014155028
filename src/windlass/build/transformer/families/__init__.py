"""Model families: each file maps one family's `config.json` to a `TransformerConfig` and names its tensors.

The arithmetic stays in the blocks. A family that the blocks compute has no code here beyond those two tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import (
    bert,
    distilbert,
    gemma2,
    gemma3,
    gpt2,
    llama,
    mistral,
    mixtral,
    modernbert,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    roberta,
    t5,
    windlass,
    xlm_roberta,
)
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link


class Family(Protocol):
    """What a family's file holds."""

    MODEL_TYPE: str
    ARCHITECTURE: str

    def from_hf(self, fields: Fields, /) -> TransformerConfig: ...
    def to_hf(self, config: TransformerConfig, /) -> dict[str, Any]: ...
    def links(self, config: TransformerConfig, /) -> Iterable[Link]: ...
    def renamed(self, name: str, config: TransformerConfig, /) -> str | None:
        """A tensor's name as some file has it -> as `links` has it; None for what has no place here."""


_ALL: tuple[Family, ...] = (
    llama, qwen3, qwen2, mistral, gemma3, gemma2, phi3, qwen3_moe, qwen2_moe, mixtral, gpt2,
    bert, roberta, xlm_roberta, distilbert, modernbert, t5, windlass,
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.MODEL_TYPE: family for family in _ALL}
"""By `model_type`. A model without a family is saved as the first of them that can express its configuration."""
