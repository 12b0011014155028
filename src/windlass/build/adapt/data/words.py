"""Words with tags as the tokens of one text: a word's tag is learned at the first of its tokens.

The words are joined by spaces and read as one text, as they will be when the model is used; where each one went is
told by the tokenizer's own offsets, whatever it splits or changes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.adapt.data.labels import names_of, number_of
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.texts import TextReader, Tokens
from windlass.build.training.data.batches import IGNORE
from windlass.core.errors import InputError

_COLUMNS = (("tokens", "tags"), ("tokens", "ner_tags"), ("words", "tags"), ("words", "labels"), ("tokens", "labels"))


@dataclass(frozen=True, slots=True)
class Tagged:
    words: tuple[str, ...]
    tags: tuple[int, ...]


def words_of(row: Row) -> str:
    """As the tokenizer reads them. Raises `InputError` as `tagged_rows`."""
    return " ".join(_pair(row)[0])


def tagged_rows(rows: Sequence[Row], given: Sequence[str] = ()) -> tuple[list[Tagged], tuple[str, ...]]:
    """The words and tags of all rows, and the names of the tags, in order.

    Raises `InputError` naming the row whose words and tags are no lists of equal length, or of whose tags one is
    unknown or out of range (as `labels_of`).
    """
    found = [_pair(row) for row in rows]
    names = names_of([(row, tag) for row, (_, tags) in zip(rows, found, strict=True) for tag in tags], given)
    if len(names) < 2:
        raise InputError(f"All words have the tag '{''.join(names)}', so there is nothing to tell apart.")
    known = {name: number for number, name in enumerate(names)}
    return [
        Tagged(tuple(words), tuple(number_of(row, tag, known, given) for tag in tags))
        for row, (words, tags) in zip(rows, found, strict=True)
    ], names


def aligned(
    reader: TextReader, examples: Sequence[Tagged], rows: Sequence[Row]
) -> tuple[list[tuple[Tokens, NDArray[np.int64]]], int]:
    """Tokens of each example and the tag of each token, `IGNORE` behind the first one of a word; and how many examples
    were cut, which then lack their last words.

    Raises `InputError` naming the row that is too long, or of which a word leaves no token.
    """
    encodings, cut = reader.encodings([" ".join(example.words) for example in examples], rows, offsets=True)
    return [
        _one(encoding, example, row, number in cut)
        for number, (encoding, example, row) in enumerate(zip(encodings, examples, rows, strict=True))
    ], len(cut)


def _one(encoding: Any, example: Tagged, row: Row, cut: bool) -> tuple[Tokens, NDArray[np.int64]]:
    ends = np.cumsum([len(word) + 1 for word in example.words])  # each with the space behind it
    tags = np.full(len(encoding.ids), IGNORE, np.int64)
    done = -1
    for place, ((start, stop), special) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True)):
        if special or stop <= start:
            continue
        # By the last character: a token may hold the space before its word.
        word = int(np.searchsorted(ends, stop - 1, side="right"))
        if word > done:
            if word > done + 1:
                raise InputError(
                    f"{row.where}: the tokenizer reads nothing of word {done + 2}, {example.words[done + 1]!r}.",
                    "Leave the word out.",
                )
            tags[place], done = example.tags[word], word
    if done + 1 < len(example.words) and not cut:
        raise InputError(
            f"{row.where}: the tokenizer reads nothing of word {done + 2}, {example.words[done + 1]!r}.",
            "Leave the word out.",
        )
    return Tokens(np.array(encoding.ids, np.int64), np.array(encoding.type_ids, np.int64)), tags


def _pair(row: Row) -> tuple[list[str], list[Any]]:
    for words_in, tags_in in _COLUMNS:
        if words_in in row.values and tags_in in row.values:
            break
    else:
        raise InputError(
            f"{row.where}: the columns are {', '.join(map(str, row.values)) or 'none'}.",
            "Give `tokens` and `tags`: lists of words and of their tags.",
        )
    words, tags = _list(row, words_in), _list(row, tags_in)
    if len(words) != len(tags) or not words:
        raise InputError(f"{row.where}: there are {len(words)} words, but {len(tags)} tags.", "Each word needs one.")
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word.strip() or any(map(str.isspace, word)):
            raise InputError(
                f"{row.where}: {words_in}[{place}] is {json.dumps(word, default=str)[:80]}, but must be one word."
            )
    return words, tags


def _list(row: Row, column: str) -> list[Any]:
    value = row.values[column]
    if isinstance(value, str):  # a table of text has no lists
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise InputError(f"{row.where}: {column} is no list.", "Give a list of words, and a list of their tags.")
    return value
