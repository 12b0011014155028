"""One dial: every size and rate of a pre-training run derived from `depth`, and each derivation said aloud.

The idea is nanochat's: a person picks how deep, the rest is rules of thumb that were measured once (docs/lab.md).

Learning rates are stated for `BASE_WIDTH` and carried to other widths so that an update changes what a neuron says by
as much at every width (maximal update parametrisation: Yang et al., arXiv 2203.03466, table 8; for Muon the spectral
condition of Yang, Simon and Bernstein, arXiv 2310.17813):

| weights | start | rate of AdamW | rate of Muon |
|---|---|---|---|
| embedding | variance 1 | the same | - |
| matrices inside the blocks | variance 1/inputs, or zero | x base/width | the same: its updates have spectral norm 1 |
| head | close to zero | x base/width | - |
| norms and biases | one, or zero | the same as the head's | - |
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.config import TransformerConfig

WIDTH_PER_LAYER = 48
HEAD_DIM = 64
BASE_WIDTH = 192

_MUON_RATE = 0.02
_ADAMW_RATE = 0.004
_EMBEDDING_RATE = 0.1155
_HEAD_RATE = 0.00462
_WARMUP = 30


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a run works with, all of it decided."""

    model: TransformerConfig
    batch: int
    """Sequences per step, each of `model.context` tokens."""
    micro_batch: int
    """Sequences in one forward pass."""
    matrix_rate: float
    """Peak learning rate of the matrices inside the blocks."""
    embedding_rate: float
    head_rate: float
    """Peak learning rate of the head, and of norms and biases."""
    warmup_steps: int

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.model.context

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def derive(settings: PretrainSettings, vocab_size: int) -> tuple[Sizes, list[str]]:
    """The sizes, and one line per derivation for the person who watches."""
    model, lines = _shape(settings, vocab_size)
    asked, width = settings.optimizer, model.hidden
    batch = settings.data.batch or max(1, 2048 // model.context)
    narrow = BASE_WIDTH / width
    muon = asked.kind == "muon"
    sizes = Sizes(
        model,
        batch,
        min(settings.data.micro_batch or batch, batch),
        asked.matrix_rate or (_MUON_RATE if muon else _ADAMW_RATE * narrow),
        asked.embedding_rate or _EMBEDDING_RATE,
        asked.head_rate or _HEAD_RATE * narrow,
        _warmup(settings),
    )
    passes = -(-batch // sizes.micro_batch)
    scaled = f"x {BASE_WIDTH}/width"
    lines += [
        f"batch {batch} sequences = {sizes.batch_tokens:,} tokens a step"
        + (", given" if settings.data.batch else ": small, since on few cores more steps teach more than smoother ones")
        + (f", in {passes} passes of {sizes.micro_batch}" if passes > 1 else ""),
        f"parameters {model.parameters:,}, of which {model.matrix_parameters:,} inside the blocks",
        f"training costs {model.flops_per_token / 1e6:,.1f} MFLOP a token",
        f"rates: matrices {sizes.matrix_rate:.3g} ({'Muon' if muon else f'AdamW, {scaled}'}), "
        f"embedding {sizes.embedding_rate:.3g}, head {sizes.head_rate:.3g} (AdamW, {scaled})",
    ]
    return sizes, lines


def _shape(settings: PretrainSettings, vocab_size: int) -> tuple[TransformerConfig, list[str]]:
    depth = settings.model.depth
    width = WIDTH_PER_LAYER * depth
    heads = max(1, width // HEAD_DIM)
    kv_heads = max(k for k in range(1, max(heads // 2, 1) + 1) if heads % k == 0)
    ffn = -(-8 * width // 3 // 64) * 64
    context = settings.model.context or 256
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
    return model, [
        f"depth {depth}: the dial",
        f"width {width} = {WIDTH_PER_LAYER} x depth: narrow, since in minutes more tokens teach more than more weights",
        f"heads {heads} = width / {HEAD_DIM}, rounded down; key/value heads {kv_heads}: at most half as many",
        f"inner width {ffn} = 8/3 x width, up to a multiple of 64 (three SwiGLU matrices cost as much as two of 4 x)",
        f"context {context} tokens" + (", given" if settings.model.context else ": long enough for a paragraph"),
        f"vocabulary {vocab_size:,} from the tokenizer",
    ]


def _warmup(settings: PretrainSettings) -> int:
    if settings.schedule.warmup_steps is not None:
        return settings.schedule.warmup_steps
    return _WARMUP if settings.schedule.steps is None else min(_WARMUP, settings.schedule.steps // 10)
