"""Gemma 3 (text): five local layers to a global one, each kind with a RoPE of its own, QK-norm (arXiv 2503.19786)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import gemma2, llama
from windlass.build.transformer.families.fields import Fields, rope_of, rope_to_hf

MODEL_TYPE = "gemma3_text"
ARCHITECTURE = "Gemma3ForCausalLM"

links, renamed = llama.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    fields.only("attn_logit_softcapping", None)
    kinds = fields.get("rope_parameters", {})
    if "full_attention" in kinds:
        everywhere = rope_of(fields, 1e6, kinds["full_attention"])
        local = kinds.get("sliding_attention") or {}
    else:
        everywhere = rope_of(fields, 1e6)
        local = {"rope_theta": fields.get("rope_local_base_freq")}
    if local.get("rope_type", "default") != "default":
        raise fields.refused("rope_type", local["rope_type"])
    return TransformerConfig(
        **gemma2.gemma_of(fields),
        **everywhere,
        **gemma2.windows_of(fields, every=fields.get("sliding_window_pattern", 6)),
        local_rope_theta=float(local.get("rope_theta") or 10_000.0),
        qk_norm=True,
        logit_cap=fields.get("final_logit_softcapping"),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    found = gemma2.gemma_to_hf(config)
    local = rope_to_hf(config.local_rope_theta or config.rope_theta, None)
    return found | {
        "rope_parameters": {"full_attention": found["rope_parameters"], "sliding_attention": local},
        "rope_local_base_freq": local["rope_theta"],
        "final_logit_softcapping": config.logit_cap,
    }
