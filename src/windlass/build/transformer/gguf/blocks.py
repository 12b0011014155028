"""How GGUF stores numbers: plain floats, or blocks of small whole numbers with a scale (and perhaps a minimum).

`Q8_0` and `Q4_0` scale 32 numbers together. The K-types hold 256 in eight (Q6_K: sixteen) groups, whose scales are
small whole numbers themselves, under one scale of the block; they are read, not written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Layout:
    """One type of tensor."""

    name: str
    number: int
    """What the file calls it."""
    block: int
    """Numbers that are stored together ..."""
    bytes: int
    """... and the bytes they take."""
    decode: Callable[[Bytes], Floats]
    """The bytes of whole blocks -> their numbers, one dimension."""
    encode: Callable[[Floats], Bytes]


def _unwritten(x: Floats) -> Bytes:
    raise NotImplementedError("this type is read only")  # `layout_of` offers the others alone


# ---- plain floats ----------------------------------------------------------------------------------------------------


def _from_f32(raw: Bytes) -> Floats:
    return raw.view("<f4").astype(np.float32)


def _to_f32(x: Floats) -> Bytes:
    return np.ascontiguousarray(x, "<f4").reshape(-1).view(np.uint8)


def _from_f16(raw: Bytes) -> Floats:
    return raw.view("<f2").astype(np.float32)


def _to_f16(x: Floats) -> Bytes:
    return np.ascontiguousarray(x.astype("<f2")).reshape(-1).view(np.uint8)


def _from_bf16(raw: Bytes) -> Floats:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _to_bf16(x: Floats) -> Bytes:
    """Rounds to the nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x.reshape(-1)), 0x7FC0, rounded).astype("<u2").view(np.uint8)


# ---- blocks of 32 ----------------------------------------------------------------------------------------------------


def _rows(raw: Bytes, size: int) -> Bytes:
    return np.ascontiguousarray(raw).reshape(-1, size)


def _half(rows: Bytes, at: int) -> Floats:
    """The 16-bit float at byte `at` of every block, as a column."""
    return np.ascontiguousarray(rows[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> NDArray[np.int16]:
    """Low halves of the bytes first, then their high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int16)


def _fifth_bits(rows: Bytes, at: int) -> NDArray[np.int16]:
    """32 bits of every block as numbers 0 and 16."""
    return np.unpackbits(rows[:, at : at + 4], axis=1, bitorder="little").astype(np.int16) << 4


def _from_q8_0(raw: Bytes) -> Floats:
    rows = _rows(raw, 34)
    return (_half(rows, 0) * rows[:, 2:].view(np.int8)).reshape(-1)


def _to_q8_0(x: Floats) -> Bytes:
    blocks = x.reshape(-1, 32).astype(np.float32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    steps = _away_from_zero(blocks * _inverse(scale)).astype(np.int8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), steps.view(np.uint8)], axis=1).reshape(-1)


def _from_q4_0(raw: Bytes) -> Floats:
    rows = _rows(raw, 18)
    return (_half(rows, 0) * (_nibbles(rows[:, 2:]) - 8)).reshape(-1)


def _to_q4_0(x: Floats) -> Bytes:
    """The number farthest from zero becomes -8, whichever its sign: -8 has no positive twin."""
    blocks = x.reshape(-1, 32).astype(np.float32)
    farthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    scale = farthest / np.float32(-8)
    steps = np.clip(blocks * _inverse(scale) + np.float32(8.5), 0, 15).astype(np.uint8)
    return np.concatenate([scale.astype("<f2").view(np.uint8), steps[:, :16] | steps[:, 16:] << 4], axis=1).reshape(-1)


def _inverse(scale: Floats) -> Floats:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _away_from_zero(x: Floats) -> Floats:
    """Rounds as C's roundf; numpy's would round halves to even."""
    return np.asarray(np.trunc(x + np.copysign(np.float32(0.5), x)), dtype=np.float32)


def _from_q4_1(raw: Bytes) -> Floats:
    rows = _rows(raw, 20)
    return (_half(rows, 0) * _nibbles(rows[:, 4:]) + _half(rows, 2)).reshape(-1)


def _from_q5_0(raw: Bytes) -> Floats:
    rows = _rows(raw, 22)
    return (_half(rows, 0) * ((_nibbles(rows[:, 6:]) | _fifth_bits(rows, 2)) - 16)).reshape(-1)


def _from_q5_1(raw: Bytes) -> Floats:
    rows = _rows(raw, 24)
    return (_half(rows, 0) * (_nibbles(rows[:, 8:]) | _fifth_bits(rows, 4)) + _half(rows, 2)).reshape(-1)


# ---- blocks of 256 ---------------------------------------------------------------------------------------------------


def _six_bit_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """Eight scales and eight minima of 6 bits each from 12 bytes: the first four of both stand in the low bits of
    bytes 0-3 and 4-7, whose top bits complete the last four."""
    low, middle, last = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, last & 15 | low >> 6 << 4], axis=1)
    minima = np.concatenate([middle & 63, last >> 4 | middle >> 6 << 4], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _from_q45_k(raw: Bytes, size: int, fifth: bool) -> Floats:
    rows = _rows(raw, size)
    scales, minima = _six_bit_scales(rows[:, 4:16])
    pairs = rows[:, -128:].reshape(-1, 4, 1, 32)
    steps = np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)
    if fifth:  # bit g of byte i belongs to number i of group g
        bits = rows[:, 16:48, None] >> np.arange(8, dtype=np.uint8) & 1
        steps |= bits.transpose(0, 2, 1) << 4
    scaled = (_half(rows, 0) * scales)[:, :, None] * steps.astype(np.float32)
    return np.asarray(scaled - (_half(rows, 2) * minima)[:, :, None], dtype=np.float32).reshape(-1)


def _from_q6_k(raw: Bytes) -> Floats:
    rows = _rows(raw, 210)
    low = rows[:, :128].reshape(-1, 2, 2, 32)
    low = np.concatenate([low & 15, low >> 4], axis=2)  # (blocks, halves, 4, 32)
    high = rows[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    steps = ((low | high << 4).astype(np.int16) - 32).reshape(-1, 16, 16)
    scales = _half(rows, 208) * rows[:, 192:208].view(np.int8)
    return np.asarray(scales[:, :, None] * steps, dtype=np.float32).reshape(-1)


TYPES: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("F32", 0, 1, 4, _from_f32, _to_f32),
        Layout("F16", 1, 1, 2, _from_f16, _to_f16),
        Layout("Q4_0", 2, 32, 18, _from_q4_0, _to_q4_0),
        Layout("Q4_1", 3, 32, 20, _from_q4_1, _unwritten),
        Layout("Q5_0", 6, 32, 22, _from_q5_0, _unwritten),
        Layout("Q5_1", 7, 32, 24, _from_q5_1, _unwritten),
        Layout("Q8_0", 8, 32, 34, _from_q8_0, _to_q8_0),
        Layout("Q4_K", 12, 256, 144, lambda raw: _from_q45_k(raw, 144, False), _unwritten),
        Layout("Q5_K", 13, 256, 176, lambda raw: _from_q45_k(raw, 176, True), _unwritten),
        Layout("Q6_K", 14, 256, 210, _from_q6_k, _unwritten),
        Layout("BF16", 30, 1, 2, _from_bf16, _to_bf16),
    )
}
"""By name."""
LAYOUTS: dict[int, Layout] = {layout.number: layout for layout in TYPES.values()}
WRITTEN = tuple(name.lower() for name, layout in TYPES.items() if layout.encode is not _unwritten)
"""What a model can be exported to, as the command line spells it."""
FILE_TYPES: dict[str, Any] = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "BF16": 32}
"""`general.file_type`: what most of a file's tensors are."""
