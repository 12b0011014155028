"""Extractive question answering: where in a text the answer to a question stands, or that it does not.

A text that is longer than the model reads is read through windows that overlap; what counts against an answer is the
window that says least that there is none (Devlin et al., arXiv 1810.04805, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from windlass.build.transformer.classifier import Task
from windlass.build.transformer.spans import best_span
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import Extract
from windlass.serve.encoders.cross_encoder import Judge
from windlass.serve.encoders.reading import read_json

_OVERLAP = 128
"""Tokens, or a quarter of what the model reads."""
THRESHOLD = "no_answer_threshold"
"""Key of `config.json`, where a tuning on questions without an answer writes what it found to be best."""


class SpanReader(Judge):
    """Implements `core.protocols.Extracting`: a question answering model of a Hugging Face folder."""

    task: Task = "spans"
    threshold = -math.inf
    """Answers with no larger a margin are not given."""

    @classmethod
    def from_folder(cls, folder: Path, *, threshold: float | None = None, **settings: Any) -> Self:
        """`threshold`: left out, that of the folder; where it has none, as with a model that saw no question without an
        answer, every text has one."""
        made = super().from_folder(folder, **settings)
        if threshold is None:
            threshold = read_json(folder / "config.json").get(THRESHOLD, -math.inf)
            if not isinstance(threshold, int | float) or math.isnan(threshold):
                raise InputError(f"{folder / 'config.json'}: {THRESHOLD} is {threshold!r}, but must be a number.")
        made.threshold = float(threshold)
        made.digest = sha256_json({"model": made.digest, "threshold": repr(made.threshold)})
        made._reader.slide(min(_OVERLAP, made._reader.limit // 4))
        return made

    def find(self, question: str, texts: Sequence[str]) -> list[Extract | None]:
        """The likeliest answer in each text, None where that is no answer. Raises `InputError` for a question that is
        blank or leaves no room for a text."""
        if not question.strip():
            raise InputError("The question is empty.")
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
        extracts = [Extract(text, at, score - none) for (score, text, at), none in zip(found, nothing, strict=True)]
        return [one if one.text and one.margin > self.threshold else None for one in extracts]
