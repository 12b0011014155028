"""What tuning an encoder brings: MiniLM on public sets, by linear probe, LoRA and full fine-tuning, on the same split.

    python -m bench.classification --data trec polarity hate

A fifth of each set is the test, drawn by label; no method sees it before it is measured, once. The probe is a logistic
regression on the vectors that the untouched model gives, its regularisation chosen by cross-validation on the other
texts. The tuned models are those of the recipes, with a twentieth of the other texts held out, and answer from the
folder that was stored. Intervals are Wilson's, 95 %; methods are compared text by text, by McNemar's test.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench._data import data_folder
from numpy.typing import NDArray

from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.objectives.measures import macro_f1, wilson
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.paired import mcnemar_mid_p
from windlass.serve.encoders.cross_encoder import TextClassifier
from windlass.serve.encoders.embedder import MiniLM

SEED, TEST, HELD_OUT = 0, 0.2, 0.05
Row = dict[str, str]
Method = Callable[[Sequence[Row], Sequence[str], argparse.Namespace], list[str]]
"""What it says of the texts after it learned from the rows."""


def rows_in(name: str) -> list[Row]:
    folder = data_folder()
    if name == "hate":
        with gzip.open(folder / "safety/hate_offensive_tweets/labeled_data.csv.gz", "rt", encoding="utf-8") as file:
            return [{"text": row["tweet"], "label": row["class"]} for row in csv.DictReader(file)]
    path, label = {
        "trec": ("classification/trec_qc/train.jsonl.gz", "coarse"),
        "polarity": ("classification/sentence_polarity/sentence_polarity.jsonl.gz", "label"),
    }[name]
    with gzip.open(folder / path, "rt", encoding="utf-8") as file:
        return [{"text": row["text"], "label": row[label]} for row in map(json.loads, file)]


def probe(train: Sequence[Row], texts: Sequence[str], args: argparse.Namespace) -> list[str]:
    from sklearn.linear_model import LogisticRegressionCV

    minilm = MiniLM.load()
    known, asked = minilm.embed([row["text"] for row in train]).vectors, minilm.embed(texts).vectors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(Cs=[0.3, 1, 3, 10, 30, 100], cv=3, max_iter=300)
        model.fit(known, [row["label"] for row in train])
    return [str(one) for one in model.predict(asked)]


def tuned(recipe: str) -> Method:
    def method(train: Sequence[Row], texts: Sequence[str], args: argparse.Namespace) -> list[str]:
        with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf-8")
            asked: dict[str, Any] = {
                "data.dataset": str(path),
                "data.heldout": HELD_OUT,
                "data.overlong": "drop",
                "run.seed": SEED,
            }
            if args.epochs is not None:
                asked["data.epochs"] = args.epochs
            model = TextClassifier.from_folder(tune(ws, TUNING.read(recipe, asked)).path)
            return [model.labels[one] for one in model.classify(texts).probabilities.argmax(1)]

    return method


METHODS: dict[str, Method] = {"probe": probe, "LoRA": tuned("classify-lora"), "full": tuned("classify")}


def measured(name: str, method: str, args: argparse.Namespace) -> tuple[tuple[str, ...], NDArray[np.bool_]]:
    """A line of the table, and which test texts were right."""
    rows = rows_in(name)
    train, test = split([row["text"].lower() for row in rows], TEST, SEED, [row["label"] for row in rows])
    began = time.perf_counter()
    chosen = np.random.default_rng(SEED).permutation(train)[: args.most]
    said = METHODS[method]([rows[number] for number in chosen], [rows[number]["text"] for number in test], args)
    seconds = time.perf_counter() - began
    names = sorted({row["label"] for row in rows})
    right, found = (np.array([names.index(one) for one in some]) for some in ([rows[n]["label"] for n in test], said))
    good = right == found
    low, high = wilson(int(good.sum()), len(good))
    macro = macro_f1(right, found, len(names))
    line = (name, method, f"{good.mean():.1%}", f"{low:.1%} to {high:.1%}", f"{macro:.3f}", f"{seconds:.0f} s")
    return line, good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["trec"], choices=("trec", "polarity", "hate"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--most", type=int, help="texts to learn from, drawn at random; default: all")
    parser.add_argument("--epochs", type=float, help="default: the recipe's")
    parser.add_argument("--keep", type=Path, help="a folder for which test texts were right, to compare further runs")
    args = parser.parse_args()
    lines, compared, shares = [], [], {}
    for name in args.data:
        right = {
            path.stem.partition(" ")[2]: np.load(path) for path in sorted((args.keep or Path()).glob(f"{name} *.npy"))
        }
        for method in args.methods:
            line, right[method] = measured(name, method, args)
            print(*line, flush=True)
            lines.append(line)
            shares[f"{name} {method}"] = float(right[method].mean())
            if args.keep is not None:
                args.keep.mkdir(parents=True, exist_ok=True)
                np.save(args.keep / f"{name} {method}.npy", right[method])
        for one, other in itertools.combinations(right, 2):
            gain, p = right[other].mean() - right[one].mean(), mcnemar_mid_p(right[one], right[other])
            compared.append((name, f"{other} - {one}", f"{gain:+.1%}", f"{p:.2g}"))
    print(table(("set", "method", "accuracy", "95 %", "macro F1", "time"), lines))
    print(table(("set", "difference", "accuracy", "p"), compared))
    print(json.dumps({"bench": "classification", **shares}))


if __name__ == "__main__":
    main()
