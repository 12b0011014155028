"""A token shard: all documents of a split as one flat file of token numbers, memory-mapped when read.

Layout: little-endian uint16 (uint32 for vocabularies above 65,536), each document preceded by the separator, and
one separator at the very end; beside it a JSON file with what was counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.tokenizer import batches
from windlass.core.errors import InputError
from windlass.core.files import atomic_write, write_json

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Shard:
    tokens: NDArray[Any]
    """Of a file: memory-mapped, read-only."""
    documents: int
    bytes: int
    """UTF-8 bytes of the documents' text, separators not counted."""
    separator: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class _Counts:
    documents: int
    bytes: int
    tokens: int
    separator: int
    dtype: str


def write_shard(path: Path, texts: Iterable[str], tokenizer: Any, separator: int) -> Shard:
    """Tokenizes the texts (with a `tokenizers.Tokenizer`) into `path`, or takes what is there already.

    The JSON file is written last, so a shard cut off by a crash is made again. Raises `InputError` when there is
    no text.
    """
    counts_path = path.with_suffix(".json")
    if not counts_path.exists():
        dtype = _narrow(tokenizer)
        documents = size = tokens = 0
        with atomic_write(path) as file:
            for text, ids in _encoded(texts, tokenizer, [separator], dtype):
                file.write(ids.tobytes())
                documents += 1
                size += len(text.encode())
                tokens += len(ids)
            file.write(np.array([separator], dtype).tobytes())
        if not size:
            raise InputError("There is no text to train on.", "Make a corpus with text in both splits.")
        write_json(counts_path, asdict(_Counts(documents, size, tokens + 1, separator, dtype.str)))
    counts = _Counts(**json.loads(counts_path.read_text(encoding="utf-8")))
    found = np.memmap(path, counts.dtype, "r")
    if len(found) != counts.tokens:
        raise InputError(f"{path} holds {len(found):,} tokens instead of {counts.tokens:,}.", "Delete this file.")
    return Shard(found, counts.documents, counts.bytes, counts.separator)


def shard_of(texts: Iterable[str], tokenizer: Any, separator: int, begin: int | None = None) -> Shard:
    """The same in memory, two or four bytes a token. `begin`: a token that stands before each text too, where the model
    knows another one for that than the separator. Raises `InputError` when there is no text."""
    before = [separator] if begin is None or begin == separator else [separator, begin]
    dtype = _narrow(tokenizer)
    found = list(_encoded(texts, tokenizer, before, dtype))
    size = sum(len(text.encode()) for text, _ in found)
    if not size:
        raise InputError("There is no text to train on.", "Give documents that are not empty.")
    tokens = np.concatenate([*(ids for _, ids in found), np.array([separator], dtype)])
    return Shard(tokens, len(found), size, separator)


def _encoded(
    texts: Iterable[str], tokenizer: Any, before: Sequence[int], dtype: np.dtype[Any]
) -> Iterator[tuple[str, NDArray[Any]]]:
    for batch in batches(texts, _BATCH):
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for text, encoding in zip(batch, encodings, strict=True):
            yield text, np.array([*before, *encoding.ids], dtype)


def _narrow(tokenizer: Any) -> np.dtype[Any]:
    return np.dtype("<u2" if tokenizer.get_vocab_size() <= 1 << 16 else "<u4")
