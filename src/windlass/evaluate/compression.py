"""What general compressors and an n-gram model make of a held-out text: the baselines of a language model.

All in bits per byte of the same UTF-8 bytes, so that they compare with each other and with any tokenizer. gzip and xz
know nothing beforehand; "xz after training text" and the n-gram have read the same training text as the model.
"""

from __future__ import annotations

import gzip
import lzma
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.ngram import NGram

GZIP = "gzip -9"
XZ = "xz -9e"
XZ_AFTER = "xz -9e, training text before it"
NGRAM = "interpolated n-gram"
ORDERS = (3, 4, 5, 6, 7, 8)
_DEV = 12
"""Every so-manieth training document chooses the n-gram's order."""
_SEPARATOR = b"\n"


@dataclass(frozen=True, slots=True)
class Baselines:
    """Bits per byte by name, and the facts behind them."""

    bits_per_byte: dict[str, float]
    heldout_bytes: int
    train_bytes: int
    ngram_order: int


def baselines(
    train: Iterable[str], heldout: Iterable[str], *, tell: Callable[[str], object] = lambda _: None
) -> Baselines:
    """Measures every baseline on the held-out documents. Raises `InputError` when either side has no text."""
    before = [text.encode() for text in train if text]
    after = [text.encode() for text in heldout if text]
    if len(before) < 2 or not after:
        raise InputError("The baselines need two training documents and a held-out one, with text.")
    tell("gzip and xz on the held-out text")
    text = _SEPARATOR.join(after)
    found = {GZIP: gzip_bits(text), XZ: xz_bits(text)}
    tell("xz once more, with the training text before it")
    found[XZ_AFTER] = xz_bits(text, after=_SEPARATOR.join(before))
    tell("n-gram of bytes, its order chosen on a part of the training text")
    order, found[NGRAM] = ngram_bits(before, after)
    return Baselines(found, len(text), sum(map(len, before)), order)


def gzip_bits(text: bytes) -> float:
    """Bits per byte of `gzip -9`, whose window is 32 kB."""
    return 8 * len(gzip.compress(text, 9, mtime=0)) / len(text)


def xz_bits(text: bytes, *, after: bytes = b"") -> float:
    """Bits per byte of `xz -9e`, whose window is 64 MiB: what `text` adds to a stream that holds `after` already."""
    alone = len(lzma.compress(after + _SEPARATOR, preset=9 | lzma.PRESET_EXTREME)) if after else 0
    joined = after + _SEPARATOR + text if after else text
    return 8 * (len(lzma.compress(joined, preset=9 | lzma.PRESET_EXTREME)) - alone) / len(text)


def ngram_bits(train: Sequence[bytes], heldout: Sequence[bytes], orders: Sequence[int] = ORDERS) -> tuple[int, float]:
    """(order, bits per byte) of a modified Kneser-Ney model of bytes, trained on all of `train`.

    The order is the best of `orders` on every twelfth training document, for a model that has not read these.
    """
    dev = train[::_DEV]
    rest = [text for number, text in enumerate(train) if number % _DEV]
    chooser = NGram([_symbols(text) for text in rest], 256, max(orders))
    order = min(orders, key=lambda k: _bits(chooser, dev, k))
    return order, _bits(NGram([_symbols(text) for text in train], 256, order), heldout, order)


def _symbols(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, np.uint8)


def _bits(model: NGram, texts: Sequence[bytes], order: int) -> float:
    logs = model.log_probabilities([_symbols(text) for text in texts], order)
    return float(-logs.sum() / math.log(2) / len(logs))
