"""The container of GGUF version 3: a header, key-values, a directory of tensors, and their aligned bytes.

Layout (ggml's docs/gguf.md), all little-endian:

    "GGUF"  version: u32  tensors: u64  key-values: u64
    key-values:  key: string  kind: u32  value
    directory:   name: string  dimensions: u32  shape: u64 each, innermost first  type: u32  offset: u64
    padding to the alignment, then the data that offsets count from

A string is its length (u64) and UTF-8; an array is the kind of its items (u32), their count (u64) and the items. Every
count is held against the bytes that are left before anything is allocated, so a damaged file costs one message.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from windlass.build.transformer.gguf.blocks import LAYOUTS, TYPES, Floats, Layout
from windlass.core.errors import InputError
from windlass.core.files import atomic_write

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""Kind of a value -> its letter in `struct`."""
_HINT = "The file is damaged or was cut off; fetch it again."

Value = str | int | float | bool | Sequence[str] | Sequence[int] | Sequence[float]


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, not yet decoded."""

    name: str
    shape: tuple[int, ...]
    """Outermost first, as in torch."""
    layout: Layout
    offset: int
    data: NDArray[np.uint8]

    def decoded(self) -> NDArray[np.float32]:
        """Its numbers; the file's pages are read now."""
        return self.layout.decode(self.data).reshape(self.shape)


class Reader:
    """An open GGUF file: `values` by key, `tensors` by name. Raises `InputError` for whatever is malformed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}.", "Give a file of the GGUF format.") from error
        self._at = 0
        magic = self._take(4)
        if magic != MAGIC:
            raise InputError(f"{path} is not a GGUF file: it begins with {magic!r}.", "Give a file of that format.")
        version = self._number("I")
        if version not in VERSIONS:
            raise InputError(
                f"{path} is GGUF version {version}; versions 2 and 3, little-endian, can be read.", "Convert it anew."
            )
        tensors, pairs = self._count("tensors", 8 + 4 + 8 + 4 + 8), self._count("key-values", 8 + 4 + 1)
        self.values: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string()
            if key in self.values:
                self._damaged(f"the key '{key[:80]}' stands there twice")
            self.values[key] = self._value(self._number("I"), key)
        directory = [self._entry() for _ in range(tensors)]
        self.tensors = self._placed(directory)

    def _entry(self) -> tuple[str, tuple[int, ...], Layout, int]:
        name = self._string()
        dimensions = self._number("I")
        if not 1 <= dimensions <= 4:
            self._damaged(f"the tensor '{name[:80]}' has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        kind, offset = self._number("I"), self._number("Q")
        if kind not in LAYOUTS:
            known = ", ".join(TYPES)
            raise InputError(
                f"{self.path}: the tensor '{name[:80]}' has type {kind}, which cannot be read here.",
                f"Known are: {known}. Take a file that was quantised to one of them.",
            )
        layout = LAYOUTS[kind]
        if min(shape) < 1 or shape[0] % layout.block:
            self._damaged(f"'{name[:80]}' has shape {shape[::-1]}, which type {layout.name} cannot hold")
        return name, shape[::-1], layout, offset

    def _placed(self, directory: Iterable[tuple[str, tuple[int, ...], Layout, int]]) -> dict[str, Stored]:
        """The tensors with their bytes: inside the file, aligned, none over another."""
        alignment = self.values.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
            self._damaged(f"general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        found: dict[str, Stored] = {}
        free = 0
        for name, shape, layout, offset in sorted(directory, key=lambda entry: entry[3]):
            length = math.prod(shape) // layout.block * layout.bytes
            if name in found:
                self._damaged(f"the tensor '{name[:80]}' stands there twice")
            if offset % alignment or offset < free:
                self._damaged(f"the tensor '{name[:80]}' lies at {offset}, inside another one or not aligned")
            if start + offset + length > len(self._bytes):
                self._damaged(f"the tensor '{name[:80]}' should end at byte {start + offset + length} of the file")
            data = np.frombuffer(self._bytes, np.uint8, length, start + offset)
            found[name] = Stored(name, shape, layout, offset, data)
            free = offset + length
        return found

    def _take(self, count: int) -> bytes:
        if count > len(self._bytes) - self._at:
            self._damaged(f"it ends at byte {len(self._bytes)}, where {count} more are announced")
        self._at += count
        return self._bytes[self._at - count : self._at]

    def _number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self._take(struct.calcsize("<" + letter)))[0]

    def _count(self, what: str, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        count: int = self._number("Q")
        if count * least > len(self._bytes) - self._at:
            self._damaged(f"it announces {count} {what}, which its {len(self._bytes)} bytes cannot hold")
        return count

    def _string(self) -> str:
        raw = self._take(self._number("Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self._damaged(f"the text {raw[:40]!r} is not UTF-8")

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY:
            self._damaged(f"'{key[:80]}' has a value of the unknown kind {kind}")
        item = self._number("I")
        if item == _STRING:
            return [self._string() for _ in range(self._count(f"texts of '{key[:80]}'", 8))]
        if item not in _SCALARS:
            self._damaged(f"'{key[:80]}' is a list of the kind {item}")
        letter = "<" + _SCALARS[item]
        size = struct.calcsize(letter)
        raw = self._take(self._count(f"numbers of '{key[:80]}'", size) * size)
        return np.frombuffer(raw, letter).tolist()

    def _damaged(self, what: str) -> NoReturn:
        raise InputError(f"{self.path} is not a sound GGUF file: {what}.", _HINT)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to be written."""

    name: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def length(self) -> int:
        return math.prod(self.shape) // self.layout.block * self.layout.bytes


def write(path: Path, values: Mapping[str, Value], entries: Sequence[Entry], numbers: Callable[[str], Floats]) -> None:
    """Writes a file, atomically. `numbers` gives a tensor's float32 array by name; it is asked once for each."""
    with atomic_write(path) as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(entries), len(values)))
        for key, value in values.items():
            file.write(_text(key) + _packed(value))
        offset = 0
        for entry in entries:
            file.write(_text(entry.name) + struct.pack(f"<I{len(entry.shape)}Q", len(entry.shape), *entry.shape[::-1]))
            file.write(struct.pack("<IQ", entry.layout.number, offset))
            offset += -(-entry.length // ALIGNMENT) * ALIGNMENT
        for entry in entries:
            _pad(file)
            file.write(entry.layout.encode(numbers(entry.name)).tobytes())
        _pad(file)


def _pad(file: IO[bytes]) -> None:
    file.write(b"\0" * (-file.tell() % ALIGNMENT))


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _packed(value: Value) -> bytes:
    """A value with its kind. Whole numbers are unsigned where they can be, as the field's readers expect."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, Sequence):
        if all(isinstance(item, str) for item in value):
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(_text(str(item)) for item in value)
        letter = "?" if isinstance(value[0], bool) else "i" if isinstance(value[0], int) else "f"
        kind = next(number for number, known in _SCALARS.items() if known == letter)
        return struct.pack(f"<IIQ{len(value)}{letter}", _ARRAY, kind, len(value), *value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<If", 6, value)
