"""The words of a row, whatever its format: what duplicates, languages and personal data are looked for in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from windlass.build.adapt.data.rows import Row

_COLUMNS = """
messages conversations instruction input output prompt completion response question answer answers chosen rejected
preferred_output non_preferred_output system history text text_pair texts sentence sentence1 sentence2 premise
hypothesis query document documents context passage anchor positive positives negative negatives tokens
"""
_WORDS = frozenset(_COLUMNS.split())
"""Columns that are read or learned. With identifiers and the like beside them, no row would repeat another."""
_NAMES = frozenset({"id", "role", "from", "type", "name", "tool_call_id"})
"""Keys inside of a column that say something about a text, and are none."""
_FORMATS: tuple[tuple[str, frozenset[str]], ...] = (
    ("preference pairs", frozenset({"chosen", "rejected"})),
    ("OpenAI messages", frozenset({"messages"})),
    ("ShareGPT", frozenset({"conversations"})),
    ("Alpaca", frozenset({"instruction", "output"})),
    ("binary feedback", frozenset({"prompt", "completion", "label"})),
    ("prompt and completion", frozenset({"prompt", "completion"})),
    ("prompt and completion", frozenset({"prompt", "response"})),
    ("question and answer", frozenset({"question", "answer"})),
    ("text and label", frozenset({"text", "label"})),
)


def text_of(row: Row) -> str:
    """All that is written in a row, in its order."""
    return "\n".join(pieces_of(row))


def pieces_of(row: Row) -> list[str]:
    """Each text of the columns that hold such; where no column is known to, of all."""
    known = {name: value for name, value in row.values.items() if name in _WORDS}
    return [text for text in _texts(known or row.values) if text.strip()]


def format_of(row: Row) -> str:
    """What people call the format of a row, or its columns."""
    columns = row.values.keys()
    known = next((name for name, wanted in _FORMATS if wanted <= columns), None)
    return known or f"columns {', '.join(map(str, columns))}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _NAMES:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
