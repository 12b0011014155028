"""Curation: the rows of a dataset without those that teach nothing or the wrong thing, each removal with its reason.

What is left is a dataset of its own, with the one it came from as its parent and `removed.jsonl` beside its rows, so
that what a model learned from can be looked at, and the same rows and settings make the same digest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from windlass.build.adapt.data.diversity import Vectors, hashed, spread_out
from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.twins import twins
from windlass.build.adapt.data.wording import text_of
from windlass.build.adapt.sections import CurateSettings
from windlass.build.corpus import pii
from windlass.build.corpus.quality import PRESETS, refusal
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.readers import canonical
from windlass.core.workspace import Workspace


class Removed(NamedTuple):
    row: Row
    reason: str
    detail: str


class Curated(NamedTuple):
    rows: list[Row]
    removed: list[Removed]
    masked: Counter[str]
    """How much personal data of each kind gave way to a placeholder."""

    def lines(self) -> list[str]:
        """For the person who watches."""
        reasons = Counter(one.reason for one in self.removed)
        return [
            f"curated: {len(self.rows):,} of {len(self.rows) + len(self.removed):,} rows are kept",
            *(f"  left out: {count:,} {reason}" for reason, count in reasons.most_common()),
            *(f"  masked: {count:,} {kind}" for kind, count in self.masked.most_common()),
        ]


def curate(
    rows: Sequence[Row], settings: CurateSettings, evaluation: Evaluation | None = None, vectors: Vectors = hashed
) -> Curated:
    """Cheap rules first, those that compare rows with each other last. `vectors`: what diversity is measured in.

    Raises `InputError` when no row is left.
    """
    removed: list[Removed] = []
    kept = list(rows)
    rules: list[tuple[str, Callable[[Row], str | None]]] = [
        ("that an evaluation set holds too", lambda row: evaluation.leak(row) if evaluation is not None else None),
        ("too short or too long", lambda row: _length(row, settings)),
        ("of poor quality", lambda row: _quality(row, settings)),
    ]
    if settings.pii == "drop":
        rules.append(("with personal data", _personal))
    for reason, rule in rules:
        kept = _without(kept, reason, [rule(row) for row in kept], removed)
    masked: Counter[str] = Counter()
    if settings.pii == "mask":
        kept = [Row(row.where, _masked(row.values, masked)) for row in kept]
    if settings.near is not None:
        told: list[str | None] = [None] * len(kept)
        for twin in twins([text_of(row) for row in kept], settings.near):
            told[twin.number] = f"{twin.reason} of {kept[twin.of].where}, similarity {twin.similarity:.2f}"
        kept = _without(kept, "that repeat another one", told, removed)
    if settings.most is not None and len(kept) > settings.most:
        chosen = set(spread_out(vectors([text_of(row) for row in kept]), settings.most))
        told = [None if number in chosen else "nearest to what is kept" for number in range(len(kept))]
        kept = _without(kept, "that add least to the others", told, removed)
    if not kept:
        reasons = ", ".join(f"{n:,} {why}" for why, n in Counter(one.reason for one in removed).most_common())
        raise InputError(f"data.curate leaves no row: {reasons}.", "Loosen the rule that removed most.")
    return Curated(kept, removed, masked)


def store_curated(
    ws: Workspace, found: Curated, settings: CurateSettings, source: Artifact | None, name: str
) -> Artifact:
    """What is left as an artifact of kind `dataset`, its removals beside it."""
    with ws.artifacts.build("dataset", name) as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(_line(row.values) for row in found.rows)
        with (draft.path / "removed.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(
                _line({"reason": why, "detail": detail, **row.values}) for row, why, detail in found.removed
            )
        if source is not None:
            draft.add_parent("dataset", source)
        reasons = Counter(one.reason for one in found.removed)
        draft.card = {
            "description": f"Rows of {'a file' if source is None else source.ref} that curation kept",
            "items": len(found.rows),
            "removed": dict(reasons.most_common()),
            "masked": dict(found.masked.most_common()),
            "settings": asdict(settings),
            "licence": None if source is None else source.card.get("licence"),
        }
    return draft.done


def _without(rows: list[Row], reason: str, told: Sequence[str | None], removed: list[Removed]) -> list[Row]:
    """The rows about which nothing is told; the others are removed for this reason."""
    removed += [Removed(row, reason, detail) for row, detail in zip(rows, told, strict=True) if detail is not None]
    return [row for row, detail in zip(rows, told, strict=True) if detail is None]


def _length(row: Row, settings: CurateSettings) -> str | None:
    size = len(text_of(row))
    if size < settings.min_chars:
        return f"{size:,} characters, at least {settings.min_chars:,} wanted"
    if settings.max_chars is not None and size > settings.max_chars:
        return f"{size:,} characters, at most {settings.max_chars:,} wanted"
    return None


def _quality(row: Row, settings: CurateSettings) -> str | None:
    refused = refusal(canonical(text_of(row)), PRESETS[settings.quality])
    return None if refused is None else ": ".join(refused)


def _personal(row: Row) -> str | None:
    kinds = Counter(one.kind for one in pii.find(text_of(row)))
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common()) or None


def _masked(value: Any, masked: Counter[str]) -> Any:
    """The value with a placeholder for personal data in each of its texts."""
    if isinstance(value, str):
        found = pii.find(value)
        masked.update(one.kind for one in found)
        return pii.mask(value, found)
    if isinstance(value, Mapping):
        return {key: _masked(item, masked) for key, item in value.items()}
    return [_masked(item, masked) for item in value] if isinstance(value, list) else value


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, default=str) + "\n"
