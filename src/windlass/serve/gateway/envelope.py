"""A request's JSON object, read for a few of its fields and passed on with its own bytes.

The gateway needs to know the model and whether to stream; all else is the provider's business, also fields that did
not exist when this was written. So the text is not made anew from what was parsed: where a field has to change, its
value is replaced in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from windlass.serve.errors import HttpError

_COMPACT = (",", ":")
_SPACE = re.compile(r"[ \t\n\r]*")
_string = json.decoder.scanstring  # type: ignore[attr-defined]
"""The parser of JSON strings: (text, position after the quote, strict) -> (value, position after the end)."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_value = json.JSONDecoder(parse_constant=_no_constant).raw_decode


def refused(param: str | None, message: str, hint: str = "") -> HttpError:
    """The client's mistake in the field `param`, as OpenAI's errors say it."""
    return HttpError(400, message, hint, param=param, code="invalid_value")


class Envelope:
    """The top-level fields of a JSON object, and where their values stand in its text."""

    def __init__(self, body: bytes) -> None:
        """Raises `HttpError` (400) for what is not a JSON object in UTF-8, or gives a field twice."""
        try:
            self._text = body.decode()
            self.fields, self._spans, self._end = _top_level(self._text)
        except RecursionError:
            raise refused(None, "The body is nested too deeply.") from None
        except ValueError as error:  # invalid UTF-8 among them
            raise refused(None, f"The body is not a JSON object: {error}.", "Send one, in UTF-8.") from None
        self._body = body

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self._body)

    def rewritten(self, values: Mapping[str, Any], names: Mapping[str, str]) -> bytes:
        """The body with the values of some fields changed or added, and some fields called by another name.

        All other bytes stay as they were. Raises `HttpError` when both the old and the new name are there.
        """
        edits: list[tuple[int, int, str]] = []
        added: list[str] = []
        for name, value in values.items():
            if name not in self.fields:
                added.append(f"{json.dumps(name)}:{json.dumps(value, separators=_COMPACT)}")
            elif self.fields[name] != value:
                edits.append((*self._spans[name][2:], json.dumps(value, separators=_COMPACT)))
        for old, new in names.items():
            if old in self.fields:
                if new in self.fields:
                    raise refused(old, f"Both '{old}' and '{new}' are given.", "Give one of them.")
                edits.append((*self._spans[old][:2], json.dumps(new)))
        if added:
            edits.append((self._end, self._end, ("," if self.fields else "") + ",".join(added)))
        if not edits:
            return self._body
        pieces, at = [], 0
        for start, end, written in sorted(edits):
            pieces += [self._text[at:start], written]
            at = end
        return "".join([*pieces, self._text[at:]]).encode()


_Span = tuple[int, int, int, int]
"""Where a field's name begins and ends, and where its value does, in characters."""


def _top_level(text: str) -> tuple[dict[str, Any], dict[str, _Span], int]:
    """(name -> value, name -> span, position of the closing brace). Raises ValueError."""
    fields: dict[str, Any] = {}
    spans: dict[str, _Span] = {}
    at = _after(text, 0, "{")
    if text[at : at + 1] != "}":
        while True:
            begin = at
            if text[at : at + 1] != '"':
                raise ValueError(f"expected a field's name at character {at}")
            name, name_end = _string(text, at + 1, True)
            at = _after(text, name_end, ":")
            value, end = _value(text, at)
            if name in fields:
                raise refused(name[:200], f"The field '{name[:200]}' is given twice.")
            fields[name], spans[name] = value, (begin, name_end, at, end)
            at = _space(text, end)
            if text[at : at + 1] == "}":
                break
            at = _after(text, at, ",")
    if _space(text, at + 1) != len(text):
        raise ValueError(f"there is more after the object, at character {at + 1}")
    return fields, spans, at


def _after(text: str, at: int, mark: str) -> int:
    """The position of what follows `mark`, white space left out on both sides."""
    at = _space(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(f"expected '{mark}' at character {at}")
    return _space(text, at + 1)


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None, "it matches the empty text too"
    return match.end()
