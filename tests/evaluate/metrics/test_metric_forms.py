"""Metrics of labels, probabilities, scores, numbers, rankings on files, held to scikit-learn, scipy and trec_eval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from scipy import stats
from sklearn import metrics as sk

from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.evaluate.metrics.calibration import calibration_error, calibration_parts
from windlass.evaluate.metrics.catalogue import metric
from windlass.evaluate.metrics.forms import apply, read_rows
from windlass.evaluate.metrics.trec import read_trec
from windlass.evaluate.statistics.distances import distance_interval

RNG = np.random.default_rng(0)
N = 60
RIGHT = RNG.choice(["bad", "fair", "good"], N).tolist()
SAID = [one if keep else other for one, keep, other in zip(RIGHT, RNG.random(N) < 0.6, RNG.permutation(RIGHT))]
TABLE = RNG.dirichlet([1, 1, 1], N)
SURE, TRUE = RNG.random(N).round(2), RNG.random(N) < 0.5


def written(path: Path, found: Sequence[Any], right: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps({"found": a, "right": b}) + "\n" for a, b in zip(found, right)))
    return path


def score(path: Path, name: str, positive: str | None = None) -> float:
    rows = read_rows(path)
    return apply(metric(name), rows, positive).measured(None, len(rows.found), 0.95, 0).estimate


def test_labels(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", SAID, [one if i % 2 else [one] for i, one in enumerate(RIGHT)])
    for name, theirs in {
        "accuracy": sk.accuracy_score(RIGHT, SAID),
        "balanced-accuracy": sk.balanced_accuracy_score(RIGHT, SAID),
        "f1-macro": sk.f1_score(RIGHT, SAID, average="macro"),
        "f1-micro": sk.f1_score(RIGHT, SAID, average="micro"),
        "f1-weighted": sk.f1_score(RIGHT, SAID, average="weighted"),
        "mcc": sk.matthews_corrcoef(RIGHT, SAID),
        "kappa": sk.cohen_kappa_score(RIGHT, SAID),
    }.items():
        assert score(path, name) == pytest.approx(theirs), name


def test_probabilities(tmp_path: Path) -> None:
    labels = ["bad", "fair", "good"]
    path = written(tmp_path / "a.jsonl", [dict(zip(labels, row)) for row in TABLE.tolist()], RIGHT)
    assert score(path, "log-loss") == pytest.approx(sk.log_loss(RIGHT, TABLE, labels=labels))
    assert score(path, "accuracy") == pytest.approx(sk.accuracy_score(RIGHT, np.array(labels)[TABLE.argmax(axis=1)]))
    correct = [labels[row.argmax()] == one for row, one in zip(TABLE, RIGHT)]
    assert score(path, "ece") == pytest.approx(calibration_error(TABLE.max(axis=1), correct))
    assert 0 < score(path, "brier") < 2
    two = written(tmp_path / "b.jsonl", [{"no": 1 - p, "yes": p} for p in SURE], ["yes" if t else "no" for t in TRUE])
    assert score(two, "auroc", "yes") == pytest.approx(sk.roc_auc_score(TRUE, SURE))
    assert score(two, "auroc", "no") == pytest.approx(sk.roc_auc_score(~TRUE, 1 - SURE))
    with pytest.raises(InputError, match="nobody said which is the positive one"):
        score(two, "auroc")


def test_scores_and_numbers(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", SURE.tolist(), [bool(one) for one in TRUE])
    assert score(path, "auroc") == pytest.approx(sk.roc_auc_score(TRUE, SURE))
    assert score(path, "auprc") == pytest.approx(sk.average_precision_score(TRUE, SURE))
    assert score(path, "brier") == pytest.approx(sk.brier_score_loss(TRUE, SURE))
    inside = written(tmp_path / "c.jsonl", (0.1 + 0.8 * SURE).tolist(), [int(one) for one in TRUE])
    assert score(inside, "log-loss") == pytest.approx(sk.log_loss(TRUE, 0.1 + 0.8 * SURE))
    other = (SURE + RNG.normal(size=N)).tolist()
    numbers = written(tmp_path / "b.jsonl", SURE.tolist(), other)
    assert score(numbers, "pearson") == pytest.approx(stats.pearsonr(SURE, other)[0])
    assert score(numbers, "spearman") == pytest.approx(stats.spearmanr(SURE, other)[0])
    assert score(numbers, "kendall") == pytest.approx(stats.kendalltau(SURE, other)[0])


def test_rankings_and_runs_are_trec_evals(tmp_path: Path) -> None:
    qrels = {f"q{q}": {f"d{d}": int(RNG.integers(0, 3)) for d in range(8)} | {"d0": 1} for q in range(12)}
    scores = {q: {f"d{d}": float(RNG.integers(0, 6)) for d in RNG.permutation(12)[:9]} for q in qrels}  # with ties
    run, right = tmp_path / "run.txt", tmp_path / "qrels.txt"
    run.write_text("".join(f"{q} Q0 {d} 1 {s} me\n" for q, some in scores.items() for d, s in some.items()))
    right.write_text("".join(f"{q} 0 {d} {r}\n" for q, some in qrels.items() for d, r in some.items()) + "qx 0 d1 0\n")
    names = {"map": "map", "ndcg@5": "ndcg_cut_5", "recall@5": "recall_5", "precision@5": "P_5", "mrr": "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, set(names.values())).evaluate(scores)
    rows = read_trec(run, right)
    assert len(rows.found) == 12, "a query without a relevant document says nothing"
    path = written(tmp_path / "a.jsonl", rows.found, rows.right)
    for name, called in names.items():
        mean = np.mean([one[called] for one in theirs.values()])
        values = apply(metric(name), rows).values
        assert values is not None and values.mean() == pytest.approx(mean), name
        assert score(path, name) == pytest.approx(mean), name
    assert main(["metrics", str(run), "map", "r-precision", "hit@3", "mrr@3", "--qrels", str(right)]) == 0
    run.write_text(run.read_text().replace("q1 ", "q0 "))
    found = read_trec(run, right).found
    assert not found[list(qrels).index("q1")], "a query that was not answered counts"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q2 Q0 d1 1 2.5 me\n", "No query of"),
        ("q1 d1 2.5\n", "line 1 has 3 fields"),
        ("q1 Q0 d1 1 much me\n", "'much' is no number"),
        ("q1 Q0 d1 1 nan me\n", "'nan' is no number"),
    ],
)
def test_what_is_no_run_is_named(tmp_path: Path, text: str, message: str) -> None:
    run, right = tmp_path / "run.txt", tmp_path / "qrels.txt"
    right.write_text("q1 0 d1 1\n")
    run.write_text(text)
    with pytest.raises(InputError, match=message):
        read_trec(run, right)


@pytest.mark.parametrize(
    ("found", "right", "name", "message"),
    [
        ("yes", ["a", "b"], "accuracy", "line 1: `right` is no label"),
        ([1], "a", "accuracy", "line 1: `found` is no label"),
        (0.5, 2, "auroc", "line 1: `right` is 2"),
        (float("nan"), True, "auroc", "line 1: `found` is nan"),
        ("0.5", True, "ece", "line 1: `found` is '0.5'"),
        (1.5, True, "ece", "outside of 0 to 1"),
        ({"a": 0.5, "b": 0.2}, "a", "log-loss", "add up to 1"),
        ({"a": 1.0}, "c", "log-loss", "no line has a probability of 'c'"),
        ("d1", ["d1"], "map", "line 1: `found` is no ranking"),
        (["d1"], "d1", "map", "line 1: `right` says of no document"),
        (["d1", "d1"], ["d1"], "map", "Item 1: a document is ranked more than once"),
        (["d1"], {"d1": "much"}, "map", "line 1: `right` is 'much'"),
        ("a", None, "accuracy", "line 1 has no `right`"),
        ("a", "a", "fid", "'fid' is not made of lines"),
    ],
)
def test_what_is_of_another_form_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found: Any, right: Any, name: str, message: str
) -> None:
    path = written(tmp_path / "a.jsonl", [found] * 3, [right] * 3)
    assert main(["metrics", str(path), name]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told


def test_two_files_of_labels_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new, old = written(tmp_path / "new.jsonl", RIGHT, RIGHT), written(tmp_path / "old.jsonl", SAID, RIGHT)
    assert main(["metrics", str(new), "accuracy", "kappa", "--against", str(old), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("accuracy", "kappa"):
        gain = found[name]["difference"]
        assert gain["estimate"] == pytest.approx(1 - score(old, name)) and gain["low"] > 0
    other = written(tmp_path / "other.jsonl", SAID, SAID)
    assert main(["metrics", str(new), "accuracy", "--against", str(other)]) == 2
    assert "is not the same in both files" in capsys.readouterr().err


def test_a_function_of_ones_own_may_fail_and_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "def near(right, said):\n"
        "    if said == 13:\n        raise ValueError('unlucky')\n"
        "    return float('nan') if said == 7 else float(abs(right - said) <= 1)\n"
    )
    path = written(tmp_path / "a.jsonl", list(range(20)), [n + n % 3 for n in range(20)])
    assert main(["metrics", str(path), "mine.py:near"]) == 4
    shown = capsys.readouterr().out
    assert "18 items" in shown and "2 lines have no value" in shown
    assert main(["metrics", str(path), "mine.py:near", "--json"]) == 4
    errors = json.loads(capsys.readouterr().out)["near"]["errors"]
    assert errors == {f"{path}, line 8": errors[f"{path}, line 8"], f"{path}, line 14": "raised ValueError: unlucky"}
    assert main(["metrics", str(written(tmp_path / "b.jsonl", [1, 2, 3], [1, 2, 3])), "mine.py:near"]) == 0
    assert main(["metrics", str(path), "mine.py:far"]) == 2
    assert main(["metrics", str(written(tmp_path / "c.jsonl", [13] * 3, [1, 2, 3])), "mine.py:near"]) == 2
    assert "has no value on any line; the first: raised ValueError" in capsys.readouterr().err


@pytest.mark.parametrize("by_how_much", [0.0, 0.1])
def test_the_interval_of_a_calibration_error_holds_the_truth(by_how_much: float) -> None:
    """Of perfectly calibrated answers too, where a bootstrap of the error itself lies above the truth."""
    rng, held, repeats = np.random.default_rng(1), 0, 80
    for _ in range(repeats):
        truth = 0.25 + 0.5 * rng.random(300)
        sure, right = truth + by_how_much, rng.random(300) < truth
        found = distance_interval(calibration_parts(sure, right), seed=0, resamples=400)
        assert found.low <= found.estimate <= found.high
        held += found.low <= by_how_much <= found.high
    assert held / repeats >= 0.95 - 3 * (0.95 * 0.05 / repeats) ** 0.5
    worse = calibration_parts(sure - 0.2, right)
    gap = distance_interval(worse, less=calibration_parts(sure, right), seed=0)
    assert gap.low < abs(0.2 - by_how_much) - by_how_much < gap.high
