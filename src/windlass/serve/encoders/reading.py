"""What encoders read: texts, alone or in pairs, as tokens, in batches that waste nothing.

A batch is one row of whole texts of like length, without padding (`build.transformer.encoder`), so what a text gives
does not depend on its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from windlass.core.errors import InputError
from windlass.core.files import sha256_file

Text = str | tuple[str, str]
"""A text, or two that are read as a pair."""

TOKENIZER = "tokenizer.json"

TOKENS_PER_BATCH = 2048
"""Enough to keep the matrix products busy, little enough that a layer's activations stay in the cache."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one text, each with the characters that it stands for."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Reader:
    """The tokenizer of one model folder. Safe to share between threads."""

    def __init__(self, name: str, digest: str, tokenizer: Tokenizer, limit: int) -> None:
        """`limit`: longer texts are cut to so many tokens (of a pair, the longer text first), which `cut` tells."""
        self.digest = digest
        self.limit = limit
        self._name = name
        self._tokenizer = tokenizer
        self._encode = tokenizer.encode_batch_fast
        tokenizer.no_padding()
        tokenizer.enable_truncation(limit)

    @classmethod
    def from_folder(cls, folder: Path, name: str, vocabulary: int, limit: int) -> Reader:
        """Raises `InputError` naming a tokenizer that is missing, broken, or of a model with another vocabulary."""
        path = present(folder / TOKENIZER)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"{path} is not a tokenizer ({error}).", "Fetch the model again.") from error
        if (words := tokenizer.get_vocab_size()) > vocabulary:
            raise InputError(
                f"{path} has {words} tokens, but the model knows {vocabulary}.", "They belong to different models."
            )
        return cls(name, sha256_file(path), tokenizer, limit)

    def read(self, texts: Sequence[Text], prompt: str = "") -> list[Encoding]:
        """Each text behind the prompt. Raises `InputError` naming the position of an entry that is not a text, or of
        which no token is read."""
        if isinstance(texts, str):
            raise InputError("A list of texts is wanted, but one text was given.", "Write [text].")
        for position, text in enumerate(texts):
            for part in text if isinstance(text, tuple) else (text,):
                _check(part, position)
        whole = [prompt + text for text in texts if isinstance(text, str)] if prompt else list(texts)
        encodings: list[Encoding] = self._encode(whole)
        for position, encoding in enumerate(encodings):
            if not encoding.ids:  # never so with BERT's tokenizers, which add a token at both ends
                raise InputError(
                    f"Text {position} is empty: {self._name} reads no token of it, so it has no vector.",
                    "Leave it out.",
                )
        return encodings

    def whole(self, text: str) -> Tokens:
        """All tokens of a text, however long, without those that are put around it. Raises `InputError` for half a
        character."""
        _check(text, 0)
        untouched = self._untouched
        parts = list(_parts(text))
        found = untouched.encode_batch([text[left:right] for left, right in parts], add_special_tokens=False)
        ids = np.array([token for encoding in found for token in encoding.ids], np.int64)
        places = [(a + left, b + left) for (left, _), e in zip(parts, found, strict=True) for a, b in e.offsets]
        starts, ends = np.array(places, np.int64).reshape(-1, 2).T
        return Tokens(ids, starts, ends)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The tokens that are put before and after a text."""
        encoding = self._tokenizer.encode("a")
        inside = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
        return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]

    @cached_property
    def _untouched(self) -> Tokenizer:
        """Cuts no text."""
        tokenizer = Tokenizer.from_str(self._tokenizer.to_str())
        tokenizer.no_truncation()
        return tokenizer

    def slide(self, overlap: int) -> None:
        """From now on, of a pair, the second text is read through windows that overlap so far, instead of cut: the
        first is what `read` gives, the others its `overflowing`."""
        self._encode = self._tokenizer.encode_batch  # which tells where in the text each token stands
        self._tokenizer.enable_truncation(self.limit, stride=overlap, strategy="only_second")

    def length(self, text: str) -> int:
        """Tokens of a text alone, at most the limit."""
        return len(self._tokenizer.encode(text).ids)

    def cut(self, encodings: Sequence[Encoding]) -> int:
        """How many of the texts were longer than the model reads."""
        return sum(len(e.ids) == self.limit and bool(e.overflowing) for e in encodings)


def batches(encodings: Sequence[Encoding]) -> Iterator[list[int]]:
    """All positions, shortest texts first, in runs of at most `TOKENS_PER_BATCH` tokens (or of one text, if that alone
    is longer)."""
    batch: list[int] = []
    tokens = 0
    for i in sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids)):
        length = len(encodings[i].ids)
        if batch and tokens + length > TOKENS_PER_BATCH:
            yield batch
            batch, tokens = [], 0
        batch.append(i)
        tokens += length
    if batch:
        yield batch


_PART = 50_000
"""Characters that are tokenized in one piece: tokenizers keep a lot for each, and none looks across white space."""


def _parts(text: str) -> Iterator[tuple[int, int]]:
    left = 0
    while len(text) - left > _PART:
        space = next((i for i in range(left + _PART, left + _PART // 2, -1) if text[i].isspace()), left + _PART)
        yield left, space
        left = space
    yield left, len(text)


def longest_text(folder: Path, context: int) -> int:
    """Tokens that the model reads of a text: what it was made for, at most what its settings allow."""
    limit = context
    for file, field in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (path := folder / file).exists():
            limit = min(limit, int(read_json(path).get(field) or limit))
    return limit


def present(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path} is missing.", f"A model folder holds config.json, model.safetensors, {TOKENIZER}.")
    return path


def read_json(path: Path) -> Any:
    try:
        return json.loads(present(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).") from error


def _check(text: object, position: int) -> None:
    if not isinstance(text, str):
        raise InputError(f"Text {position} is of type {type(text).__name__}.", "Only texts can be read.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Text {position} holds half a character (a lone surrogate, at {error.start}).",
                "Decode the source with errors='replace'.",
            ) from None
