"""Judges without a language model on people's labels, and whether their corrected means hold what people say.

    python -m bench.judges --data pii hate pairs

A small encoder (MiniLM, all weights) is tuned by `windlass tune classify` on a part of each set and judges a pool that
it never saw. Then 100 items of the pool are labelled, drawn 400 times anew, and four intervals of 95 % are asked for
the share of the whole pool that people pass: the judge's own, that of the 100 labels alone, and the two corrections. A
good interval holds the truth in 95 % of the draws and is short. `shifted` labels the same, and asks for a pool with
another share of passes: there only the judge's error rates carry over.

`pairs` learns which of two answers people prefer (HH-RLHF) and is asked for it again, and on LLMBar, whose pairs are
made so that looks mislead; beside it stands the judge that prefers the longer one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench._data import data_folder
from numpy.typing import NDArray

from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.judges.calibration import calibrate
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.statistics.agreement import krippendorff_alpha
from windlass.evaluate.statistics.intervals import Interval, mean_interval, wilson_interval
from windlass.evaluate.statistics.judged import prediction_powered, rogan_gladen
from windlass.loop.judging.asking import ask

SEED, DRAWS, LABELLED = 0, 400, 100
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """Texts of which people say that they pass or fail."""

    texts: Sequence[str]
    passes: Array
    levels: tuple[str, str]
    """What the level that fails and the one that passes are called."""
    people: float | None = None
    """Krippendorff's alpha of the people among themselves, where their votes are known."""


def pii() -> Labelled:
    """Passages that hold sensitive information, or do not."""
    with gzip.open(data_folder() / "safety/enterprise_pii/enterprise_pii.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [row["query"].partition("'''\n")[2].partition("\n'''")[0] for row in rows]
    return Labelled(texts, np.array([1.0 - row["gold"] for row in rows]), ("sensitive", "free"))


def hate() -> Labelled:
    """Tweets that three or more people called hateful or offensive, or neither."""
    path = data_folder() / "safety/hate_offensive_tweets/labeled_data.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    votes = [[0.0] * (int(row["count"]) - int(row["neither"])) + [1.0] * int(row["neither"]) for row in rows]
    most = max(map(len, votes))
    ratings = np.array([one + [np.nan] * (most - len(one)) for one in votes])
    passes = np.array([float(row["class"] == "2") for row in rows])
    return Labelled([row["tweet"] for row in rows], passes, ("offensive", "fine"), krippendorff_alpha(ratings))


SETS: Mapping[str, Callable[[], Labelled]] = {"pii": pii, "hate": hate}


def tuned(ws: Workspace, name: str, rows: Sequence[Mapping[str, str]], epochs: float) -> float:
    """Tunes a classifier of that name in the workspace; the seconds that it took."""
    path = ws.home / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    began = time.perf_counter()
    asked: dict[str, Any] = {
        "data.dataset": str(path), "data.epochs": epochs, "data.heldout": 0.05, "data.overlong": "cut",
        "run.seed": SEED, "run.name": name,
    }  # fmt: skip
    tune(ws, TUNING.read("classify", asked))
    return time.perf_counter() - began


def single(name: str, args: argparse.Namespace) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """A set of texts: how the judge stands to people, and how often each interval holds the truth."""
    found = SETS[name]()
    order = np.random.default_rng(SEED).permutation(len(found.texts))
    learned, asked = order[: args.learn], order[args.learn : args.learn + args.pool]
    called = [found.levels[int(found.passes[at])] for at in range(len(found.texts))]
    criterion = Criterion("good", "Is it?", (Level(found.levels[0], 0.0), Level(found.levels[1], 1.0)))
    judge = Judge(
        name, "As people do.", inputs=("output",), criteria=(criterion,), models=(f"classifier:{name}-judge",)
    )
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
        rows = [{"text": found.texts[at], "label": called[at]} for at in learned]
        seconds = tuned(ws, f"{name}-judge", rows, args.epochs)
        items = [Item(str(at), {"output": found.texts[at]}) for at in asked]
        began = time.perf_counter()
        judgements = ask(ws, judge, items, progress=False)
        each = (time.perf_counter() - began) / len(items)
    labels = [Label(str(at), "good", float(found.passes[at])) for at in asked]
    (known,) = calibrate(judge, items, judgements, labels)
    print(f"\n{known.render()}\n")
    if found.people is not None:
        print(f"the people among themselves: alpha {found.people:.3f}")
    print(f"tuned on {len(rows):,} in {seconds:.0f} s; judges in {1000 * each:.1f} ms an item", flush=True)
    truth, said = found.passes[asked], np.array([one.values["good"] for one in judgements])
    lines, facts = [], {f"{name} agreement": known.agreement.estimate}
    shifted = np.random.default_rng(SEED).permutation(
        np.r_[np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)[: int(truth.sum()) // 4]]
    )
    for case, pool in (("same", np.arange(truth.size)), ("shifted", shifted)):
        share = float(truth[pool].mean())
        for method, intervals in drawn(truth, said, pool, case).items():
            holds = np.array([one.low <= share <= one.high for one in intervals])
            width = float(np.mean([one.high - one.low for one in intervals]))
            lines.append((name, case, f"{share:.3f}", method, f"{holds.mean():.1%}", f"{width:.3f}"))
            facts[f"{name} {case} {method}"] = float(holds.mean())
    return lines, facts


def drawn(truth: Array, said: Array, pool: NDArray[np.intp], case: str) -> dict[str, list[Interval]]:
    """The intervals of each method over the draws. `shifted`: none of the labelled items is in the pool."""
    rng = np.random.default_rng(SEED + 1)
    found: dict[str, list[Interval]] = {
        "judge alone": [],
        "labels alone": [],
        "Rogan-Gladen": [],
        "prediction-powered": [],
    }
    for _ in range(DRAWS):
        labelled = rng.choice(truth.size, LABELLED, replace=False)
        others = np.setdiff1d(pool, labelled)
        human, judge, rest = truth[labelled], said[labelled], said[others]
        if case == "shifted":  # drawn anew as well, for the spread of the items
            rest = rng.choice(rest, rest.size)
        found["judge alone"].append(mean_interval(np.r_[rest, judge] if case == "same" else rest))
        found["labels alone"].append(wilson_interval(int(human.sum()), LABELLED))
        found["Rogan-Gladen"].append(rogan_gladen(rest, human, judge))
        found["prediction-powered"].append(prediction_powered(rest, human, judge))
    return found


# pairs ----------------------------------------------------------------------------------------------------------------


def preferences() -> list[tuple[str, str, str]]:
    """(conversation, preferred answer, other answer) of HH-RLHF where only the last answer differs."""
    found = []
    with gzip.open(data_folder() / "preference/hh_rlhf/harmless_base.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            asked, mark, better = row["chosen"].rpartition("\n\nAssistant:")
            if mark and row["rejected"].startswith(asked + mark) and better.strip():
                worse = row["rejected"][len(asked + mark) :].strip()
                if worse and worse != better.strip() and "\n\nHuman:" not in worse:
                    found.append((asked.strip()[-600:], better.strip()[:600], worse[:600]))
    return found


def llmbar() -> dict[str, list[tuple[str, str, str]]]:
    """The same of LLMBar, by part."""
    parts = {}
    for part in ("natural", "adversarial_neighbor", "faireval"):
        with gzip.open(data_folder() / f"preference/llmbar/{part}.json.gz", "rt", encoding="utf-8") as file:
            rows = json.load(file)
        parts[part] = [(r["input"], r[f"output_{r['label']}"], r[f"output_{3 - r['label']}"]) for r in rows]
    return parts


def pairs(args: argparse.Namespace) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """How often a judge that learned from HH-RLHF prefers what people do, there and elsewhere."""
    rng = np.random.default_rng(SEED)
    known = preferences()
    order = rng.permutation(len(known))
    learned, asked = order[: args.learn // 2], order[args.learn // 2 :][: args.pool]
    rows = [
        {"text": known[at][0], "text_pair": known[at][side], "label": label}
        for at in learned
        for side, label in ((1, "preferred"), (2, "other"))
    ]
    judge = Judge("pairs", "As people do.", "pairwise", better="preferred", models=("classifier:pairs-judge",))
    lines, facts = [], {}
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
        print(f"tuned on {len(rows):,} in {tuned(ws, 'pairs-judge', rows, args.epochs):.0f} s", flush=True)
        for name, some in {"HH-RLHF": [known[at] for at in asked], **llmbar()}.items():
            first = rng.random(len(some)) < 0.5  # where the preferred one stands
            items = [
                Item(str(n), {"input": asked_, "output_1": a if left else b, "output_2": b if left else a})
                for n, ((asked_, a, b), left) in enumerate(zip(some, first))
            ]
            said = np.array([one.values["preferred"] for one in ask(ws, judge, items, progress=False)])
            longer = np.array([0.5 + 0.5 * np.sign(len(a) - len(b)) for _, a, b in some])
            for who, right in (("tuned", 1 - np.abs(said - first)), ("the longer one", longer)):
                share = mean_interval(right).within(0.0, 1.0)
                lines.append((name, who, f"{len(some):,}", str(share)))
                facts[f"{name} {who}"] = share.estimate
    return lines, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["pii"], choices=(*SETS, "pairs"))
    parser.add_argument("--learn", type=int, default=800, help="texts to tune on; default: 800")
    parser.add_argument("--pool", type=int, default=800, help="items to judge; default: 800")
    parser.add_argument("--epochs", type=float, default=3.0)
    args = parser.parse_args()
    lines: list[tuple[str, ...]] = []
    preferred: list[tuple[str, ...]] = []
    facts: dict[str, float] = {}
    for name in args.data:
        new, said = pairs(args) if name == "pairs" else single(name, args)
        (preferred if name == "pairs" else lines).extend(new)
        facts |= said
    if lines:
        print(table(("set", "pool", "people pass", "interval by", "holds it", "width"), lines))
    if preferred:
        print(table(("pairs", "judge", "count", "prefers as people do"), preferred))
    print(json.dumps({"bench": "judges", **facts}))


if __name__ == "__main__":
    main()
