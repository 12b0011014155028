"""What a dataset is like, before hours are spent on it: lengths, duplicates, labels, languages, personal data, leaks.

Nothing is changed here; `curating.py` removes what this report finds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.twins import twins
from windlass.build.adapt.data.wording import format_of, text_of
from windlass.build.corpus import pii
from windlass.build.corpus.language import identify
from windlass.core.errors import MissingExtra
from windlass.core.tables import table

NEAR = 0.8
"""Similarity from which two rows are near duplicates."""
_LOOKED_AT = 5_000
"""Rows whose language and personal data are looked for, spread evenly over all."""
_BAR = 40
"""Characters of the longest bar of the histogram."""
_LABELS = 8
"""Labels that are named, the most frequent first."""


@dataclass(frozen=True, slots=True)
class Lengths:
    tokens: NDArray[np.int64]
    """Of each example."""
    learned: int | None = None
    """Tokens that are predicted and counted, of all examples together; None where the objective learns otherwise."""

    def quantile(self, share: float) -> int:
        return int(np.quantile(self.tokens, share, method="higher"))

    def histogram(self) -> str:
        """One line for each doubling of the length."""
        upper = [2**power for power in range(3, max(int(self.tokens.max()) - 1, 8).bit_length() + 1)]
        counts = np.diff([0, *(int((self.tokens <= bound).sum()) for bound in upper)])
        first = int(np.flatnonzero(counts)[0])
        rows = [
            (f"up to {bound:,}", f"{count:,}", "█" * math.ceil(_BAR * count / counts.max()))
            for bound, count in zip(upper[first:], counts[first:].tolist(), strict=True)
        ]
        return table(("tokens", "examples", ""), rows, right=(0, 1))


@dataclass(frozen=True, slots=True)
class DatasetReport:
    rows: list[tuple[str, str, str]]
    """What was looked at, what was found, and a remark."""
    lengths: Lengths
    duplicates: int
    near_duplicates: int
    labels: dict[str, int]
    leaks: int | None
    """Rows that share text with what is evaluated on; None where nothing was given to compare with."""

    def render(self) -> str:
        return f"{table(('dataset', 'found', ''), self.rows, right=(1,))}\n\n{self.lengths.histogram()}"


def describe(
    rows: Sequence[Row], lengths: Lengths, *, limit: int | None = None, evaluation: Evaluation | None = None
) -> DatasetReport:
    """`limit`: tokens of the longest row that the model reads. `evaluation`: texts that must not be trained on."""
    texts = [text_of(row) for row in rows]
    repeated = Counter(twin.reason for twin in twins(texts, NEAR))
    labels = Counter(str(row.values["label"]) for row in rows if "label" in row.values)
    some = [texts[place] for place in np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _LOOKED_AT), dtype=int))]
    found = [
        *((f"rows: {name}", f"{count:,}", "") for name, count in Counter(map(format_of, rows)).most_common()),
        *_length_rows(lengths, limit),
        ("exact duplicates", f"{repeated['exact duplicate']:,}", "of an earlier row"),
        ("near duplicates", f"{repeated['near duplicate']:,}", f"{NEAR:.0%} of their word shingles or more are shared"),
        *_label_rows(labels),
        *_language_rows(some, len(texts)),
        *_personal_rows(some, len(texts)),
    ]
    leaks: int | None = None
    if evaluation is None:
        found.append(("leakage into evaluation", "not looked for", "name evaluation sets in data.evaluation"))
    else:
        leaked = [why for row in rows if (why := evaluation.leak(row)) is not None]
        leaks = len(leaked)
        found.append(("leakage into evaluation", f"{leaks:,}", leaked[0] if leaked else evaluation.what))
    return DatasetReport(
        found, lengths, repeated["exact duplicate"], repeated["near duplicate"], dict(labels.most_common()), leaks
    )


def _length_rows(lengths: Lengths, limit: int | None) -> list[tuple[str, str, str]]:
    total = int(lengths.tokens.sum())
    shares = ", ".join(f"{share:.0%}: {lengths.quantile(share):,}" for share in (0.5, 0.9, 0.99))
    rows = [
        ("tokens", f"{total:,}", ""),
        ("tokens of an example", f"{lengths.quantile(0.5):,}", f"{shares}, longest {int(lengths.tokens.max()):,}"),
    ]
    if lengths.learned is not None:
        rows.append(("tokens learned", f"{lengths.learned:,}", f"{lengths.learned / total:.1%} of all"))
    if limit is not None:
        over = int((lengths.tokens > limit).sum())
        rows.append(
            (
                f"longer than {limit:,} tokens",
                f"{over:,}",
                "refused, unless data.overlong says otherwise" if over else "",
            )
        )
    return rows


def _label_rows(labels: Counter[str]) -> list[tuple[str, str, str]]:
    if not labels:
        return []
    total, most, least = labels.total(), max(labels.values()), min(labels.values())
    named = ", ".join(f"{name} {count / total:.1%}" for name, count in labels.most_common(_LABELS))
    more = ", ..." if len(labels) > _LABELS else ""
    return [("labels", f"{len(labels):,}", f"{named}{more}; the most frequent {most / least:.1f} times the rarest")]


def _language_rows(texts: Sequence[str], of: int) -> list[tuple[str, str, str]]:
    try:
        found = Counter(identify(text).code for text in texts)
    except MissingExtra as missing:
        return [("language", "not looked for", str(missing.hint))]
    named = ", ".join(f"{code} {count / len(texts):.1%}" for code, count in found.most_common(_LABELS))
    return [("languages", f"{len(found):,}", f"{named}{_sampled(len(texts), of)}")]


def _personal_rows(texts: Sequence[str], of: int) -> list[tuple[str, str, str]]:
    kinds: Counter[str] = Counter()
    touched = 0
    for text in texts:
        found = pii.find(text)
        touched += bool(found)
        kinds.update(one.kind for one in found)
    named = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or "none of those with a format"
    return [("rows with personal data", f"{touched:,}", f"{named}{_sampled(len(texts), of)}")]


def _sampled(looked_at: int, of: int) -> str:
    return "" if looked_at == of else f" (in {looked_at:,} of {of:,} rows)"
