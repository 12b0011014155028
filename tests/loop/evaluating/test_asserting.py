"""Tests that are evaluations: decided on the interval, with a report instead of a traceback, and free where unused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.loop.prompting.test_prompt_search import Answering, items, right, tone
from tests.test_budgets import heavy, modules_after

import windlass
from windlass.apply.tasks import Surroundings, surrounded
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.loop.evaluating.asserting import ATTRIBUTE, NotShown, evaluation

PAIRS = [({"number": n}, n % 2) for n in range(100)]


def parity_but(wrong: int) -> Any:
    def parity(number: int) -> int:
        return number % 2 if number >= wrong else 7

    return parity


def test_a_score_must_be_shown_by_its_interval() -> None:
    evaluation(items=PAIRS, at_least=0.9)(parity_but(0))()
    evaluation(items=PAIRS, at_least=0.9)(parity_but(2))()
    with pytest.raises(NotShown, match=r"NO-GO: equal is 0\.7"):
        evaluation(items=PAIRS, at_least=0.9)(parity_but(30))()
    with pytest.raises(NotShown, match="INCONCLUSIVE") as told:  # 94 of 100 may well come from less than 0.9
        evaluation(items=PAIRS, at_least=0.9)(parity_but(6))()
    assert "6 of 100 answers are not right; the worst 5:" in str(told.value) and "but      7" in str(told.value)
    evaluation(items=PAIRS, at_least=0.9, inconclusive="pass")(parity_but(6))()
    with pytest.raises(NotShown, match="INCONCLUSIVE"):  # 20 of 20 do not show 0.9
        evaluation(items=PAIRS[:20], at_least=0.9)(parity_but(0))()


def test_repeats_are_no_more_items() -> None:
    with pytest.raises(NotShown, match="over 20 items"):
        evaluation(items=PAIRS[:20], at_least=0.9, repeats=10)(parity_but(0))()


def test_a_task_and_its_own_metric() -> None:
    test = windlass.evaluation(items=items(60), metric=lambda wanted, given: wanted == given, at_least=0.8)(
        tone.using(model=Answering(right))
    )
    test()
    told = getattr(test, ATTRIBUTE)
    assert told.verdict.decision == "GO" and told.name == "tone" and len(told.results.items) == 60


def test_what_it_asks_is_traced_apart_from_the_traffic(tmp_path: Path) -> None:
    task = tone.using(model=Answering(right))
    with Workspace(tmp_path) as ws, surrounded(Surroundings(ws)):
        for function in (task, lambda review: task(review)):
            test = evaluation(items=items(60), at_least=0.8)(function)
            test()
            ws.recorder.flush()
            traces = [one.trace for one in getattr(test, ATTRIBUTE).results.items]
            assert all(len(ws.store.trace(str(trace))) == 3 for trace in traces)
        assert len(ws.store.traces(evaluations=True, limit=1000)) == 120 and not ws.store.traces()
        evaluation(items=items(60), at_least=0.8, traces=False)(task)()
        ws.recorder.flush()
        assert len(ws.store.traces(evaluations=None, limit=1000)) == 120


def test_failures_and_broken_metrics_show_nothing() -> None:
    def raising(number: int) -> int:
        if number % 3 == 0:
            raise RuntimeError("no threes")
        return number % 2

    with pytest.raises(NotShown, match=r"34 of 100 items have no equal \(34 times: raised RuntimeError: no threes\)"):
        evaluation(items=PAIRS, at_least=0.5)(raising)()
    with pytest.raises(NotShown, match="raised ZeroDivisionError"):
        evaluation(items=PAIRS, metric=lambda wanted, given: 1 / 0, at_least=0.5)(parity_but(0))()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "no items"),
        ([1], "Item 1 is neither"),
        ([PAIRS[0], PAIRS[0]], "same inputs"),
        ("none.jsonl", "cannot be read"),
    ],
)
def test_items_that_are_none_are_refused(given: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        evaluation(items=given, at_least=0.5)(parity_but(0))()


def test_importing_windlass_and_the_plug_in_stays_light() -> None:
    loaded = modules_after("import pytest\nimport windlass.loop.evaluating.pytest_plugin") - modules_after(
        "import pytest"
    )
    assert {name for name in loaded if name.startswith("windlass")} == {
        "windlass", "windlass.loop", "windlass.loop.evaluating", "windlass.loop.evaluating.pytest_plugin",
    }  # fmt: skip
    assert heavy(loaded) == set() and len(loaded) <= 8, sorted(loaded)


SUITE = """
import windlass as wl

PAIRS = [({"number": n}, n % 2) for n in range(100)]


@wl.evaluation(items=PAIRS, at_least=0.9)
def test_parity(number):
    return number % 2


@wl.evaluation(items=PAIRS, at_least=0.9)
def test_broken(number):
    return 0


@wl.evaluation(items="gone.jsonl", at_least=0.9)
def test_gone(number):
    return 0


def test_other():
    assert True
"""


@pytest.mark.parametrize("processes", [[], ["-n", "1"]], ids=["in this process", "in another"])
def test_pytest_shows_reports_and_a_table(tmp_path: Path, processes: list[str]) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    run = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--junitxml",
        "j.xml",
        *processes,
    ]  # the plug-in comes with the package
    done = subprocess.run([*run, "test_suite.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 2 passed" in done.stdout and "gone.jsonl cannot be read" in done.stdout
    assert "NO-GO: equal is 0.5" in done.stdout and "Traceback" not in done.stdout and "asserting.py" not in done.stdout
    assert "read_text" not in done.stdout
    assert "test_parity  GO " in done.stdout and "test_broken  NO-GO" in done.stdout
    assert 'name="windlass.verdict" value="NO-GO"' in (tmp_path / "j.xml").read_text()
