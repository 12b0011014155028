"""Loading a tokenizer, and feeding it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T = TypeVar("T")

_BATCH = 64


def load_tokenizer(tokenizer: Artifact | Path) -> Tokenizer:
    """The tokenizer of a tokenizer artifact, or of a model's folder; neither padding nor truncating.

    Text that spells a special token is encoded as text: no document can smuggle an end of text into a prompt.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("Reading a tokenizer", "build") from error
    folder = tokenizer if isinstance(tokenizer, Path) else tokenizer.path
    file = folder / "tokenizer.json"
    if not file.is_file():
        what = f"{folder} holds" if isinstance(tokenizer, Path) else f"{tokenizer.ref} ({tokenizer.kind}) holds"
        raise InputError(f"{what} no tokenizer.json.", "Name a tokenizer or a model.")
    try:
        loaded = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{file} is not a tokenizer ({error}).", "Fetch or make it again.") from error
    loaded.no_padding()
    loaded.no_truncation()
    loaded.encode_special_tokens = True
    return loaded


def batches(items: Iterable[T], size: int = _BATCH) -> Iterator[list[T]]:
    """The items in lists of `size`, as `Tokenizer.encode_batch_fast` likes its texts; the last may be shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
