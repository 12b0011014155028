"""A trained model beside its baselines: the same held-out bytes, the same training text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace

import numpy as np

from windlass.build.corpus import training_text
from windlass.build.tokenizer import load_tokenizer
from windlass.core.artifacts import Artifact
from windlass.core.files import write_json
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.compression import Baseline, compression_baselines
from windlass.evaluate.ngram import Symbols
from windlass.loop.training.counting import counted

NAME = "baselines"
MOST_BYTES = 24_000_000
"""Of training text that the baselines read, documents spread evenly over it: counting and xz take it all in memory."""


def baselines_of(ws: Workspace, model: Artifact, kinds: Collection[str] | None = None) -> list[Baseline]:
    """The baselines for the corpus and tokenizer that the model was made from; `kinds` as it was trained with."""
    corpus = ws.artifacts.get(model.parent("corpus"))
    tokenizer = load_tokenizer(ws.artifacts.get(model.parent("tokenizer")))

    def encode(texts: Sequence[str]) -> list[Symbols]:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    size = sum(len(text.encode()) for text in training_text(corpus, "train", kinds))
    train = _spread(training_text(corpus, "train", kinds), -(-size // MOST_BYTES))
    found = compression_baselines(
        train,
        list(training_text(corpus, "heldout", kinds)),
        encode=encode,
        alphabet=tokenizer.get_vocab_size(),
    )
    part = sum(len(text.encode()) for text in train)
    if part == size:
        return found
    note = f"; {part / 1e6:.1f} of {size / 1e6:.1f} MB of training text"
    return [replace(row, how=row.how + note) if "training text" in row.how else row for row in found]


def _spread(texts: Iterable[str], stride: int) -> list[str]:
    """Every `stride`-th text."""
    return list(itertools.islice(texts, 0, None, stride))


def measured(ws: Workspace, model: Artifact, kinds: Collection[str] | None = None) -> Artifact:
    """The baselines of a model as an artifact of kind `report`, measured once. Its card holds bits per byte by name."""
    for role, record in ws.store.children(model.digest):
        if role == "model" and record.kind == "report" and record.name == NAME:
            return ws.artifacts.get(record.digest)
    found = baselines_of(ws, model, kinds)
    with ws.artifacts.build("report", NAME, run=model.record.run) as draft:
        draft.add_parent("model", model)
        write_json(draft.path / "baselines.json", [asdict(baseline) for baseline in found])
        draft.card["baselines"] = {baseline.name: baseline.bits_per_byte for baseline in found}
    return draft.done


def comparison(ws: Workspace, model: Artifact, kinds: Collection[str] | None = None) -> str | None:
    """A table of the model beside its baselines, best first, with what exactly was measured; None where the model's
    objective has none. Bits per byte for a decoder; for the others see `counting`."""
    if "heldout_bpb" not in model.card:
        return counted(ws, model)
    report = measured(ws, model, kinds)
    others = [Baseline(**row) for row in json.loads((report.path / "baselines.json").read_text(encoding="utf-8"))]
    ours = Baseline(model.ref, float(model.card["heldout_bpb"]), "every held-out token and document end, once")
    rows = sorted([ours, *others], key=lambda row: row.bits_per_byte)
    return table(
        ("model", "bits per byte", "measured on the held-out text"),
        [(row.name, f"{row.bits_per_byte:.3f}", row.how) for row in rows],
    )
