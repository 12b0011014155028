"""How many tokens a tokenizer makes of texts: bytes per token and fertility."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from windlass.build.tokenizer.loading import batches
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(slots=True)
class TokenCount:
    """What a tokenizer makes of a set of texts."""

    documents: int = 0
    bytes: int = 0
    words: int = 0
    """Runs of characters other than white space."""
    tokens: int = 0

    def add(self, text: str, tokens: int) -> None:
        self.documents += 1
        self.bytes += len(text.encode())
        self.words += len(text.split())
        self.tokens += tokens

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens

    @property
    def fertility(self) -> float:
        """Tokens per word (Rust et al. 2021)."""
        return self.tokens / self.words

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {
            "bytes_per_token": round(self.bytes_per_token, 4) if self.tokens else None,
            "fertility": round(self.fertility, 4) if self.words else None,
        }


def measure(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenCount:
    """Counts what the tokenizer makes of the texts. Raises `InputError` when they hold no word."""
    count = TokenCount()
    for batch in batches(texts):
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch, add_special_tokens=False), strict=True):
            count.add(text, len(encoding))
    if not count.words:
        raise InputError("There is no text to measure the tokenizer on.", "Name a corpus with text.")
    return count
