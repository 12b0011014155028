"""What is learned from: no text twice or nearly twice, no personal data, nothing that the comparison asks.

Exact and near repetitions and personal data are found by the code that cleans corpora (`build.corpus`). Each removal is
counted under its reason on the card of the dataset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from windlass.build.adapt.data.twins import twins
from windlass.build.corpus import pii
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.loop.harvesting.data_card import data_card
from windlass.loop.harvesting.harvest import load_harvest

NEAR = 0.8
"""Similarity of their words from which two texts count as one."""


@dataclass(frozen=True, slots=True)
class Sifted:
    kept: Sequence[int]
    """Positions of the texts that stay."""
    left_out: Counter[str]
    """How many others, by the reason in words that complete "3 questions ..."."""


def sift(texts: Sequence[str], apart: Sequence[str] = (), near: float = NEAR) -> Sifted:
    """The first of each group of texts that repeat each other, unless it repeats one of those to be kept `apart`."""
    left: Counter[str] = Counter()
    gone = set()
    for twin in twins([*apart, *texts], near):
        if twin.number >= len(apart):
            gone.add(twin.number - len(apart))
            left["like one that is kept for the comparison" if twin.of < len(apart) else "that repeat another one"] += 1
    return Sifted([number for number in range(len(texts)) if number not in gone], left)


def masked(text: str, counted: Counter[str]) -> str:
    """The text with a placeholder for each piece of personal data."""
    found = pii.find(text)
    counted.update(one.kind for one in found)
    return pii.mask(text, found)


def curate_questions(ws: Workspace, dataset: Artifact, exam: Artifact, *, near: float = NEAR) -> Artifact:
    """The harvested questions that are fit to learn from, as a dataset of its own below `dataset`.

    The same questions give the same digest. Raises `InputError` when none is left.
    """
    items = load_harvest(dataset)
    apart = [item.question for item in load_items(exam) if item.split != "harvest"]
    sifted = sift([item.question for item in items], apart, near)
    hidden: Counter[str] = Counter()
    kept = [replace(items[at], question=masked(items[at].question, hidden)) for at in sifted.kept]
    if not kept:
        reasons = ", ".join(f"{count:,} {why}" for why, count in sifted.left_out.most_common())
        raise InputError(f"No question of {dataset.ref} is left to learn from: {reasons}.", "Collect more feedback.")
    with ws.artifacts.build("dataset", f"{dataset.record.name}-curated") as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in kept)
        draft.add_parent("dataset", dataset)
        draft.add_parent("exam", exam)
        draft.card = {
            "description": f"Questions of {dataset.ref} that are fit to learn from.",
            "items": len(kept),
            "left_out": dict(sifted.left_out.most_common()),
            "masked": dict(hidden.most_common()),
            "synthetic": bool(dataset.card.get("synthetic")),
            "skipped": dataset.card.get("skipped", {}),
        }
        counted = {f"{len(kept):,} questions. Left out:": sifted.left_out, "Personal data masked:": hidden}
        use = "training retrieval on these documents."
        (draft.path / "README.md").write_text(
            data_card("Curated questions", draft.card, counted, use), encoding="utf-8"
        )
    return draft.done
