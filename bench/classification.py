"""What tuning an encoder brings: MiniLM on public sets, by linear probe, LoRA and full fine-tuning, on the same split.

    python -m bench.classification --data trec polarity hate

The probe is a logistic regression on the vectors that the untouched model gives, its regularisation chosen on the
training texts alone. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from bench._adapt_encoders import SEED
from bench._data import data_folder

from windlass.build.adapt.data.columns import text_in
from windlass.build.adapt.data.labels import labels_of
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import TextReader
from windlass.build.adapt.objectives.measures import macro_f1, wilson
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.serve.encoders.embedder import MiniLM

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"adapter.kind": "lora", "adapter.rank": 16, "adapter.merge": True, "optimizer.matrix_rate": 1e-3},
    "full": {},
}


def rows_in(name: str, most: int) -> list[dict[str, str]]:
    folder, rows = data_folder(), []
    if name == "hate":
        with gzip.open(folder / "safety/hate_offensive_tweets/labeled_data.csv.gz", "rt", encoding="utf-8") as file:
            rows = [{"text": row["tweet"], "label": row["class"]} for row in csv.DictReader(file)]
    else:
        path, label = {
            "trec": ("classification/trec_qc/train.jsonl.gz", "coarse"),
            "polarity": ("classification/sentence_polarity/sentence_polarity.jsonl.gz", "label"),
        }[name]
        with gzip.open(folder / path, "rt", encoding="utf-8") as file:
            rows = [{"text": row["text"], "label": row[label]} for row in map(json.loads, file)]
    order = np.random.default_rng(SEED).permutation(len(rows))[:most]
    return [rows[number] for number in order]


def probe(ws: Workspace, settings: Any) -> tuple[float, float, int, int]:
    """Seconds, macro F1, how many are right, and of how many."""
    from sklearn.linear_model import LogisticRegressionCV

    began = time.perf_counter()
    opened = open_inputs(ws, settings)
    rows = opened.rows()
    labels, texts = labels_of(rows), [text_in(row) for row in rows]
    tokens, _ = TextReader.of(opened).read(texts, rows)
    keys = [one.ids.tobytes() for one in tokens]
    train, heldout = split(keys, settings.data.heldout, settings.run.seed, labels.chosen)
    right = np.array([chosen[0] for chosen in labels.chosen])
    vectors = MiniLM.load().embed([text for text in texts if isinstance(text, str)]).vectors
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegressionCV(Cs=[0.3, 1, 3, 10, 30], cv=3, max_iter=300).fit(vectors[train], right[train])
    found = model.predict(vectors[heldout])
    good = int((found == right[heldout]).sum())
    return time.perf_counter() - began, macro_f1(right[heldout], found, len(labels.names)), good, len(heldout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["trec"], choices=("trec", "polarity", "hate"))
    parser.add_argument("--methods", nargs="+", default=["probe", *METHODS], choices=("probe", *METHODS))
    parser.add_argument("--most", type=int, default=1 << 30, help="rows of each set, chosen at random")
    parser.add_argument("--epochs", type=float, default=4.0)
    args = parser.parse_args()
    lines, found = [], {}
    for name in args.data:
        with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows_in(name, args.most)), encoding="utf-8")
            common = {"data.dataset": str(path), "data.epochs": args.epochs, "data.overlong": "cut", "run.seed": SEED}
            for method in args.methods:
                if method == "probe":
                    seconds, macro, good, count = probe(ws, TUNING.read("classify", common))
                    share, (low, high) = good / count, wilson(good, count)
                else:
                    began = time.perf_counter()
                    card = tune(ws, TUNING.read("classify", common | METHODS[method]), say=lambda line: None).card
                    seconds, macro = time.perf_counter() - began, card["heldout_macro_f1"]
                    share = card["heldout_accuracy"]
                    low, high = card["heldout_accuracy_low"], card["heldout_accuracy_high"]
                found[f"{name} {method}"] = share
                lines.append(
                    (name, method, f"{share:.1%}", f"{low:.1%} to {high:.1%}", f"{macro:.3f}", f"{seconds:.0f} s")
                )
                print(*lines[-1], flush=True)
    print(table(("set", "method", "accuracy", "95 %", "macro F1", "time"), lines))
    print(json.dumps({"bench": "classification", **found}))


if __name__ == "__main__":
    main()
