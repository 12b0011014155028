"""How many tokens a tokenizer makes of texts: bytes per token and fertility."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from windlass.build.tokenizer.loading import batches
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenCount:
    """What a tokenizer makes of a set of texts."""

    documents: int
    bytes: int
    words: int
    """Runs of characters other than white space."""
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al. 2021)."""
        return self.tokens / self.words

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "bytes_per_token": round(self.bytes_per_token, 4),
            "fertility": round(self.fertility, 4),
        }


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenCount:
    """Counts what the tokenizer makes of the texts. Raises `InputError` when they hold no word."""
    documents = size = words = tokens = 0
    for batch in batches(texts):
        documents += len(batch)
        size += sum(len(text.encode()) for text in batch)
        words += sum(len(text.split()) for text in batch)
        tokens += sum(len(encoding) for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
    if not words:
        raise InputError("There is no text to measure the tokenizer on.", "Name a corpus with text.")
    return TokenCount(documents, size, words, tokens)
