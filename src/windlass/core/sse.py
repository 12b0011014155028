"""Server-sent events as bytes: where one ends, and what it says (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_EVENT = 16 << 20
"""Bytes of one event; a server that never ends one would fill the memory."""

# Never `str.splitlines`: JSON may hold U+2028 as it is, which is the end of a line to Python but not to this format.
_END = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
_LINE = re.compile(rb"\r\n|\n|\r")


class BadEvent(Exception):
    """An event that is no event; the message says why."""


def cut(buffer: bytearray) -> Iterator[bytes]:
    """Removes the events that are complete from the front of the buffer, each with the blank line that ends it."""
    at = 0
    for match in _END.finditer(buffer):
        yield bytes(buffer[at : match.end()])
        at = match.end()
    del buffer[:at]
    if len(buffer) > MAX_EVENT:
        raise BadEvent(f"an event is longer than {MAX_EVENT} bytes")


def data_of(event: bytes) -> bytes | None:
    """The data of an event; None for a comment, which servers send to keep a connection open."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2:
        return event[6:].strip()  # one line, as nearly all are
    lines = [line for line in _LINE.split(event) if line]
    found = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    if not found:
        for line in lines:
            if not line.startswith((b":", b"event:", b"id:", b"retry:")):
                raise BadEvent(f"a line is no part of an event: {line[:400].decode('utf-8', 'replace')!r}")
        return None
    return b"\n".join(found)
