"""Reading HTTP/1.1 answers (RFC 9112) from a buffer, without any input or output of its own.

Strict where a lenient reader could be made to take one answer for two, or half of one for a whole: both lengths at
once, unequal lengths, folded headers and bare line feeds are errors, and so is an end before the announced one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

MAX_HEAD = 64 << 10
"""Bytes of status line and headers; also of one chunk's size line, and of trailers."""

_STATUS = re.compile(r"HTTP/1\.([01]) ([1-9]\d\d)(?: [^\r\n\0]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class Malformed(Exception):
    """What arrived is not an HTTP/1.1 answer; the message says in what way."""


class Body(Protocol):
    """Takes its bytes out of the front of a buffer."""

    done: bool

    def take(self, buffer: bytearray) -> bytes:
        """Removes what is there of the body, and returns it decoded. Raises `Malformed`."""

    def end(self) -> None:
        """The peer has closed the connection. Raises `Malformed` when the body is not complete."""


@dataclass(slots=True)
class Head:
    """Status line and headers. Names are in lower case; values of a repeated name are joined by commas."""

    status: int
    headers: dict[str, str]
    keep_alive: bool
    body: Body


def take_head(buffer: bytearray) -> Head | None:
    """Removes status line and headers from the buffer; None when they have not all arrived. Raises `Malformed`.

    Interim answers (1xx) are removed and passed over.
    """
    while True:
        end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise Malformed(f"its headers are longer than {MAX_HEAD} bytes")
            if buffer and not b"HTTP/1.".startswith(buffer[:7]):
                raise Malformed("it is not HTTP/1.1")  # said at once, instead of waiting for an end that never comes
            return None
        text = buffer[:end].decode("latin-1")
        del buffer[: end + 4]
        head = _head(text)
        if head.status >= 200:
            return head
        if head.status == 101:
            raise Malformed("it switched to another protocol, which nobody asked for")


def _head(text: str) -> Head:
    line, *rest = text.split("\r\n")
    match = _STATUS.fullmatch(line)
    if match is None:
        raise Malformed("its status line is not HTTP/1.1")
    status = int(match[2])
    headers: dict[str, str] = {}
    for field in rest:
        name, colon, value = field.partition(":")
        if not colon or _NAME.fullmatch(name) is None or "\n" in value or "\r" in value or "\0" in value:
            raise Malformed("a header is malformed")
        name, value = name.lower(), value.strip(" \t")
        if name == "content-length" and headers.get(name, value) != value:
            raise Malformed("it announces two lengths")
        headers[name] = f"{headers[name]}, {value}" if name in headers and name != "content-length" else value
    asked = {option.strip().lower() for option in headers.get("connection", "").split(",")}
    keep = "close" not in asked and (match[1] == "1" or "keep-alive" in asked)
    return Head(status, headers, keep, _body(status, headers))


def _body(status: int, headers: dict[str, str]) -> Body:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if status in (204, 304) or status < 200:
        return Sized(0)
    if coding is not None:
        if length is not None:
            raise Malformed("it announces both a length and chunks")
        if coding.lower() != "chunked":
            raise Malformed(f"its transfer encoding is '{coding[:40]}'")
        return Chunked()
    if length is None:
        return UntilClose()
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise Malformed("its length is not a number")
    return Sized(int(length))


class Sized:
    """A body of `Content-Length` bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def take(self, buffer: bytearray) -> bytes:
        piece = bytes(buffer) if len(buffer) <= self._left else bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        self.done = self._left == 0
        return piece

    def end(self) -> None:
        if not self.done:
            raise Malformed(f"it ended {self._left} bytes early")


class UntilClose:
    """A body without a length: it ends with the connection."""

    done = False

    def take(self, buffer: bytearray) -> bytes:
        piece = bytes(buffer)
        buffer.clear()
        return piece

    def end(self) -> None:
        self.done = True


class Chunked:
    """A body in chunks; extensions and trailers are read over."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._between = False  # after a chunk's data, before its line end
        self._trailers = -1  # bytes of trailers so far; -1 before the last chunk

    def take(self, buffer: bytearray) -> bytes:
        pieces: list[bytes] = []
        at = 0
        while not self.done:
            if self._left:
                piece = bytes(buffer[at : at + self._left])
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._between = True
            end = buffer.find(b"\r\n", at)
            if end < 0:
                self._refuse_early(buffer[at : at + MAX_HEAD + 1])
                break
            line = bytes(buffer[at:end])
            at = end + 2
            self._line(line)
        del buffer[:at]
        return b"".join(pieces)

    def _line(self, line: bytes) -> None:
        if self._between:
            if line:
                raise Malformed("a chunk is longer than it says")
            self._between = False
        elif self._trailers >= 0:
            self._trailers += len(line)
            if self._trailers > MAX_HEAD:
                raise Malformed("its trailers are too long")
            self.done = not line
        else:
            match = _CHUNK.fullmatch(line)
            if match is None or len(line) > MAX_HEAD:
                raise Malformed("a chunk's size is not a number")
            self._left = int(match[1], 16)
            if self._left == 0:
                self._trailers = 0

    def _refuse_early(self, rest: bytearray) -> None:
        """What has no end of line yet, but can already be told to be wrong."""
        if len(rest) > MAX_HEAD or (self._between and bytes(rest) not in (b"", b"\r")):
            raise Malformed("a chunk is longer than it says" if self._between else "a chunk's size line is too long")

    def end(self) -> None:
        if not self.done:
            raise Malformed("it ended before its last chunk")
