"""Texts as an encoder reads them in training: whole ones, one after another in one row, so that nothing is padding.

What a text gives does not depend on its neighbours (`Encoder.hidden`), so a step is the same as with padded rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.columns import Text
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.sections import Overlong
from windlass.build.training.data.batches import IGNORE, Batch, Number
from windlass.core.errors import InputError


class Tokens(NamedTuple):
    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    """0 for the first and 1 for the second text of a pair."""


@dataclass(frozen=True, slots=True)
class TextReader:
    """The tokenizer of one encoder."""

    tokenizer: Any
    limit: int
    """Tokens of a text that the model reads, or is asked to read."""
    overlong: Overlong
    """What happens to longer ones."""

    @classmethod
    def of(cls, opened: Opened, *, whole: bool = False) -> TextReader:
        """`whole`: the texts are embedded, for which models may be made to read less."""
        settings = opened.settings
        most = min(opened.config.context, _made_for(opened.base, whole))
        limit = settings.model.context or most
        if limit > most:
            raise InputError(
                f"model.context is {limit:,}, but {opened.base_name} reads {most:,} tokens.", "Make it smaller."
            )
        return cls(opened.tokenizer, limit, settings.data.overlong)

    def fitting(self, rows: Sequence[Row], texts_of: Callable[[Row], Sequence[Text]]) -> tuple[list[Row], list[str]]:
        """The rows none of whose texts is too long, where such are to be left out, else all; and a line about those
        that were left out. Raises `InputError` when all are too long."""
        if self.overlong != "drop":
            return list(rows), []
        self.tokenizer.no_truncation()
        lengths = [max(len(one.ids) for one in self.tokenizer.encode_batch_fast(list(texts_of(row)))) for row in rows]
        kept = [row for row, length in zip(rows, lengths, strict=True) if length <= self.limit]
        if not kept:
            raise InputError(f"All {len(rows):,} rows are longer than the {self.limit:,} tokens that the model reads.")
        line = (
            f"left out: {len(rows) - len(kept):,} of {len(rows):,} rows, longer than {self.limit:,} tokens (the "
            f"longest has {max(lengths):,})"
        )
        return kept, [line] if len(kept) < len(rows) else []

    def read(self, texts: Sequence[Text], rows: Sequence[Row]) -> tuple[list[Tokens], int]:
        """The texts as tokens, and how many of them were cut. Raises `InputError` naming the row of the first text that
        is too long, or of which no token is read."""
        encodings, cut = self.encodings(texts, rows)
        for encoding, row in zip(encodings, rows, strict=True):
            if not encoding.ids:
                raise InputError(f"{row.where}: the tokenizer reads nothing of the text.", "Leave the row out.")
        return [Tokens(np.array(one.ids, np.int64), np.array(one.type_ids, np.int64)) for one in encodings], len(cut)

    def encodings(
        self, texts: Sequence[Text], rows: Sequence[Row], *, offsets: bool = False
    ) -> tuple[list[Any], set[int]]:
        """What the tokenizer makes of the texts, and the numbers of those that were cut. Raises `InputError` naming the
        row of the first text that is too long, or of which nothing would be left."""
        encode = self.tokenizer.encode_batch if offsets else self.tokenizer.encode_batch_fast
        self.tokenizer.no_truncation()
        found = encode(list(texts))
        long = [number for number, encoding in enumerate(found) if len(encoding.ids) > self.limit]
        if long and self.overlong != "cut":
            raise InputError(
                f"{rows[long[0]].where}: the text has {len(found[long[0]].ids):,} tokens, but the model reads "
                f"{self.limit:,}; {len(long):,} of {len(texts):,} are too long.",
                "Leave them out with --set data.overlong=drop, or have them cut with data.overlong=cut.",
            )
        if long:
            self.tokenizer.enable_truncation(self.limit)
            for number, encoding in zip(long, encode([texts[number] for number in long]), strict=True):
                if len(encoding.ids) > self.limit or set(encoding.sequence_ids) < set(found[number].sequence_ids):
                    self.tokenizer.no_truncation()
                    raise InputError(
                        f"{rows[number].where}: in {self.limit:,} tokens there is no room for the text beside the "
                        "tokenizer's own.",
                        "Make model.context larger, or leave it out.",
                    )
                found[number] = encoding
            self.tokenizer.no_truncation()
        return found, set(long)


def _made_for(folder: Path, whole: bool) -> int:
    limit = int(_settings(folder / "tokenizer_config.json").get("model_max_length") or 1 << 30)
    asked = _settings(folder / "sentence_bert_config.json").get("max_seq_length") if whole else None
    return min(limit, int(asked or limit))


def reads_types(opened: Opened) -> bool:
    """Whether the model tells the two texts of a pair apart by types of segments."""
    names = _settings(opened.base / "tokenizer_config.json").get("model_input_names") or ["token_type_ids"]
    return opened.config.token_types > 1 and "token_type_ids" in names


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).", "Fetch the model again.") from error
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch(Batch):
    """One row of texts. `targets_BT` is one row too: a value for each example, or for each token."""

    lengths_N: Tensor
    """Of the texts in the row, which stand there by length."""
    places_N: Tensor
    """Where in the row each text of the examples stands, in the order of the examples."""
    groups_E: Tensor
    """Texts of each example."""
    alike_N: Tensor
    """Equal numbers for equal texts, in the order of the examples."""
    types_BT: Tensor | None = None

    @property
    def counted(self) -> int:
        """Targets that count; where they are fractions, the examples."""
        if self.targets_BT.is_floating_point():
            return len(self.groups_E)
        return int((self.targets_BT != IGNORE).sum())

    @property
    def sequences(self) -> int:
        return len(self.lengths_N)

    @property
    def lengths(self) -> list[int]:
        found: list[int] = self.lengths_N.tolist()
        return found


@dataclass(frozen=True, slots=True)
class Example:
    texts: Sequence[Tokens]
    targets: NDArray[Any]
    """(values, ...), of which a batch is the concatenation."""

    def __len__(self) -> int:
        return sum(len(text.ids) for text in self.texts)


class TextExamples:
    """Implements `training.data.batches.Examples`."""

    def __init__(self, examples: Sequence[Example], *, typed: bool = False, by_token: bool = False) -> None:
        """`typed`: the model knows types of segments. `by_token`: there is a target for each token, so that they follow
        their texts in the row."""
        self._examples, self._typed, self._by_token = examples, typed, by_token

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> Example:
        return self._examples[number]

    @property
    def tokens(self) -> int:
        return sum(map(len, self._examples))

    def batch(self, numbers: Sequence[Number]) -> TextBatch:
        chosen = [self._examples[number] for _, number in numbers]
        texts = [text for example in chosen for text in example.texts]
        order = sorted(range(len(texts)), key=lambda place: len(texts[place].ids))
        row = [texts[place] for place in order]
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order))
        seen: dict[bytes, int] = {}
        targets = np.concatenate([chosen[place].targets for place in (order if self._by_token else range(len(chosen)))])
        return TextBatch(
            torch.from_numpy(np.concatenate([text.ids for text in row]))[None],
            torch.from_numpy(targets)[None],
            lengths_N=torch.tensor([len(text.ids) for text in row]),
            places_N=torch.from_numpy(places),
            groups_E=torch.tensor([len(example.texts) for example in chosen]),
            alike_N=torch.tensor([seen.setdefault(text.ids.tobytes(), len(seen)) for text in texts]),
            types_BT=torch.from_numpy(np.concatenate([text.types for text in row]))[None] if self._typed else None,
        )
