"""What others make of the same held-out bytes: gzip, xz, xz that has read the training text, and an n-gram model.

A language model that does not beat these has learned less than a dictionary. All figures are bits per byte of the
held-out text: documents in order, each followed by one NUL byte for the compressors (counted in their output, not in
the bytes it is divided by). Nothing here needs torch.
"""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from windlass.core.errors import InputError
from windlass.evaluate.ngram import NGram, Symbols

Encode = Callable[[Sequence[str]], Sequence[Symbols]]

_DEV_BYTES = 200_000
_MOST_GRAMS = 6


@dataclass(frozen=True, slots=True)
class Baseline:
    name: str
    bits_per_byte: float
    how: str
    """Exactly what was measured."""


def compression_baselines(
    train: Sequence[str], heldout: Sequence[str], *, encode: Encode | None = None, alphabet: int = 256
) -> list[Baseline]:
    """All baselines, in the order of the module's first line.

    `encode` turns texts into token numbers below `alphabet` for the n-gram model, best with the tokenizer of the
    model that is being compared; None counts bytes. Raises `InputError` when either text is empty.
    """
    size = sum(len(text.encode()) for text in heldout)
    if not size or not any(train):
        raise InputError("Baselines need training and held-out text.", "Make a corpus with text in both splits.")
    before, text = _joined(train), _joined(heldout)
    alone, informed = _xz(text, before)
    order, ngram_bits = ngram_bits_of(train, heldout, encode or _bytes, alphabet if encode else 256)
    unit = "tokens" if encode else "bytes"
    return [
        Baseline("gzip -9", 8 * len(gzip.compress(text, 9, mtime=0)) / size, "the held-out text alone"),
        Baseline("xz -9e", 8 * alone / size, "the held-out text alone"),
        Baseline(
            "xz -9e with the training text",
            8 * informed / size,
            f"size of training + held-out text ({(len(before) + len(text)) / 1e6:.1f} MB, one dictionary) minus size "
            "of the training text",
        ),
        Baseline(
            f"{order}-gram of {unit}",
            ngram_bits / size,
            "interpolated modified Kneser-Ney on the training text, order chosen on a part of it held back",
        ),
    ]


def ngram_bits_of(
    train: Sequence[str], heldout: Sequence[str], encode: Encode, alphabet: int, *, most: int = _MOST_GRAMS
) -> tuple[int, float]:
    """The order chosen, and the bits that the n-gram model needs for the held-out text.

    The order is the best of 2 to `most` on every tenth training document (at most 200 kB of them) when trained on
    the others; then all are counted.
    """
    order = _best_order(train, encode, alphabet, most)
    final = NGram(encode(train), alphabet, order)
    return order, -float(final.log_probabilities(encode(heldout)).sum()) / math.log(2)


def _best_order(train: Sequence[str], encode: Encode, alphabet: int, most: int) -> int:
    dev = _dev(train)
    model = NGram(encode([text for i, text in enumerate(train) if i not in dev] or train), alphabet, most)
    parts = encode([train[i] for i in sorted(dev)])
    return max(range(2, most + 1), key=lambda order: float(model.log_probabilities(parts, order).sum()))


def _dev(train: Sequence[str]) -> set[int]:
    chosen: set[int] = set()
    size = 0
    for i in range(0, len(train), 10):
        if size < _DEV_BYTES:
            chosen.add(i)
            size += len(train[i].encode())
    return chosen


def _joined(texts: Sequence[str]) -> bytes:
    return b"".join(text.encode() + b"\0" for text in texts)


def _bytes(texts: Sequence[str]) -> list[Symbols]:
    return [np.frombuffer(text.encode(), np.uint8) for text in texts]


def _xz(text: bytes, before: bytes) -> tuple[int, int]:
    """Bytes for `text` alone, and for `text` when `before` has been read; preset 9e with a dictionary that holds both.

    Raw LZMA2 streams, without the container's header and checksum.
    """
    dictionary = 1 << max(16, (len(text) + len(before)).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]

    def size(data: bytes) -> int:
        return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))

    return size(text), size(before + text) - size(before)
