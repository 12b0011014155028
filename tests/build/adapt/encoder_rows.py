"""Rows that tiny encoders can learn, one kind for each objective, in the words of `encoder_world`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from windlass.build.adapt.sections import (
    AdapterSettings,
    BaseSettings,
    TuneDataSettings,
    TuneObjectiveSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.adapt.settings import TuneSettings

ANIMALS, THINGS = ("cat", "bread", "violin"), ("pump", "water", "mat")


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_for(kind: str, count: int = 120) -> list[dict[str, Any]]:
    generator = random.Random(0)

    def filler(most: int = 6) -> str:
        return " ".join(generator.choices(("the", "old", "on", "a", "in"), k=generator.randint(1, most)))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        first = number % 2 == 0
        word = generator.choice(ANIMALS if first else THINGS)
        other = generator.choice(THINGS if first else ANIMALS)
        text = f"{filler()} {word} {filler()}"
        match kind:
            case "classify":
                rows.append({"text": text, "label": "animal" if first else "thing"})
            case "several":
                rows.append({"text": text, "labels": ["animal", "old"] if first else []})
            case "regress":
                rows.append({"text": text, "score": 70.0 + 10 * first})
            case "tag":
                words = text.split()
                rows.append({"tokens": words, "tags": ["B-X" if one == word else "O" for one in words]})
            case "extract":
                held = {"text": [word], "answer_start": [text.index(word)]}
                answers = held if number % 4 else {"text": [], "answer_start": []}
                rows.append({"question": f"{word} {number}", "context": text + f" {number}", "answers": answers})
            case "rank":
                rows.append({"query": f"{word} {filler()}", "positive": text, "negatives": [f"{filler()} {other}"]})
            case "pairs":
                rows.append(
                    {"query": f"{word}", "document": text if number % 3 else other, "label": int(number % 3 > 0)}
                )
            case "embed":
                rows.append({"query": f"{word} {filler()} {number}", "positive": text, "negatives": [other]})
            case "scored":
                rows.append({"sentence1": text, "sentence2": word if first else other, "score": float(first)})
    return rows


def asked(base: Path, rows: Path, kind: str, **changes: Any) -> TuneSettings:
    values: dict[str, Any] = {
        "model": BaseSettings(str(base)),
        "adapter": AdapterSettings("none"),
        "data": TuneDataSettings(str(rows), batch=8, heldout=0.2),
        "objective": TuneObjectiveSettings({"several": "classify", "pairs": "rank", "scored": "embed"}.get(kind, kind)),
        "optimizer": TuneOptimizerSettings(matrix_rate=3e-3),
        "schedule": TuneScheduleSettings(steps=3),
        "run": TuneRunSettings(name="tuned", precision="fp32", checkpoint_steps=100),
    }
    return TuneSettings(**(values | changes))
