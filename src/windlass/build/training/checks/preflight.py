"""What can be found out before minutes are spent: does everything fit together, is there enough text, memory, disk?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from windlass.build.training.data.shard import Shard
from windlass.build.training.distributed.workers import Workers
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.sizes import Sizes
from windlass.core.errors import DiskFull, InputError, Unsupported

_STATES = 3
"""Weights and at most two moments of the optimizer, in float32."""


def check_inputs(corpus: Any, tokenizer: Any) -> None:
    """Right kinds, and a tokenizer that was trained on this corpus is not demanded, only said when it was not."""
    if corpus.kind != "corpus":
        raise InputError(f"{corpus.ref} is of kind '{corpus.kind}', not a corpus.", "Name a corpus artifact first.")
    if tokenizer.kind != "tokenizer":
        raise InputError(f"{tokenizer.ref} is of kind '{tokenizer.kind}', not a tokenizer.", "Name a tokenizer second.")


def check_text(train: Shard, heldout: Shard, sizes: Sizes) -> list[str]:
    """Enough tokens for one sequence; every token number known to the model. One line about what there is."""
    context, vocab = sizes.context, sizes.model.vocab_size
    if len(train) < context + 1:
        raise InputError(
            f"The training text has {len(train):,} tokens, fewer than one sequence of {context + 1}.",
            "Give more text or a shorter context.",
        )
    for name, shard in (("training", train), ("held-out", heldout)):
        highest = int(shard.tokens.max())
        if highest >= vocab:
            raise InputError(f"The {name} text holds token {highest}, but the vocabulary ends at {vocab - 1}.")
    if len(train) < vocab:
        raise InputError(
            f"The vocabulary has {vocab:,} tokens, more than the training text, which has {len(train):,}: most tokens "
            "would never be seen.",
            "Train a tokenizer with a smaller vocabulary, or give more text.",
        )
    lines = [
        f"training text: {train.documents:,} documents, {train.bytes:,} bytes, {len(train):,} tokens "
        f"({train.bytes / len(train):.2f} bytes each)",
        f"held-out text: {heldout.documents:,} documents, {heldout.bytes:,} bytes, {len(heldout):,} tokens",
    ]
    if len(train) < 20 * vocab:
        lines.append(f"warning: only {len(train) / vocab:.0f} training tokens per token of the vocabulary")
    return lines


def disk_needed(sizes: Sizes) -> int:
    """Bytes of checkpoints and model."""
    return sizes.model.parameters * 4 * (3 * _STATES + 1)


def check_disk(folder: Path, sizes: Sizes) -> str:
    """Room for three checkpoints (two stay, and an old one goes only when the new one is whole) and the model."""
    need = disk_needed(sizes)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise DiskFull(
            f"{folder} has {free / 1e6:,.0f} MB free, but the run needs {need / 1e6:,.0f} MB.", "Free some space."
        )
    return f"disk: needs {need / 1e6:,.0f} MB, {free / 1e6:,.0f} MB free"


def check_workers(workers: Workers, parallel: str, settings: PretrainSettings, sizes: Sizes) -> None:
    """Every worker gets as many sequences of a step as the others, and the sum of their work is that of one."""
    if workers.count == 1:
        return
    if settings.objective_kind == "contrastive":
        raise Unsupported(
            "Contrastive training compares all pairs of a pass with each other, which several workers cannot do.",
            "Train with one worker.",
        )
    if parallel == "fsdp" and settings.optimizer.kind == "adamw8":
        raise Unsupported(
            "AdamW with 8 bits packs whole tensors, which FSDP2 cuts into parts.",
            'Use --parallel ddp, or --set optimizer.kind="adamw", whose moments FSDP2 spreads over the workers.',
        )
    if sizes.batch % workers.count:
        fitting = -(-sizes.batch // workers.count) * workers.count
        raise InputError(
            f"A step of {sizes.batch} sequences cannot be shared evenly by {workers.count} workers.",
            f"Use --set data.batch={fitting}, or another number of workers.",
        )
