"""What no other family can express: the configuration field by field, the tensors under our own names.

Such a folder is read back here exactly; transformers does not know it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, same
from windlass.build.transformer.model import model_of
from windlass.core.config import strict
from windlass.core.errors import ConfigError, InputError

MODEL_TYPE = "windlass"
ARCHITECTURE = "WindlassModel"
_KEY = "transformer"


def from_hf(fields: Fields) -> TransformerConfig:
    try:
        return strict(TransformerConfig, fields.get(_KEY, {}), where=fields.where, prefix=f"{_KEY}.")
    except ConfigError as error:
        raise InputError(error.message, error.hint) from error


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return {_KEY: asdict(config)}


def links(config: TransformerConfig) -> Iterator[Link]:
    with torch.device("meta"):
        names = list(model_of(config).state_dict())
    for name in names:
        yield same(name, name)


def renamed(name: str, config: TransformerConfig) -> str | None:
    """There is one spelling."""
    return name
