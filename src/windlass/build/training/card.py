"""The model card: what the model is, what it was made from, what was measured, and what it must not be used for."""

from __future__ import annotations

from windlass.build.training.data.shard import Shard
from windlass.build.training.measuring.heldout import FRESH, HeldOut
from windlass.build.training.settings import ObjectiveKind, PretrainSettings
from windlass.build.training.sizes import Sizes
from windlass.core.artifacts import Artifact

_WHAT: dict[ObjectiveKind, str] = {
    "causal": "A small decoder-only language model (Llama architecture: RMSNorm, rotary positions, grouped-query "
    "attention, SwiGLU), trained to predict the next token",
    "masked": "A small encoder (ModernBERT architecture: rotary positions, local and global attention, gated GELU), "
    "trained to say what hidden tokens were",
    "spans": "A small encoder-decoder (T5 1.1 architecture: relative positions, gated GELU), trained to write what "
    "stood in the gaps of a text",
    "contrastive": "A small embedding model (ModernBERT architecture), trained to find the passage that follows "
    "another one: the mean of its output vectors, brought to length 1, stands for a text",
}
_USE: dict[ObjectiveKind, str] = {
    "causal": "It continues text in the style of its corpus.",
    "masked": "It fills masks, and its vectors are a start for classifiers, taggers and embedding models.",
    "spans": "It fills gaps, and is a start for models that turn one text into another.",
    "contrastive": "It compares texts like those of its corpus by the cosine of their vectors.",
}
_LIMITS: dict[ObjectiveKind, str] = {
    "causal": "Far too small and too briefly trained to know facts, follow instructions or write correct code. What it "
    "writes may\nlook like documentation and be wrong. It may repeat passages of its training text.",
    "masked": "Far too small and too briefly trained to know facts. It has seen one corpus and no other kind of text.",
    "spans": "Far too small and too briefly trained to know facts, translate or summarise. It fills gaps and nothing "
    "else until\nit is fine-tuned.",
    "contrastive": "Trained on neighbouring passages, not on questions and answers, and on one corpus only.",
}


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
    model, kind = sizes.model, settings.objective_kind
    start = f"from the weights of {settings.model.init_from}" if settings.model.init_from else "from random weights"
    seen = steps * sizes.batch_tokens
    layers = f"{model.layers} + {model.decoder_layers}" if model.decoder_layers else f"{model.layers}"
    shape = f"{layers} layers, width {model.hidden}, {model.heads} heads, {model.kv_heads} key/value heads"
    training = (
        f"{steps:,} steps of {sizes.batch_tokens:,} tokens = {seen:,} tokens ({seen / len(train):.2f} epochs), "
        f"{settings.run.precision} activations, seed {settings.run.seed}"
    )
    licence = corpus.card.get("licence") or "that of the documents it was trained on"
    return f"""# {settings.run.name}

{_WHAT[kind]}. Pre-trained {start} on one machine by windlass.

| | |
|---|---|
| parameters | {model.parameters:,} ({shape}) |
| vocabulary, context | {model.vocab_size:,} tokens, {model.context} tokens |
| corpus | {corpus.ref} `{corpus.digest[:12]}`: {train.documents:,} documents, {train.bytes:,} bytes to train on |
| tokenizer | {tokenizer.ref} `{tokenizer.digest[:12]}` |
| training | {training} |
| last training loss | {final_loss:.4f} nats a target |
| held-out text | **{heldout}** |

{_how(settings, sizes)}

## Intended use

Learning, tests and demonstrations: how a model comes about, and a local model to serve and to trace.
{_USE[kind]}

## Limits

{_LIMITS[kind]} Not for decisions about anyone.

## Licence

{licence}
"""


def _how(settings: PretrainSettings, sizes: Sizes) -> str:
    """What exactly the held-out figure says."""
    context, asked = sizes.context, settings.objective
    if settings.objective_kind == "causal":
        return (
            "Held-out bits per byte: all held-out tokens and one separator per document, each predicted once, in "
            f"overlapping windows\nof {context} tokens of which the last {int(context * FRESH)} count; sum of nats / "
            "ln 2 / UTF-8 bytes."
        )
    if settings.objective_kind == "contrastive":
        return (
            "Held-out: which of the second passages of a batch follows a first one; right by chance in one of "
            f"{sizes.micro_batch}."
        )
    share = f"{asked.mask_share:.0%} of the held-out tokens are hidden"
    if settings.objective_kind == "spans":
        return f"Held-out: {share}, in spans of {asked.span_length:g} tokens on average; sentinels are predicted too."
    return f"Held-out: {share}, the same for every run; 80 % by the mask token, 10 % by another token, 10 % not at all."
