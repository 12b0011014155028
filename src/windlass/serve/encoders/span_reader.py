"""Extractive question answering: where in a text the answer to a question stands, or that it does not.

A text that is longer than the model reads is read through windows that overlap; what counts against an answer is the
window that says least that there is none (Devlin et al., arXiv 1810.04805, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from windlass.build.transformer.classifier import Task
from windlass.build.transformer.spans import best_span
from windlass.core.errors import InputError
from windlass.serve.encoders.cross_encoder import Judge

_OVERLAP = 128
"""Tokens, or a quarter of what the model reads."""


@dataclass(frozen=True, slots=True)
class Span:
    text: str
    start: int
    """Its first character in the text that was read."""
    margin: float
    """How much likelier than no answer, in logits. Means nothing of a model that saw no question without one."""


class SpanReader(Judge):
    """A question answering model of a Hugging Face folder."""

    task: Task = "spans"

    @classmethod
    def from_folder(cls, folder: Any, **settings: Any) -> Self:
        made = super().from_folder(folder, **settings)
        made._reader.slide(min(_OVERLAP, made._reader.limit // 4))
        return made

    def find(self, question: str, texts: Sequence[str]) -> list[Span]:
        """The likeliest answer in each text. Raises `InputError` for a question that leaves no room for a text."""
        if self._reader.length(question) > self._reader.limit // 2:
            raise InputError(
                f"The question has more than half of the {self._reader.limit} tokens that {self.name} reads.",
                "Ask a shorter one.",
            )
        parts, owners = [], []
        for number, encoding in enumerate(self._reader.read([(question, text) for text in texts])):
            for part in (encoding, *encoding.overflowing):
                parts.append(part)
                owners.append(number)
        found = [(-np.inf, "", 0)] * len(texts)
        nothing = [np.inf] * len(texts)
        for batch, logits_T2 in self._passes(parts):
            rows = np.split(logits_T2, np.cumsum([len(parts[place].ids) for place in batch])[:-1])
            for place, row_T2 in zip(batch, rows, strict=True):
                part, owner = parts[place], owners[place]
                spans, sides = part.offsets, part.sequence_ids
                inside = [side == 1 and stop > start for side, (start, stop) in zip(sides, spans, strict=True)]
                score, first, last = best_span(row_T2, np.array(inside))
                nothing[owner] = min(nothing[owner], float(row_T2[0].sum()))
                if score > found[owner][0]:
                    start = spans[first][0]
                    found[owner] = (score, texts[owner][start : spans[last][1]], start)
        return [Span(text, start, score - none) for (score, text, start), none in zip(found, nothing, strict=True)]
