"""The words of a row, whatever its format: what duplicates, languages and personal data are looked for in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from windlass.build.adapt.data.rows import Row

_NAMES = frozenset({"id", "role", "from", "type", "name", "label", "labels", "traces", "how", "source", "tool_call_id"})
"""Columns that say something about a row, and are no text of it."""
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
    return [text for text in _texts(row.values) if text.strip()]


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
