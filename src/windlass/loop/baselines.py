"""A trained model beside its baselines: the same held-out bytes, the same training text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from windlass.build.corpus import training_text
from windlass.build.tokenizer import load_tokenizer
from windlass.core.artifacts import Artifact
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.compression import Baseline, compression_baselines
from windlass.evaluate.ngram import Symbols


def baselines_of(ws: Workspace, model: Artifact, kinds: Collection[str] | None = None) -> list[Baseline]:
    """The baselines for the corpus and tokenizer that the model was made from; `kinds` as it was trained with."""
    corpus = ws.artifacts.get(model.parent("corpus"))
    tokenizer = load_tokenizer(ws.artifacts.get(model.parent("tokenizer")))

    def encode(texts: Sequence[str]) -> list[Symbols]:
        encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    return compression_baselines(
        list(training_text(corpus, "train", kinds)),
        list(training_text(corpus, "heldout", kinds)),
        encode=encode,
        alphabet=tokenizer.get_vocab_size(),
    )


def comparison(ws: Workspace, model: Artifact, kinds: Collection[str] | None = None) -> str:
    """A table of held-out bits per byte, best first, with what exactly was measured."""
    ours = Baseline(model.ref, float(model.card["heldout_bpb"]), "every held-out token and document end, once")
    rows = sorted([ours, *baselines_of(ws, model, kinds)], key=lambda row: row.bits_per_byte)
    return table(
        ("model", "bits per byte", "measured on the held-out text"),
        [(row.name, f"{row.bits_per_byte:.3f}", row.how) for row in rows],
    )
