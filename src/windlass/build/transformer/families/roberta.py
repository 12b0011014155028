"""RoBERTa: BERT whose positions are counted from behind the padding token's number (arXiv 1907.11692)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import bert
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, both, same

MODEL_TYPE = "roberta"
ARCHITECTURE = "RobertaForMaskedLM"

_HEADLESS = "RobertaModel"
_PAD = 1
_UNUSED = _PAD + 1
"""Rows of the table of positions that no text reaches: the first one of a text is the one behind the padding's."""


def from_hf(fields: Fields) -> TransformerConfig:
    return shape_of(fields, _HEADLESS)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return shape_to_hf(config, ARCHITECTURE, _HEADLESS)


def shape_of(fields: Fields, headless: str) -> TransformerConfig:
    fields.only("pad_token_id", _PAD)
    shape = bert.shape_of(fields, headless)
    if shape.context <= _UNUSED:
        raise fields.refused("max_position_embeddings", shape.context)
    return replace(shape, context=shape.context - _UNUSED)


def shape_to_hf(config: TransformerConfig, architecture: str, headless: str) -> dict[str, Any]:
    longer = replace(config, context=config.context + _UNUSED)
    return bert.to_hf(longer) | {"architectures": [headless if config.headless else architecture]}


def links(config: TransformerConfig) -> list[Link]:
    whole = "" if config.headless else "roberta."
    positions = Link(("positions",), (f"{whole}embeddings.position_embeddings.weight",), unused=_UNUSED)
    found = [link for link in bert.encoder_links(config, whole) if link.ours != positions.ours] + [positions]
    if config.headless:
        return found
    found += both("transform.dense", "lm_head.dense") + both("transform.norm", "lm_head.layer_norm")
    found.append(same("head_bias", "lm_head.bias"))
    return found if config.tied else [*found, same("head.weight", "lm_head.decoder.weight")]


def renamed(name: str, config: TransformerConfig) -> str | None:
    """None for what has no place here: the pooler, and second copies of positions and of the head's bias."""
    bare = name.removeprefix("roberta.")
    if bare.startswith("pooler.") or bare in ("embeddings.position_ids", "lm_head.decoder.bias"):
        return None
    if config.headless:
        return bare
    return f"roberta.{bare}" if bare.startswith(("embeddings.", "encoder.")) else name
