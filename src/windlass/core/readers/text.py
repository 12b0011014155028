"""Canonical text: the one form of a text that every offset in windlass points into.

Bytes are decoded without guessing silently, then: no control characters, Unicode NFC (UAX #15), `\\n` line endings,
no spaces at line ends, at most two blank lines together, no blank lines around. Readers make text canonical *before*
they compute offsets, so that a quotation is verbatim and the same text always has the same digest.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

_CONTROLS = bytes(set(range(32)) - {9, 10}) + b"\x7f"
_FOREIGN = re.compile("[\x80-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]")
"""Beyond ASCII, what canonical text does not hold: one search tells that there is nothing of it."""
_LINE_END = re.compile("[\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_NOT_A_CHARACTER = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_BLANK = re.compile(r"\n{4,}")
_SLIP = re.compile("[\xc2-\xf4][\x80-\xbf\u0152-\u0192\u02c6-\u02dc\u2013-\u203a\u20ac\u2122]{1,3}")
"""A UTF-8 character whose bytes were taken for Latin-1 or Windows-1252, if it holds one of the C1 controls."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_BINARY_CONTROLS = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27}) + b"\x7f"


class NotText(ValueError):
    """The bytes cannot be read as text; the message is the reason."""


def canonical(text: str) -> str:
    """The canonical form of `text`. Idempotent."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        if _FOREIGN.search(text) is not None:
            text = _LINE_END.sub("\n", _SLIP.sub(_unslipped, text))
            text = _NOT_A_CHARACTER.sub("\ufffd", _CONTROL.sub("", text))
        data = text.encode()
    else:
        data = text.encode("ascii")
    if len(data.translate(None, _CONTROLS)) < len(data):  # a third of the time that the pattern takes
        text = _CONTROL.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    if "\n\n\n\n" in text:
        text = _BLANK.sub("\n\n\n", text)
    return text.strip("\n")


def _unslipped(match: re.Match[str]) -> str:
    """Nobody writes C1 controls: where one follows a leading byte, both are bytes of one UTF-8 character."""
    slip = match[0]
    if not any("\x80" <= char <= "\x9f" for char in slip):
        return slip
    try:
        data = b"".join(char.encode("latin-1" if char <= "\xff" else "cp1252") for char in slip)
        return data.decode()
    except UnicodeError:
        return slip


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Decodes a file; returns (text, note), where `note` says what had to be mended ('' when nothing).

    UTF-8 unless a byte-order mark says otherwise or, when UTF-8 fails, unless the file itself `declared` an
    encoding. A few broken bytes become U+FFFD; a file with none but foreign bytes, and few of them, is taken for
    Windows-1252. Raises `NotText` when it is binary or when more than 5 % would be guesswork.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _replace(data[len(mark) :], encoding)
    if b"\x00" in data:
        raise NotText("binary, holds NUL bytes")
    if len(data.translate(None, _BINARY_CONTROLS)) < 0.98 * len(data):
        raise NotText("binary, holds control bytes")
    try:
        return data.decode("utf-8"), ""
    except UnicodeDecodeError:
        pass
    if declared:
        try:
            return data.decode(declared), f"decoded as {declared}, as it declares"
        except (LookupError, UnicodeError):
            pass  # the declaration is wrong: judge the bytes instead
    text = data.decode("utf-8", "replace")
    foreign = sum(byte >= 0x80 for byte in data)
    valid = sum(char >= "\x80" for char in text) - text.count("\ufffd") + data.count(b"\xef\xbf\xbd")
    truncated = text.endswith("\ufffd") and text.count("\ufffd") == 1
    if valid == 0 and not truncated:  # nothing in it is UTF-8, so it is not UTF-8 with accidents
        if foreign > 0.3 * len(data):
            raise NotText("in an encoding that it does not declare")
        return data.decode("cp1252", "replace"), "not UTF-8: decoded as Windows-1252"
    return _replace(data, "utf-8")


def _replace(data: bytes, encoding: str) -> tuple[str, str]:
    try:
        return data.decode(encoding), ""
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
    broken = text.count("\ufffd")
    if broken > 0.05 * len(text):
        raise NotText(f"{broken:,} of {len(text):,} characters are broken {encoding.upper()}")
    return text, f"{broken:,} broken characters replaced"
