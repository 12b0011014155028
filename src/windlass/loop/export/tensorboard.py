"""A run as a TensorBoard event file, written without TensorFlow or TensorBoard.

The file is a TFRecord: each record has its length, a masked CRC-32C of the length, an `Event` message in protocol
buffers' wire format, and a masked CRC-32C of it (tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/
event.proto, tensorflow/core/framework/summary.proto). Five kinds of fields are all that scalars and texts need.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from windlass.core.files import atomic_write
from windlass.loop.training.runs import Tracked

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types
_DT_STRING = 7


def to_tensorboard(run: Tracked, folder: Path) -> Path:
    """`RUN/events.out.tfevents.…`: every metric as scalars, configuration and environment as texts."""
    record = run.record
    path = folder / record.id / f"events.out.tfevents.{int(record.started):010d}.windlass"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        for event in _events(run):
            file.write(_record(event))
    return path


def _events(run: Tracked) -> Iterator[bytes]:
    record = run.record
    yield _double(1, record.started) + _text(3, "brain.Event:2")
    for tag, value in (("config", record.config), ("environment", record.environment)):
        text = "    " + json.dumps(dict(value), indent=2).replace("\n", "\n    ")  # Markdown shows it as it is
        tensor = _int(1, _DT_STRING) + _message(2, b"") + _text(8, text)
        metadata = _message(1, _text(1, "text"))
        yield _event(record.started, 0, _text(1, tag) + _message(8, tensor) + _message(9, metadata))
    for name, points in run.series.items():
        for point in points:
            yield _event(point.at, point.step, _text(1, name) + _float(2, point.value))


def _event(at: float, step: int, value: bytes) -> bytes:
    return _double(1, at) + _int(2, step) + _message(5, _message(1, value))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _int(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _key(field, _DOUBLE) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _key(field, _FLOAT) + struct.pack("<f", value)


def _message(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _table() -> list[int]:
    """CRC-32C (Castagnoli), reflected."""
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return rows


_TABLE = _table()


def _masked(data: bytes) -> int:
    """CRC-32C, rotated and shifted so that a checksum of checksums is no weaker."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
