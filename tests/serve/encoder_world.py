"""Small random encoders of transformers in model folders, with a tokenizer that reads words and pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "pump",
    "moves",
    "water",
    "bread",
    "rises",
    "in",
    "violin",
    "music",
    "old",
]
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 40, "initializer_range": 0.3, "pad_token_id": 1,
}  # fmt: skip

_COUNTED_FROM_2 = {"max_position_embeddings": 42, "type_vocab_size": 1}
OWN: dict[str, dict[str, Any]] = {
    "ModernBert": {"local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "Roberta": _COUNTED_FROM_2,
    "XLMRoberta": _COUNTED_FROM_2,
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
}
"""What a family calls differently."""


def save_tokenizer(folder: Path, limit: int = 40) -> int:
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")  # noqa: C408
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **names)
    fast.save_pretrained(folder)
    return len(SPECIAL) + len(WORDS)


def save_encoder(folder: Path, family: str, head: str, **settings: Any) -> Any:
    """`family` Bert, Roberta, ...; `head` Model or ForSequenceClassification; returns the model of transformers."""
    words = save_tokenizer(folder)
    config = getattr(transformers, f"{family}Config")(vocab_size=words, **(SIZES | OWN.get(family, {}) | settings))
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}{head}")(config).eval()
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide mistakes
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    model.save_pretrained(folder)
    return model
