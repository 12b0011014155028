"""What a terminal shows: how wide a text is there, text that cannot disturb it, and whether it wants colours."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO


def width(text: str) -> int:
    """Columns that a text takes: two for a Chinese character or an emoji, none for an accent put on a letter."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def cut(text: str, wide: int) -> str:
    """The beginning of a line, with an ellipsis where something is left out."""
    if width(text) <= wide:
        return text
    kept, left = "", wide - 1
    for character in text:
        left -= _columns(character)
        if left < 0:
            break
        kept += character
    return f"{kept}…"


def one_line(text: str) -> str:
    """White space as blanks; � for characters that steer a terminal, or turn the direction of what follows."""
    if text.isprintable():
        return text
    return "".join(" " if c.isspace() else "\ufffd" if _steers(c) else c for c in text)


def columns(out: TextIO) -> int:
    """How wide the terminal is; 80 where that cannot be told."""
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def colourful(out: TextIO) -> bool:
    """Whether it is a terminal with colours, and nobody asked for none (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _steers(character: str) -> bool:
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns or unicodedata.category(character) == "Cc"
