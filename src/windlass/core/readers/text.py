"""Canonical text: the one form of a text that every offset in windlass points into.

Bytes are decoded without guessing silently, then: no control characters, Unicode NFC (UAX #15), `\\n` line endings,
no spaces at line ends, at most two blank lines together, no blank lines around. Readers make text canonical *before*
they compute offsets, so that a quotation is verbatim and the same text always has the same digest.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")
_NOT_A_CHARACTER = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_TRAILING = re.compile(r"[ \t]+(?=\n|\Z)")
_BLANK = re.compile(r"\n{4,}")

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
    text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub("", text)
    if not text.isascii():
        text = _NOT_A_CHARACTER.sub("\ufffd", text)
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or text[-1:] in (" ", "\t"):  # the pattern visits every space: ask first
        text = _TRAILING.sub("", text)
    text = _BLANK.sub("\n\n\n", text)
    return text.strip("\n")


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
