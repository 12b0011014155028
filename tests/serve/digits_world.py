"""A tiny decoder that knows ten digits and nothing else, for reinforcement learning from random weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise

WORDS = [*"0123456789", ">", "[end]", "[pad]"]
END, PAD = WORDS.index("[end]"), WORDS.index("[pad]")


def random_base(folder: Path, *, width: int = 32, layers: int = 1, context: int = 16, noise: float = 0.0) -> Path:
    """A model's folder. It has no chat template: it goes on with the text of a prompt.

    `noise` is added to all weights: fresh ones make blocks that add nothing to the residual stream."""
    shape = TransformerConfig(
        vocab_size=len(WORDS), hidden=width, layers=layers, heads=2, kv_heads=2, head_dim=width // 2, ffn=2 * width,
        context=context,
    )  # fmt: skip
    model = Decoder(shape)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    save_model(model, folder, eos=END, pad=PAD)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=">"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[end]", "[pad]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "[end]", "pad_token": "[pad]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


def largest_of(path: Path, digits: int, count: int, seed: int = 0) -> Path:
    """Rows that ask for the largest of some digits; no two are the same."""
    draw = random.Random(seed)
    rows = sorted({tuple(draw.choices("0123456789", k=digits)) for _ in range(4 * count)})
    draw.shuffle(rows)
    lines = [json.dumps({"prompt": " ".join([*row, ">"]), "answer": max(row)}) for row in rows[:count]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
