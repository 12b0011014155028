"""A small world for tests of tuning: a workspace with a tiny pre-trained decoder, and rows to tune it on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.settings import TuneSettings
from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

WORDS = ("red", "blue", "green", "black", "white", "brown")
CONTEXT = 64


def make_home(home: Path, *, chat: bool = True, context: int = CONTEXT) -> Path:
    """The decoder is called `base` and knows a chat format, or only how to go on with a text."""
    texts = home / "texts"
    texts.mkdir()
    generator = random.Random(0)
    for number in range(20):
        (texts / f"{number}.txt").write_text(" ".join(generator.choices(WORDS, k=200)), encoding="utf-8")
    quick = {"model.depth": 1, "model.context": context, "schedule.steps": 5, "run.compile": "no", "data.batch": 4}
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        tokenizer = train_tokenizer(ws, corpus, 330, allow_smaller=True, chat_template=CHATML if chat else None)
        pretrain(ws, corpus, tokenizer, read_recipe(None, quick | {"run.name": "base"}), say=lambda line: None)
    return home


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def colours(generator: random.Random, count: int = 2) -> str:
    return " ".join(generator.choices(WORDS, k=count))


def echoes(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Conversations in which the assistant repeats the colours."""
    generator = random.Random(seed)
    said = [colours(generator) for _ in range(count)]
    return [{"messages": [{"role": role, "content": word} for role in ("user", "assistant")]} for word in said]


def asked(rows: Path | str, **changes: Any) -> TuneSettings:
    """Settings of a quick tuning; a change is named as `section__key`."""
    values = {
        "model.base": "base", "adapter.rank": 4, "data.dataset": str(rows), "data.batch": 4, "schedule.steps": 20,
        "optimizer.matrix_rate": 5e-3, "run.name": "tuned", "run.compile": "no", "run.precision": "fp32",
    }  # fmt: skip
    for name, value in changes.items():
        if name == "search":
            values |= {f"search.{key}": one for key, one in value.items()}
        else:
            values[name.replace("__", ".")] = value
    return TUNING.read(None, values)
