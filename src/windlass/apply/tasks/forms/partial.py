"""As much of a JSON value as its first characters tell: what can be shown while an answer is still being written."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

NOTHING = object()
"""Not even the beginning of an object or a list is there, or it is no JSON."""

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[^ \t\n\r,:\[\]{}\"]+")


def parsed(text: str) -> Any:
    """The value of a beginning of JSON, or `NOTHING`. Words before it are passed over.

    A text that is still open is shown as far as it goes, a number or a word once it has ended, a property once its
    value has begun. What is shown of a longer beginning holds what was shown of a shorter one.
    """
    return beginning(text)[0]


def beginning(text: str) -> tuple[Any, bool]:
    """As `parsed`; and whether the value is whole."""
    begin = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if begin < 0:
        return NOTHING, False
    reading = _Beginning(text, begin)
    try:
        return reading.value(), not reading.open
    except (ValueError, RecursionError):
        return NOTHING, False


class _Beginning:
    """Reads one value from `at` on. Raises `ValueError` for what is no JSON."""

    def __init__(self, text: str, at: int) -> None:
        self._text, self._at = text, at
        self.open = False
        """Whether the text ended within the value."""

    def value(self) -> Any:
        match self._next():
            case "":
                self.open = True
                return NOTHING
            case "{":
                return self._object()
            case "[":
                return self._list()
            case '"':
                return self._string()
        word = _WORD.match(self._text, self._at)
        if word is None:
            raise ValueError(f"no value at {self._at}")
        if word.end() == len(self._text):  # more of it may come
            self.open = True
            return NOTHING
        self._at = word.end()
        return json.loads(word[0])

    def _object(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._at += 1
        while (letter := self._next()) not in ("", "}"):
            if letter == ",":
                self._at += 1
                continue
            if letter != '"':
                raise ValueError(f"no name at {self._at}")
            name = self._string()
            if self._is_cut() or not self._next():
                break
            if self._next() != ":":
                raise ValueError(f"no colon at {self._at}")
            self._at += 1
            if (one := self.value()) is not NOTHING:
                found[name] = one
            if self._is_cut():
                return found
        self._end()
        return found

    def _list(self) -> list[Any]:
        found: list[Any] = []
        self._at += 1
        while (letter := self._next()) not in ("", "]"):
            if letter == ",":
                self._at += 1
                continue
            if (one := self.value()) is not NOTHING:
                found.append(one)
            if self._is_cut():
                return found
        self._end()
        return found

    def _string(self) -> str:
        begin = self._at + 1
        with contextlib.suppress(ValueError):
            text, self._at = _DECODER.raw_decode(self._text, self._at)
            return str(text)
        self.open = True
        for end in range(len(self._text), max(begin, len(self._text) - 6) - 1, -1):  # an escape may be cut
            try:
                text = str(json.loads(f'"{self._text[begin:end]}"'))
            except ValueError:
                continue
            return text[:-1] if text and "\ud800" <= text[-1] <= "\udbff" else text  # half of a pair
        raise ValueError(f"no text at {begin}")

    def _is_cut(self) -> bool:
        return self.open

    def _next(self) -> str:
        """The next character that is no space; none at the end."""
        space = _SPACE.match(self._text, self._at)
        assert space is not None
        self._at = space.end()
        return self._text[self._at : self._at + 1]

    def _end(self) -> None:
        """Passes the bracket that closes, if it is there."""
        if self._next():
            self._at += 1
        else:
            self.open = True
