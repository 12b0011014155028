"""What tuning an extractive reader brings: exact match and F1 on questions of articles that it never saw.

    python -m bench.answering

Trains for one epoch on `_answering_data.gaps`, then on `learned`, reads the test questions as retrieval does, from the
stored folder, and compares it with the sentence of the passage that shares most rare words with the question (BM25).
Questions without an answer are right when nothing is said; the threshold for that was chosen on held-out questions of
the training articles. Intervals are bootstrap over passages, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench._answering_data import SEED, Ranked, Row, gaps, learned, tests

from windlass.apply.rag.sentences import sentence_spans
from windlass.build.adapt.objectives.measures import answer_f1, exact_match
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.bootstrap import bootstrap_mean
from windlass.evaluate.statistics.paired import paired_difference
from windlass.serve.encoders.span_reader import SpanReader

Answering = Callable[[Row], str]


def best_sentence(row: Row) -> str:
    """The baseline, which always says something."""
    context = row["context"]
    sentences = [context[start:stop] for start, stop in sentence_spans(context)]
    return sentences[Ranked(sentences).best(row["question"])[0]] if sentences else ""


def said_by(reader: SpanReader) -> Answering:
    def answer(row: Row) -> str:
        (found,) = reader.find(row["question"], [row["context"]])
        assert found is None or row["context"][found.start :].startswith(found.text)
        return "" if found is None else found.text

    return answer


def judged(answers: Sequence[str], rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Exact match and F1 of each row."""
    right = [[one["text"] for one in row["answers"]] for row in rows]
    return {
        "exact": np.array([exact_match(*pair) for pair in zip(answers, right, strict=True)]),
        "f1": np.array([answer_f1(*pair) for pair in zip(answers, right, strict=True)]),
    }


def compared(name: str, rows: Sequence[Row], contenders: Mapping[str, Answering]) -> list[tuple[str, ...]]:
    """A line for each contender and kind of question."""
    answers = {who: [one(row) for row in rows] for who, one in contenders.items()}
    lines = []
    for kind, keep in (("answered", True), ("unanswerable", False), ("all", None)):
        part = [place for place, row in enumerate(rows) if keep is None or bool(row["answers"]) == keep]
        clusters = [rows[place]["context"] for place in part]
        scores = {
            who: judged([said[place] for place in part], [rows[place] for place in part])
            for who, said in answers.items()
        }
        base = next(iter(scores.values()))["f1"]
        for who, found in scores.items():
            shown = [_interval(values, clusters) for values in found.values()]
            gain = paired_difference(base, found["f1"], clusters)
            beyond = f"{100 * gain.difference.estimate:+.1f}, p {gain.p_value:.2g}" if found["f1"] is not base else ""
            lines.append((name, kind, f"{len(part):,}", who, *shown, beyond))
    return lines


def _interval(values: np.ndarray, clusters: Sequence[Any]) -> str:
    found = bootstrap_mean(values, clusters, seed=SEED)
    return f"{100 * found.estimate:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, help="default: the recipe's")
    parser.add_argument("--model", type=Path, help="measure this folder instead of training one")
    parser.add_argument("--keep", type=Path, help="a new folder for the trained reader")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
        model = args.model or _trained(ws, Path(folder), args.epochs)
        if args.keep is not None:
            shutil.copytree(model, args.keep)
        contenders: dict[str, Answering] = {
            "best sentence": best_sentence,
            "reader": said_by(SpanReader.from_folder(model)),
            "reader, always answering": said_by(SpanReader.from_folder(model, threshold=-math.inf)),
        }
        lines = [line for name, rows in tests().items() for line in compared(name, rows, contenders)]
    print(table(("set", "questions", "", "who", "exact match", "F1", "F1 beyond the first"), lines))


def _trained(ws: Workspace, folder: Path, epochs: float | None) -> Path:
    began, asked = time.perf_counter(), {"data.epochs": 1.0}
    for name, rows in (("gaps", gaps()), ("questions", learned())):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = tune(ws, TUNING.read("extract", {**asked, "data.dataset": str(path)})).path
        print(f"trained on {len(rows):,} {name}, {time.perf_counter() - began:.0f} s in all", flush=True)
        asked = {"model.base": str(found)} | ({} if epochs is None else {"data.epochs": epochs})
    return found


if __name__ == "__main__":
    main()
