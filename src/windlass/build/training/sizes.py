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

from dataclasses import asdict, dataclass, replace
from typing import Any

from windlass.build.training.settings import PretrainSettings
from windlass.build.transformer.config import TransformerConfig
from windlass.core.config import strict
from windlass.core.errors import InputError

WIDTH_PER_LAYER = 48
HEAD_DIM = 64
BASE_WIDTH = 192

_MUON_RATE = 0.02
_ADAMW_RATE = 0.004
_EMBEDDING_RATE = 0.1155
_HEAD_RATE = 0.00462
_WARMUP = 30
_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a run works with, all of it decided."""

    model: TransformerConfig
    context: int
    """Tokens in one sequence, at most those that the model reads."""
    batch: int
    """Sequences per step."""
    micro_batch: int
    """Sequences in one forward pass."""
    matrix_rate: float
    """Peak learning rate of the matrices inside the blocks."""
    embedding_rate: float
    head_rate: float
    """Also of norms and biases."""
    warmup_steps: int

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.context

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def derive(
    settings: PretrainSettings, vocab_size: int, base: TransformerConfig | None = None
) -> tuple[Sizes, list[str]]:
    """The sizes, and one line per derivation for the person who watches.

    `base` is the shape of the model to go on from, which then is kept. Raises `InputError` or `ConfigError` for sizes
    that no model can have, and for a sequence longer than the model reads.
    """
    if base is None:
        model, context, lines = _fresh(settings, vocab_size)
    else:
        model, context, lines = _kept(settings, base)
    asked, narrow = settings.optimizer, BASE_WIDTH / model.hidden
    batch = settings.data.batch or max(1, _BATCH_TOKENS // context)
    muon = asked.kind == "muon"
    sizes = Sizes(
        model,
        context,
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
        f"parameters {model.parameters:,}, of which {model.matrix_parameters:,} inside the blocks"
        + (f"; a token passes {model.active_parameters:,}" if model.experts else ""),
        f"training costs {model.flops_per_token / 1e6:,.1f} MFLOP a token",
        f"rates: matrices {sizes.matrix_rate:.3g} ({'Muon' if muon else f'AdamW, {scaled}'}), "
        f"embedding {sizes.embedding_rate:.3g}, head {sizes.head_rate:.3g} (AdamW, {scaled})",
    ]
    return sizes, lines


def _fresh(settings: PretrainSettings, vocab_size: int) -> tuple[TransformerConfig, int, list[str]]:
    """A new shape: derived from the depth, then changed as `model.config` says."""
    asked, depth = settings.model, settings.model.depth
    width = asked.config.get("hidden", WIDTH_PER_LAYER * depth)
    context = asked.context or 256
    if not isinstance(width, int) or width < 1:
        raise InputError(f"model.config.hidden is {width!r}, but must be a whole number above 0.")
    derived, lines = _SHAPES[asked.architecture](depth, width)
    values = {"vocab_size": vocab_size, "hidden": width, "layers": depth, "context": context, **derived}
    if settings.objective_kind == "contrastive":
        values |= _HEADLESS
    model = strict(TransformerConfig, values | dict(asked.config), where="recipe", prefix="model.config.")
    if model.vocab_size < vocab_size:
        raise InputError(
            f"model.config.vocab_size is {model.vocab_size:,}, but the tokenizer has {vocab_size:,} tokens.",
            "Leave it out: the tokenizer decides.",
        )
    changed = ", ".join(f"{key} = {value}" for key, value in asked.config.items())
    return (
        model,
        context,
        [
            f"depth {depth}: the dial",
            f"width {width}"
            + (", given" if "hidden" in asked.config else f" = {WIDTH_PER_LAYER} x depth: narrow, as in minutes more ")
            + ("" if "hidden" in asked.config else "tokens teach more than more weights"),
            *lines,
            f"context {context} tokens" + (", given" if asked.context else ": long enough for a paragraph"),
            f"vocabulary {vocab_size:,} from the tokenizer",
            *([f"given: {changed}"] if changed else []),
        ],
    )


def _kept(settings: PretrainSettings, base: TransformerConfig) -> tuple[TransformerConfig, int, list[str]]:
    """The shape of the model to go on from."""
    asked = settings.model
    if asked.config:
        raise InputError(
            f"model.init_from keeps the shape of {asked.init_from}, but model.config would change it.",
            "Leave one of them out.",
        )
    context = asked.context or min(256, base.context)
    if context > base.context:
        raise InputError(
            f"model.context is {context}, but {asked.init_from} reads at most {base.context} tokens.",
            "Ask for a shorter context.",
        )
    model = replace(base, **_HEADLESS) if settings.objective_kind == "contrastive" else base
    shape = f"{model.layers} layers, width {model.hidden}, {model.heads} heads, vocabulary {model.vocab_size:,}"
    return model, context, [f"going on from {asked.init_from}: {shape}", f"context {context} tokens"]


def _decoder(depth: int, width: int) -> tuple[dict[str, Any], list[str]]:
    """Llama's shape (arXiv 2302.13971) with grouped queries."""
    heads = max(1, width // HEAD_DIM)
    kv_heads = max(k for k in range(1, max(heads // 2, 1) + 1) if heads % k == 0)
    ffn = _inner(width)
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": HEAD_DIM, "ffn": ffn}
    return shape, [
        f"heads {heads} = width / {HEAD_DIM}, rounded down; key/value heads {kv_heads}: at most half as many",
        f"inner width {ffn} = 8/3 x width, up to a multiple of 64 (three SwiGLU matrices cost as much as two of 4 x)",
    ]


def _encoder(depth: int, width: int) -> tuple[dict[str, Any], list[str]]:
    """ModernBERT's shape (arXiv 2412.13663): rotary positions, gated GELU, every third layer sees everything."""
    heads = max(h for h in range(1, max(1, width // WIDTH_PER_LAYER) + 1) if width % (2 * h) == 0)
    ffn = _inner(width)
    shape = {
        "heads": heads, "kv_heads": heads, "head_dim": width // heads, "ffn": ffn, "causal": False, "tied": True,
        "norm": "layer", "norm_bias": False, "embedding_norm": True, "first_norm": False, "activation": "gelu",
        "rope_theta": 160_000.0, "local_rope_theta": 10_000.0, "window": 128,
        "pattern": "".join("L" if layer % 3 else "G" for layer in range(depth)),
        "head_transform": True, "head_bias": True,
    }  # fmt: skip
    return shape, [
        f"heads {heads} of {width // heads}",
        f"inner width {ffn} = 8/3 x width, up to a multiple of 64; every third layer sees all, the others 128 tokens",
    ]


def _encoder_decoder(depth: int, width: int) -> tuple[dict[str, Any], list[str]]:
    """The shape of T5 1.1 (arXiv 2002.05202): relative positions, gated GELU, a head of its own."""
    heads = max(1, width // HEAD_DIM)
    ffn = _inner(width)
    shape = {
        "decoder_layers": depth, "heads": heads, "kv_heads": heads, "head_dim": HEAD_DIM, "ffn": ffn,
        "position": "relative", "attention_scale": 1.0, "norm_eps": 1e-6, "activation": "gelu_tanh",
    }  # fmt: skip
    return shape, [
        f"layers {depth} in the encoder, {depth} in the decoder; heads {heads} of {HEAD_DIM}",
        f"inner width {ffn} = 8/3 x width, up to a multiple of 64",
    ]


_SHAPES = {"decoder": _decoder, "encoder": _encoder, "encoder-decoder": _encoder_decoder}
_HEADLESS: dict[str, Any] = {"headless": True, "head_transform": False, "head_bias": False}
"""An encoder that is trained on pairs makes vectors only."""


def _inner(width: int) -> int:
    return -(-8 * width // 3 // 64) * 64


def _warmup(settings: PretrainSettings) -> int:
    if settings.schedule.warmup_steps is not None:
        return settings.schedule.warmup_steps
    return _WARMUP if settings.schedule.steps is None else min(_WARMUP, settings.schedule.steps // 10)
