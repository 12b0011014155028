"""The small decoder that the proofs of use begin with: a corpus, a tokenizer and a model, made by windlass from the
public data, or found in the workspace where an earlier call has made them.

A third of the text is like what the proofs ask for later: prompts with their answers, problems, dialogues, schemas, all
without the held-out part; the rest are novels, technical pages and reviews.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench._proof_data import write_prose

from windlass.build.corpus import build_corpus, corpus_settings, parts_of
from windlass.build.tokenizer import train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.core.artifacts import Artifact
from windlass.core.errors import NotFound
from windlass.core.workspace import Workspace

CORPUS, TOKENIZER, MODEL = "proof-text", "proof-tokenizer", "proof-base"
VOCABULARY, DEPTH, CONTEXT = 4096, 4, 768
WEIGHTS = {
    "novels": 0.2, "pages": 0.15, "news": 0.15, "tasks": 0.27, "problems": 0.1, "dialogues": 0.1, "schemas": 0.03
}  # fmt: skip


def base(ws: Workspace, data: Path, minutes: float) -> Artifact:
    """The model, after so many minutes of training if it is made now."""
    if (made := _found(ws, MODEL)) is not None:
        return made
    settings = read_recipe(
        "decoder",
        {
            "model.depth": DEPTH,
            "model.context": CONTEXT,
            "data.corpus": CORPUS,
            "data.tokenizer": TOKENIZER,
            "schedule.minutes": minutes,
            "run.name": MODEL,
        },
    )
    corpus = _found(ws, CORPUS) or _corpus(ws, data)
    tokenizer = _found(ws, TOKENIZER) or train_tokenizer(ws, corpus, VOCABULARY, chat_template=CHATML, name=TOKENIZER)
    return pretrain(ws, corpus, tokenizer, settings)


def _corpus(ws: Workspace, data: Path) -> Artifact:
    with tempfile.TemporaryDirectory() as scratch:
        write_prose(data, Path(scratch))
        sources = [{"path": f"{scratch}/{name}.jsonl", "weight": weight} for name, weight in WEIGHTS.items()]
        settings = corpus_settings(None, {"quality": "none", "heldout": 0.02, "near": 0.9, "sources": sources})
        return build_corpus(ws, parts_of(settings), settings, name=CORPUS)


def _found(ws: Workspace, name: str) -> Artifact | None:
    try:
        return ws.artifacts.get(name)
    except NotFound:
        return None
