"""Searches for a better prompt, shown like other experiments: the comparison on unseen items, and the candidates.

What the gate saw is kept in the artifact's card; the intervals of the two sides are made again from the scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.value import Prompt
from windlass.core.artifacts import Artifact
from windlass.core.records import ArtifactRecord
from windlass.core.scale import scale
from windlass.core.workspace import Workspace
from windlass.evaluate.experiment import Comparison
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.paired import differences, sign_flip_p
from windlass.loop.prompting.items import Item
from windlass.studio.difference import Changed, changes
from windlass.studio.experiment_rows import Row
from windlass.studio.web import Visit

KIND = "prompt-experiment"
EXTREMES = 12
"""Items shown with the largest gains, and as many with the largest losses."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One item and what became of it on both sides."""

    key: str
    item: Item | None
    """None: the data set is not in this workspace any more."""
    incumbent: float
    candidate: float
    answers: Sequence[Any]
    problems: Sequence[str]

    @property
    def gain(self) -> float:
        return self.candidate - self.incumbent


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of the search."""

    origin: str
    mean: float | None
    """On the items that choose; None: the provider failed on all."""
    items: int
    instructions: str
    examples: int


@dataclass(frozen=True, slots=True)
class PromptView:
    """A search as its page shows it. What lists need is called as in `experiments.View`."""

    record: ArtifactRecord
    decision: str
    reason: str
    rows: Sequence[Row]
    """One, or none when the provider failed on all items."""
    pairs: Sequence[Pair]
    """By gain, the largest first."""
    failed: int
    """Items left out because the provider failed on them."""
    pool: Sequence[Tried]

    primary = "score"

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def ref(self) -> str:
        return self.record.ref

    @property
    def judged(self) -> Sequence[Row]:
        return self.rows

    @property
    def card(self) -> Mapping[str, Any]:
        return self.record.card


def view(ws: Workspace, artifact: Artifact) -> PromptView:
    """Raises `KeyError`, `TypeError`, `ValueError` or `OSError` for a file that is not as it should be."""
    held = json.loads((artifact.path / "experiment.json").read_text(encoding="utf-8"))
    card = artifact.record.card
    items = _items(ws, artifact)
    pairs, failed = [], 0
    for row in held["rows"]:
        if row["incumbent"] is None or row["candidate"] is None:
            failed += 1
            continue
        answers = row.get("answers", [None, None])
        pairs.append(
            Pair(row["item"], items.get(row["item"]), row["incumbent"], row["candidate"], answers, row["problems"])
        )
    difference = None if card["difference"] is None else Interval.from_json(card["difference"])
    rows = [_row(pairs, difference, card["verdict"])] if pairs and difference is not None else []
    pool = [Tried(**one) for one in held.get("pool", ())]
    return PromptView(
        artifact.record, card["verdict"], card["reason"], rows, sorted(pairs, key=lambda pair: -pair.gain), failed, pool
    )


def _row(pairs: Sequence[Pair], difference: Interval, decision: str) -> Row:
    before, after = [pair.incumbent for pair in pairs], [pair.candidate for pair in pairs]
    clusters = [pair.item.group if pair.item else pair.key for pair in pairs]
    old, new = (mean_interval(scores, clusters, difference.level) for scores in (before, after))
    better, worse = (sum(sign * pair.gain > 0 for pair in pairs) for sign in (1, -1))
    p_value = sign_flip_p(differences(before, after), clusters)
    comparison = Comparison("score", difference, better, worse, len(pairs) - better - worse, p_value, p_value)
    return Row(
        "score",
        "score",
        False,
        old,
        new,
        comparison,
        decision,
        scale([old.low, old.high, new.low, new.high]),
        scale([difference.low, difference.high, 0.0]),
    )


def _items(ws: Workspace, artifact: Artifact) -> dict[str, Item]:
    """By key; empty when the data set is gone."""
    dataset = ws.artifacts.find(artifact.parent("dataset"))
    if dataset is None:
        return {}
    lines = (dataset.path / "items.jsonl").read_text(encoding="utf-8").split("\n")
    found = [Item(**json.loads(line)) for line in lines if line]
    return {item.key: item for item in found}


def show(visit: Visit, found: PromptView) -> Response:
    sides = [(role, _prompt(visit.ws, found.record, role)) for role in ("incumbent", "candidate")]
    known: list[Prompt] = [prompts.read(artifact) for _, artifact in sides if artifact is not None]
    difference: list[Changed] | None = changes(*known) if len(known) == 2 else None
    return visit.page(
        "prompt_experiment.html",
        "experiments",
        view=found,
        sides=sides,
        changes=difference,
        wins=[pair for pair in found.pairs[:EXTREMES] if pair.gain > 0],
        losses=[pair for pair in found.pairs[: -EXTREMES - 1 : -1] if pair.gain < 0],
        parents=[(role, digest, visit.ws.store.artifact(digest)) for role, digest in found.record.parents],
        releases=[r for r in visit.ws.store.releases() if r.experiment == found.digest],
    )


def _prompt(ws: Workspace, record: ArtifactRecord, role: str) -> Artifact | None:
    """The prompt of the variant that played this role; None when it is not there any more."""
    digest = dict(record.parents).get(role)
    variant = None if digest is None else ws.artifacts.find(digest)
    of = [] if variant is None else [parent for part, parent in variant.record.parents if part == prompts.KIND]
    return ws.artifacts.find(of[0]) if of else None
