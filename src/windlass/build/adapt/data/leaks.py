"""Rows that an evaluation set holds too: learned from, they would make its figures worthless.

A row leaks when it is a row of the set, whatever case and punctuation, or when it shares a run of 13 words with one
(Brown et al. 2020, appendix C).
"""

from __future__ import annotations

from collections.abc import Sequence

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.wording import pieces_of, text_of
from windlass.build.corpus.decontamination import SHORTEST, Contamination, EvaluationText
from windlass.build.corpus.shingles import words


class Evaluation:
    """What is evaluated on, indexed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._whole = {key: row.where for row in rows if (key := _key(row))}
        texts = [EvaluationText(row.where, row.where, text) for row in rows for text in pieces_of(row)]
        long = [text for text in texts if len(words(text.text)) >= SHORTEST]
        self._runs = Contamination(long) if long else None
        self.what = f"{len(rows):,} rows were compared with, {len(texts) - len(long):,} texts only as whole rows"

    def leak(self, row: Row) -> str | None:
        """Where the evaluation set holds this row, in words; None where it does not."""
        same = self._whole.get(_key(row))
        if same is not None:
            return f"{row.where} is {same}"
        if self._runs is not None:
            for text in pieces_of(row):
                if found := self._runs.find(text):
                    return f"{row.where} shares {found[0].words} words with {found[0].item}"
        return None


def _key(row: Row) -> bytes:
    """The row's words; where it has none, such as one of emoji, its characters. Nothing at all is no row's key."""
    text = text_of(row)
    return words(text).tobytes() or "".join(text.split()).encode()
