"""Whole documents to read on with, new ones and some old ones among them.

A model that only reads text of a new kind forgets the old kind. Replaying a share of what it read before holds most of
it, and costs the new kind little (Ibrahim et al., arXiv 2403.08763: 5 % where the kinds are alike, 25 to 50 % where
they are far apart).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from windlass.build.adapt.data.columns import renamed, words_in
from windlass.build.adapt.data.rows import rows_of
from windlass.build.adapt.data.splitting import split_off
from windlass.build.adapt.sections import TuneDataSettings
from windlass.build.corpus.reading import training_text
from windlass.build.training.data.batches import Batch, CausalExamples, DataState, Number, take
from windlass.core.artifacts import Artifact


class Texts(NamedTuple):
    train: list[str]
    heldout: list[str]


def texts_of(
    rows: Path, corpus: Artifact | None, data: TuneDataSettings, seed: int, columns: Mapping[str, str] | None = None
) -> Texts:
    """The `text` of every row, some of them held out, or of the documents of a corpus, held out as it has them.

    Raises `InputError` naming a row without text, and when there is too little for both.
    """
    if corpus is not None and corpus.kind == "corpus":
        return Texts(*(list(training_text(corpus, split)) for split in ("train", "heldout")))
    found = [words_in(row, "text") for row in renamed(rows_of(rows), columns or {})]
    return Texts(*split_off(found, lambda text: text, data.heldout, seed, "documents"))


class ReplayedExamples:
    """Windows of new documents with windows of old ones among them. An epoch reads all that is new once, and as much of
    what is old as makes up its share, going on in the next epoch where it stopped in this."""

    def __init__(self, new: CausalExamples, old: CausalExamples, share: float, seed: int) -> None:
        """`share`: of what is trained on, the old part."""
        self._new, self._old, self._seed = new, old, seed
        self.replayed = max(1, round(len(new) * share / (1 - share))) if share else 0
        """Old windows in an epoch."""

    def __len__(self) -> int:
        return len(self._new) + self.replayed

    def batch(self, numbers: Sequence[Number]) -> Batch:
        return _joined([self._window(*number) for number in numbers])

    def _window(self, epoch: int, number: int) -> Batch:
        if number < len(self._new):
            return self._new.batch([(epoch, number)])
        read, at = divmod(epoch * self.replayed + number - len(self._new), len(self._old))
        return self._old.batch(take(self._old, DataState(read, at), 1, self._seed)[0])


def _joined(batches: Sequence[Batch]) -> Batch:
    inputs, targets, documents = zip(*((b.inputs_BT, b.targets_BT, b.documents_BT) for b in batches), strict=True)
    return Batch(torch.cat(inputs), torch.cat(targets), torch.cat(documents))
