"""Columns of rows under the names that an objective knows, and the texts in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError

Text = str | tuple[str, str]
"""A text, or two that are read as a pair."""

_PAIRS = (("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("query", "document"))
_SINGLE = ("text", "sentence", "input")


def renamed(rows: Sequence[Row], columns: Mapping[str, str]) -> list[Row]:
    """The rows with the columns that the settings name, under their names here only. Raises `InputError` naming a
    column that no row has."""
    for ours, theirs in columns.items():
        if rows and not any(theirs in row.values for row in rows):
            there = ", ".join(map(str, rows[0].values))
            raise InputError(f"data.columns.{ours} names '{theirs}', which no row has.", f"There are: {there}.")
    return [moved(row, columns) for row in rows]


def moved(row: Row, columns: Mapping[str, str]) -> Row:
    """The row with those of the columns that it has under their names here. What stood under such a name before is
    gone: a row must not be read by one column here and by another there."""
    if not any(theirs in row.values for theirs in columns.values()):
        return row
    gone = {*columns, *columns.values()}
    kept = {name: value for name, value in row.values.items() if name not in gone}
    found = {ours: row.values[theirs] for ours, theirs in columns.items() if theirs in row.values}
    return Row(row.where, kept | found)


def text_in(row: Row) -> Text:
    """What the row holds to be read. Raises `InputError` naming row and column."""
    for first, second in _PAIRS:
        if first in row.values and second in row.values:
            return words_in(row, first), words_in(row, second)
    for column in _SINGLE:
        if column in row.values:
            return words_in(row, column)
    raise InputError(
        f"{row.where}: the columns are {', '.join(map(str, row.values)) or 'none'}, none of which is known as a text.",
        "Give `text`, or `text` and `text_pair`, or say which column is meant, as in data.columns.text=question.",
    )


def words_in(row: Row, column: str) -> str:
    """A text that is not blank. Raises `InputError` naming row and column."""
    value = row.values.get(column)
    if not isinstance(value, str):
        raise InputError(f"{row.where}: {column} is {json.dumps(value, default=str)[:80]}, but must be text.")
    return _sound(row, column, value)


def several_in(row: Row, column: str) -> list[str]:
    """One text or a list of them. Raises `InputError` naming row, column and place."""
    value = row.values.get(column)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"{row.where}: {column} is {json.dumps(value, default=str)[:80]}, but must be a text or a list of texts."
        )
    return [_sound(row, f"{column}[{place}]", text) for place, text in enumerate(texts)]


def _sound(row: Row, column: str, text: str) -> str:
    if not text.strip():
        raise InputError(f"{row.where}: {column} is blank.", "Leave the row out.")
    if not text.isascii() and (half := next((c for c in text if "\ud800" <= c <= "\udfff"), None)):
        raise InputError(
            f"{row.where}: {column} holds half a character (the lone surrogate U+{ord(half):04X}).",
            "Decode its source with errors='replace'.",
        )
    return text
