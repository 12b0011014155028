"""The binary frames of AWS's streamed answers (`application/vnd.amazon.eventstream`).

A message is: its length and that of its headers (4 bytes each, big-endian), the CRC-32 of these eight, the headers, the
payload, and the CRC-32 of all before. Source: "Amazon event stream encoding" in the Smithy specification.
"""

from __future__ import annotations

import binascii
import json
import struct
from collections.abc import Iterator

from windlass.core.sse import MAX_EVENT, BadEvent

_PRELUDE = struct.Struct(">III")
_OVERHEAD = _PRELUDE.size + 4
"""Bytes of a message with neither headers nor payload."""
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type: true, false, integers, a time, a UUID."""
_BYTES, _TEXT = 6, 7


class EventStream:
    """Gives each event as the JSON object `{name: payload}`, and a failure as `{"error": {"message": ...}}`."""

    media_type = "application/vnd.amazon.eventstream"

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _PRELUDE.size:
            length = _length(self._buffer)
            if len(self._buffer) < length:
                return
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            yield _told(message)

    def end(self) -> Iterator[bytes]:
        if self._buffer:
            raise BadEvent(f"the stream ends inside of a message, after {len(self._buffer)} bytes of it")
        return iter(())


def _length(buffer: bytearray) -> int:
    """Of the message at the front. Checked before anything waits for that many bytes."""
    length, headers, crc = _PRELUDE.unpack_from(buffer)
    if binascii.crc32(buffer[:8]) != crc:
        raise BadEvent("the checksum at the beginning of a message is wrong")
    if not _OVERHEAD + headers <= length <= MAX_EVENT:
        raise BadEvent(f"a message of {length} bytes with {headers} bytes of headers cannot be")
    return int(length)


def _told(message: bytes) -> bytes:
    if binascii.crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
        raise BadEvent("the checksum at the end of a message is wrong")
    payload_at = _PRELUDE.size + int.from_bytes(message[4:8], "big")
    headers, payload = read_headers(message[_PRELUDE.size : payload_at]), message[payload_at:-4]
    match headers.get(":message-type"):
        case "event":
            return b"{%s:%s}" % (json.dumps(headers.get(":event-type", "")).encode(), payload or b"{}")
        case "exception":
            why = f"{headers.get(':exception-type', 'exception')}: {_message(payload)}"
        case "error":
            why = f"{headers.get(':error-code', 'error')}: {headers.get(':error-message', 'no message')}"
        case other:
            raise BadEvent(f"a message of the unknown type {other!r}")
    return json.dumps({"error": {"message": why}}).encode()


def read_headers(data: bytes) -> dict[str, str]:
    """The headers whose values are texts; those of other types are passed over. Raises `BadEvent`."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            name_at = at + 1
            at = name_at + data[at]
            name, kind = data[name_at:at].decode(), data[at]
            at += 1
            if kind in _SIZES:
                at += _SIZES[kind]
            elif kind in (_BYTES, _TEXT):
                begin = at + 2
                at = begin + int.from_bytes(data[at:begin], "big")
                if kind == _TEXT:
                    found[name] = data[begin:at].decode()
            else:
                raise BadEvent(f"the header {name!r} has a value of the unknown type {kind}")
    except (IndexError, UnicodeDecodeError) as error:
        raise BadEvent("the headers of a message cannot be read") from error
    if at != len(data):
        raise BadEvent("the headers of a message cannot be read")
    return found


def _message(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return payload[:4000].decode("utf-8", "replace") or "no message"
