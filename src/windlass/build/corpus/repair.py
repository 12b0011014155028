"""Unicode repair: text that was decoded with the wrong table ("donâ€™t", "RenÃ©e") gets its characters back.

The judgement which text is broken is ftfy's (Speer 2019); here it is asked only about lines that can be broken at all.
A UTF-8 character read with a single-byte table shows as the character of a leading byte followed by that of a
continuation byte, so a line without such a pair is left alone: that test costs a fiftieth of ftfy's own.
Nothing else of ftfy is used: quotation marks, ligatures, widths and HTML entities stay as their author wrote them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from windlass.core.errors import MissingExtra
from windlass.core.readers.text import canonical

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_TABLES = ("cp1252", "latin-1", "cp1250", "iso8859-2", "cp1251", "mac_roman", "cp437", "cp1253", "cp1254", "cp1257")
"""The tables that ftfy undoes, those of Western Europe first."""
_QUOTATION = frozenset("‘’“”–—…")
"""Leading bytes of MacRoman too, but in nearly every English text: not taken as the sign of a broken line."""


def repaired(text: str) -> tuple[str, str | None]:
    """The canonical text with wrongly decoded lines mended, and a note that says how many, or None when none was.

    Meant for prose: a program may hold broken text on purpose. Raises `MissingExtra` when ftfy is not installed and
    the text has a suspicious line.
    """
    if text.isascii() or _suspicion().search(text) is None:
        return text, None
    lines = text.split("\n")
    mended = 0
    for number, line in enumerate(lines):
        if not line.isascii() and _suspicion().search(line) is not None and (better := _mended(line)) != line:
            lines[number] = better
            mended += 1
    if not mended:
        return text, None
    return canonical("\n".join(lines)), f"{mended:,} wrongly decoded {'line' if mended == 1 else 'lines'} mended"


def _mended(line: str) -> str:
    try:
        from ftfy import fix_encoding
    except ModuleNotFoundError as error:
        raise MissingExtra("Unicode repair", "corpus") from error
    return fix_encoding(line, _config())


@cache
def _config() -> TextFixerConfig:
    from ftfy import TextFixerConfig

    return TextFixerConfig(unescape_html=False, explain=False)


@cache
def _suspicion() -> re.Pattern[str]:
    """Finds the pairs by which a wrongly decoded character shows, and the one whose second half became a space."""
    pairs = sorted({_pair(table) for table in _TABLES} | {"(?<=[ÃÂâàáãÐÑ])[ ?\ufffd]"})
    return re.compile(f"[^\\x00-\\x7f](?:{'|'.join(pairs)})")  # one class in front: the search skips ASCII quickly


def _pair(table: str) -> str:
    def characters(first: int, last: int) -> str:
        decoded = bytes(range(first, last + 1)).decode(table, "ignore")
        return re.escape("".join(sorted({char for char in decoded if char >= "\x80"} - _QUOTATION)))

    rest = bytes(range(0x80, 0xC0)).decode(table, "ignore")
    return f"(?<=[{characters(0xC2, 0xF4)}])[{re.escape(''.join(sorted(set(rest))))}\x80-\x9f]"
