"""`windlass judge` and `windlass review` from a file to a corrected mean, and what they say about mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windlass.apply.tasks.surroundings import Surroundings
from windlass.cli.main import main
from windlass.core.values import ChatRequest
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.loop.evaluating.evaluation import store_results
from windlass.loop.reviewing import label, open_queue
from windlass.testing import Scripted

JUDGE = """+++
models = ["scripted"]
[[criteria]]
name = "odd"
asks = "Is it odd?"
levels = [{ name = "no", value = 0 }, { name = "yes", value = 1 }]
+++
Look at the last digit.
"""
PAIR = '+++\nkind = "pairwise"\nmodels = ["scripted"]\n+++\nThe larger one is better.\n'

Said = Callable[..., str]


def answer(request: ChatRequest) -> dict[str, str]:
    digit = int(request.messages[1].text.partition("<output>\n")[2][0])
    return {"reason": "its last digit", "level": "yes" if digit % 2 else "no"}


class Judging(Scripted):
    """Known by its name, so that its answers can be kept."""

    def __init__(self, name: str, answer: Callable[[ChatRequest], Any] = answer) -> None:
        super().__init__(*[answer] * 500, name=name, cost_usd=0.001)
        self.digest = f"digest of {name}"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    Workspace(tmp_path).close()
    monkeypatch.chdir(tmp_path)
    # Who answers for the name `scripted`: no provider is asked in tests.
    monkeypatch.setattr(Surroundings, "known", lambda self, name: Judging(name))
    Path("odd.md").write_text(JUDGE)
    Path("better.md").write_text(PAIR)

    def run(*arguments: str, status: int = 0) -> str:
        assert main(list(arguments)) == status, capsys.readouterr().err
        captured = capsys.readouterr()
        return captured.err if status == 2 else captured.out

    return run


def rows(name: str, count: int, **more: Callable[[int], Any]) -> str:
    lines = [
        {"id": f"i{n}", "input": f"digit {n}", "output": str(n % 10), **{key: make(n) for key, make in more.items()}}
        for n in range(count)
    ]
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


def test_from_a_file_to_a_corrected_mean(said: Said) -> None:
    shown = said("judge", "show", "odd.md")
    assert "Look at the last digit." in shown and '"level"' in shown and "models: scripted" in shown
    first = said("judge", "run", "odd.md", rows("items.jsonl", 40))
    assert first.count(": 0: its last digit\n") == 3, "the worst, with the reason"
    assert "its last digit" not in said("judge", "run", "odd.md", "items.jsonl", "--show", "0")
    assert "passed" in first and "0.500" in first and "NEVER CALIBRATED" in first and "$0.0400" in first
    labels = rows(
        "labels.jsonl", 60, input=lambda n: f"number {n}", label=lambda n: "yes" if n % 2 or n % 10 == 4 else "no"
    )
    calibrated = said("judge", "calibrate", "odd.md", labels)
    assert calibrated.count("people 1, the judge 0: its last digit") == 3
    assert "sensitivity" in calibrated and "odd-calibration@1" in calibrated
    again = said("judge", "run", "odd.md", "items.jsonl")
    assert "NEVER" not in again and "Rogan-Gladen" in again and "$0.0000" in again
    assert json.loads(said("judge", "run", "odd", "items.jsonl", "--json"))[0]["calibrated"] is True
    rows("new.jsonl", 40, output=lambda n: "1")
    compared = said("judge", "run", "odd.md", "new.jsonl", "--against", "items.jsonl")
    assert "the difference on 40 items" in compared and "odd-judgements@" in compared
    other = said("judge", "run", "odd.md", "items.jsonl", "--model", "scripted", "--model", "another")
    assert "all of the panel say the same" in other and "NEVER CALIBRATED" in other


TASK = '''
from windlass import task
from windlass.testing import Scripted


def play(request):
    number = int(request.messages[-1].text.split()[-1])
    better = "better" in request.messages[0].text
    return str(number % 10 | 1 if better and number % 10 < 4 else number % 10)


@task(model=Scripted(*[play] * 2000, cost_usd=0.001))
def digit(text: str) -> str:
    """Say the last digit."""
'''


def test_a_judge_is_a_metric_of_an_evaluation_and_of_a_comparison(said: Said) -> None:
    Path("shop.py").write_text(TASK)
    Path("better.md").write_text("Say a better digit.\n")
    items = [{"inputs": {"text": f"number {n}"}, "expected": str(n % 10)} for n in range(60)]
    Path("texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in items))
    shown = said("eval", "shop.py:digit", "texts.jsonl", "--metric", "odd.md", "--metric", "equal")
    assert "odd is what a judge says, never calibrated" in shown and "0.500" in shown
    Path("plain.md").write_text("Say the last digit.\n")
    asked = (
        "compare",
        "plain.md",
        "better.md",
        "--task",
        "shop.py:digit",
        "--items",
        "texts.jsonl",
        "--metric",
        "odd.md",
    )
    found = said(*asked)
    assert "GO: odd changes by +0.2000" in found and "NEVER CALIBRATED: odd." in found
    labels = rows("labels.jsonl", 90, label=lambda n: "yes" if n % 2 or n % 10 == 4 else "no")
    said("judge", "calibrate", "odd.md", labels)
    found = said(*asked, "--effect", "0.1")
    assert "GO: odd changes by +0.2400" in found and "the judge itself says +0.2000" in found
    wrong = said("eval", "shop.py:digit", "texts.jsonl", "--again", "--metric", "none.md", status=2)
    assert "cannot be read" in wrong and "calls" not in wrong, "before anything is paid"


def test_too_many_items_without_a_judgement(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(request: ChatRequest) -> Any:
        return "nothing" if "<output>\n3\n" in request.messages[1].text else answer(request)

    monkeypatch.setattr(Surroundings, "known", lambda self, name: Judging(name, some))
    found = said("judge", "run", "odd.md", rows("items.jsonl", 20), status=4)
    assert "NO VERDICT MAY REST ON THIS" in found and "(10.0%) have no judgement" in found


def test_people_label_and_their_labels_calibrate(said: Said, tmp_path: Path) -> None:
    assert "No queues yet" in said("review", "list")
    made = said("review", "new", "digits", "--rubric", "odd.md", "--items", rows("items.jsonl", 60), "--sample", "30")
    assert "digits@1: 30 items of 60, drawn at random, from items.jsonl" in made
    assert "nobody yet" in said("review", "list")
    assert "Nobody has labelled" in said("review", "export", "digits", status=2)
    with Workspace(tmp_path) as ws:
        one = open_queue(ws, "digits")
        for item in one.queue.items:
            label(ws, one, item, "ann", {"odd": float(int(item.inputs["output"]) % 2)})
    assert "ann 30" in said("review", "list")
    Path("labels.jsonl").write_text(said("review", "export", "digits"))
    Path("labels.csv").write_text(said("review", "export", "digits", "--csv"), newline="")
    for name in ("labels.jsonl", "labels.csv"):
        assert "1.000" in said("judge", "calibrate", "odd.md", name)
    said("review", "new", "again", "--rubric", "odd.md", "--items", "items.jsonl")
    assert "30 items newly labelled" in said("review", "import", "again", "labels.csv")
    assert "0 items newly labelled" in said("review", "import", "again", "labels.jsonl")


def test_queues_of_pairs_and_of_judgements(said: Said) -> None:
    rows("old.jsonl", 5)
    rows("new.jsonl", 5, output=lambda n: "1")
    made = said("review", "new", "ab", "--rubric", "better.md", "--pair", "old.jsonl", "new.jsonl")
    assert "ab@1: 5 items, from old.jsonl and new.jsonl" in made
    said("judge", "run", "odd.md", "old.jsonl")
    assert "sure of all" in said("review", "new", "d", "--rubric", "odd.md", "--doubts", "odd-judgements", status=2)
    assert "5 items" in said("review", "new", "d", "--rubric", "odd.md", "--judged", "odd-judgements")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["judge", "run", "none.md", "items.jsonl"], "none.md cannot be read"),
        (["judge", "run", "odd.md", "none.jsonl"], "none.jsonl"),
        (["judge", "run", "nobody", "items.jsonl"], "no artifact 'nobody'"),
        (["judge", "calibrate", "odd.md", "items.jsonl"], "row 1"),
        (["judge", "run", "better.md", "items.jsonl"], "row 1: no 'output_1'"),
        (["judge", "run", "odd.md", "items.jsonl", "--against", "items.jsonl"], "the same file"),
        (["judge", "run", "odd.md", "items.jsonl", "--model", "classifier:none"], "'none' is no model"),
        (["review", "new", "odd queue", "--rubric", "odd.md", "--items", "items.jsonl"], "odd queue"),
        (["review", "new", "q", "--rubric", "odd.md", "--traces"], "No trace with an answer fits"),
        (["review", "new", "q", "--rubric", "odd.md", "--pair", "items.jsonl", "items.jsonl"], "judges one output"),
        (["review", "export", "none"], "no artifact 'none'"),
    ],
)
def test_mistakes_are_named(said: Said, arguments: list[str], complaint: str) -> None:
    rows("items.jsonl", 3)
    found = said(*arguments, status=2)
    assert found.startswith("windlass: ") and complaint in found


def test_the_results_of_two_variants_are_judged_and_compared(said: Said, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("dataset", "digits-items") as draft:
            (draft.path / "items.jsonl").write_text("{}", encoding="utf-8")
        for variant, output in (("old", str), ("new", lambda n: str(n | 1 if n < 4 else n))):
            made = [
                ItemResult(f"i{n}", values={"f1": 0.5}, output=output(n % 10), input=f"digit {n}") for n in range(60)
            ]
            stored = Results(variant, None, draft.done.digest, made, {"f1": "code"})
            store_results(ws, "digits", stored, draft.done, None)
    for ref in ("digits-results@1", "digits-results@2"):
        assert "NEVER CALIBRATED" in said("judge", "run", "odd.md", ref)
    compared = said("compare", "digits-results@3", "digits-results@4", "--metric", "odd")
    assert "\nGO: odd changes by +0.2000" in compared and "NEVER CALIBRATED: odd." in compared
    assert "odd is what a judge says, never calibrated" in compared
    assert "no metric 'even'" in said("compare", "digits-results@3", "digits-results@4", "--metric", "even", status=2)
    labels = rows(
        "labels.jsonl", 90, input=lambda n: f"number {n}", label=lambda n: "yes" if n % 2 or n % 10 == 4 else "no"
    )
    said("judge", "calibrate", "odd.md", labels)
    for ref in ("digits-results@1", "digits-results@2"):
        assert "Rogan-Gladen" in said("judge", "run", "odd.md", ref)
    compared = said("compare", "digits-results@5", "digits-results@6", "--metric", "odd", "--junit", "v.xml")
    assert "\nGO: odd changes by +0.2400" in compared and "calibrated on 90 labelled items" in compared
    assert "the judge itself says +0.2000" in compared and "NEVER" not in compared
    assert "the judge itself says +0.2000" in Path("v.xml").read_text()
    assert "windlass compare" in said("judge", "run", "odd.md", "digits-results@1", "--against", "x.jsonl", status=2)
