"""The model card: what the model is, what it was made from, what was measured, and what it must not be used for."""

from __future__ import annotations

from windlass.build.training.heldout import FRESH, HeldOut
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.shard import Shard
from windlass.build.training.sizes import Sizes
from windlass.core.artifacts import Artifact


def model_card(
    settings: PretrainSettings,
    sizes: Sizes,
    corpus: Artifact,
    tokenizer: Artifact,
    train: Shard,
    heldout: HeldOut,
    steps: int,
    final_loss: float,
) -> str:
    """Markdown. Holds nothing that differs between two equal runs, so that equal runs make the same artifact."""
    model = sizes.model
    seen = steps * sizes.batch_tokens
    shape = f"{model.layers} layers, width {model.hidden}, {model.heads} heads, {model.kv_heads} key/value heads"
    training = (
        f"{steps:,} steps of {sizes.batch_tokens:,} tokens = {seen:,} tokens ({seen / len(train):.2f} epochs), "
        f"{settings.run.precision} activations, seed {settings.run.seed}"
    )
    licence = corpus.card.get("licence") or "that of the documents it was trained on"
    return f"""# {settings.run.name}

A small decoder-only language model (Llama architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU),
pre-trained from random weights on one machine by windlass.

| | |
|---|---|
| parameters | {model.parameters:,} ({shape}) |
| vocabulary, context | {model.vocab_size:,} byte-level BPE tokens, {model.context} tokens |
| corpus | {corpus.ref} `{corpus.digest[:12]}`: {train.documents:,} documents, {train.bytes:,} bytes to train on |
| tokenizer | {tokenizer.ref} `{tokenizer.digest[:12]}` |
| training | {training} |
| last training loss | {final_loss:.4f} nats a token |
| held-out bits per byte | **{heldout.bits_per_byte:.4f}** over {heldout.bytes:,} bytes ({heldout.tokens:,} tokens) |

Held-out bits per byte: all held-out tokens and one separator per document, each predicted once, in overlapping windows
of {model.context} tokens of which the last {int(model.context * FRESH)} count; sum of nats / ln 2 / UTF-8 bytes.

## Intended use

Learning, tests and demonstrations: how a language model comes about, and a local model to serve and to trace. It
continues text in the style of its corpus.

## Limits

Far too small and too briefly trained to know facts, follow instructions or write correct code. What it writes may look
like documentation and be wrong. It may repeat passages of its training text. Not for decisions about anyone.

## Licence

{licence}
"""
