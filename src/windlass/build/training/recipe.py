"""One dial: every size and rate of a pre-training run derived from `depth`, and each derivation said aloud.

The idea is nanochat's: a person picks how deep, the rest is rules of thumb that were measured once (docs/lab.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.config import TransformerConfig

WIDTH_PER_LAYER = 48
HEAD_DIM = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    model: TransformerConfig
    batch: int
    """Sequences per step, each of `model.context` tokens."""
    matrix_rate: float
    """Peak learning rate of Muon, for the matrices inside the blocks."""
    embedding_rate: float
    """Peak learning rate of AdamW, for the embedding."""
    head_rate: float
    """Peak learning rate of AdamW, for the head and the norms."""
    momentum: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    warmup_steps: int = 30
    """While the rates rise from zero; a tenth of a short run."""
    cooldown: float = 0.6
    """Share of the run during which the rates fall linearly to zero."""

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.model.context

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def derive(settings: PretrainSettings, vocab_size: int) -> tuple[Recipe, list[str]]:
    """The recipe, and one line per derivation for the person who watches."""
    depth = settings.depth
    width = WIDTH_PER_LAYER * depth
    heads = max(1, width // HEAD_DIM)
    kv_heads = max(k for k in range(1, max(heads // 2, 1) + 1) if heads % k == 0)
    ffn = -(-8 * width // 3 // 64) * 64
    context = settings.context or 256
    batch = settings.batch or max(1, 2048 // context)
    scale = (width / 256) ** -0.5
    warmup = 30 if settings.steps is None else min(30, settings.steps // 10)
    model = TransformerConfig(
        vocab_size=vocab_size,
        hidden=width,
        layers=depth,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=HEAD_DIM,
        ffn=ffn,
        context=context,
    )
    recipe = Recipe(
        model, batch, matrix_rate=0.02, embedding_rate=0.1 * scale, head_rate=0.004 * scale, warmup_steps=warmup
    )
    lines = [
        f"depth {depth}: the dial",
        f"width {width} = {WIDTH_PER_LAYER} x depth: narrow, since in minutes more tokens teach more than more weights",
        f"heads {heads} = width / {HEAD_DIM}, rounded down; key/value heads {kv_heads}: at most half as many",
        f"inner width {ffn} = 8/3 x width, up to a multiple of 64 (three SwiGLU matrices cost as much as two of 4 x)",
        f"context {context} tokens" + ("" if settings.context else ": long enough for the structure of a paragraph"),
        f"batch {batch} sequences = {recipe.batch_tokens:,} tokens a step"
        + ("" if settings.batch else ": small, since on few cores more steps teach more than smoother ones"),
        f"vocabulary {vocab_size:,} from the tokenizer",
        f"parameters {model.parameters:,}, of which {model.matrix_parameters:,} inside the blocks",
        f"training costs {model.flops_per_token / 1e6:,.1f} MFLOP a token",
        f"rates: matrices {recipe.matrix_rate:g} (Muon), embedding {recipe.embedding_rate:.3g}, "
        f"head {recipe.head_rate:.3g} (AdamW, x (width/256)^-1/2)",
    ]
    return recipe, lines
