"""Tokenizers: trained by `tokenizers`, measured and proven here, readable by whatever reads Hugging Face files."""

from __future__ import annotations

from windlass.build.tokenizer.comparing import (
    compare_tokenizers,
    comparison_reports,
    tokenizer_comparison,
    tokenizer_summary,
)
from windlass.build.tokenizer.evaluating import evaluate_tokenizer
from windlass.build.tokenizer.importing import import_tokenizer
from windlass.build.tokenizer.loading import batches, load_tokenizer
from windlass.build.tokenizer.lossless import check_lossless, random_texts
from windlass.build.tokenizer.measuring import TokenCount, measure
from windlass.build.tokenizer.specials import END_OF_TEXT, Specials, load_specials
from windlass.build.tokenizer.training import tokenizer_report, train, train_tokenizer

__all__ = [
    "END_OF_TEXT",
    "Specials",
    "TokenCount",
    "batches",
    "check_lossless",
    "compare_tokenizers",
    "comparison_reports",
    "evaluate_tokenizer",
    "import_tokenizer",
    "load_specials",
    "load_tokenizer",
    "measure",
    "random_texts",
    "tokenizer_comparison",
    "tokenizer_report",
    "tokenizer_summary",
    "train",
    "train_tokenizer",
]
