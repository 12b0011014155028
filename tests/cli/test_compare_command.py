"""`windlass eval` of a task and `windlass compare`: exit codes, reports for build servers, and what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from windlass.cli.main import main
from windlass.core.workspace import Workspace

SHOP = '''
from typing import Literal

from windlass import task
from windlass.testing import Scripted


def play(request):
    """Right with the rule; else wrong for one review of three, and worse with the word 'worse'."""
    number = int(request.messages[-1].text.split()[-1])
    said = request.messages[0].text
    right = "rule" in said or (number % 3 and "worse" not in said) or number % 5 == 0
    return {"value": ["bad", "good"][number % 2 if right else 1 - number % 2]}


@task(model=Scripted(*[play] * 5000, cost_usd=0.001))
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""


def strict(wanted, given):
    return float(wanted == given)
'''
POLICY = """
[primary]
metric = "equal"
rule = "superior"

[[ceiling]]
metric = "cost_usd"
at_most = 0.01
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path).close()
    Path("shop.py").write_text(SHOP)
    rows = [
        {"inputs": {"review": f"review {n}"}, "expected": ["bad", "good"][n % 2], "slices": {"kind": "ab"[n % 2]}}
        for n in range(120)
    ]
    Path("items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, words in (("tone", "Say how."), ("better", "Say how, by the rule."), ("worse", "Say how, but worse.")):
        Path(f"{name}.md").write_text(f"{words}\n")
    Path("gate.toml").write_text(POLICY)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def results(run: Run, prompt: str, *more: str) -> str:
    status, out, err = run("eval", "shop.py:tone", "items.jsonl", "--prompt", f"{prompt}.md", *more)
    assert status == 0, err
    assert "equal" in out and "cost_usd" in out
    return err.split(": ")[0].strip().splitlines()[-1]


def test_a_metric_without_any_value_is_no_success(run: Run) -> None:
    Path("broken.py").write_text("def broken(wanted, given):\n    raise KeyError('nothing')\n")
    code, out, err = run("eval", "shop.py:tone", "items.jsonl", "--metric", "broken.py:broken")
    assert code == 4, err
    assert "KeyError" in out
    assert run("eval", "shop.py:tone", "items.jsonl", "--metric", "equal")[0] == 0


def test_stored_results_are_compared_with_exit_codes_and_reports(run: Run) -> None:
    old, new, worse = (results(run, name) for name in ("tone", "better", "worse"))
    status, out, _ = run("compare", old, new, "--junit", "v.xml", "--markdown", "v.md", "--policy", "gate.toml")
    assert status == 0 and "GO: equal changes by" in out and "kind: a" in out and "kept as" in out
    suite = ElementTree.parse("v.xml").getroot()[0]
    assert [case.get("name") for case in suite.iter("testcase")] == ["equal", "cost_usd, ceiling"]
    assert suite.get("failures") == suite.get("errors") == "0" and "**GO**" in Path("v.md").read_text()
    status, out, _ = run("compare", old, worse, "--markdown", "v.md")
    assert status == 3 and "NO-GO" in out
    assert "## Regressions" in Path("v.md").read_text() and "+bad" in Path("v.md").read_text()
    status, out, _ = run("compare", old, old, "--json")
    assert status == 3 and json.loads(out)["format"] == "windlass.experiment/1"
    status, out, _ = run("compare", old, worse, new)
    assert status == 0 and out.count("kept as") == 2
    assert (
        run("compare", old, new, "--effect", "0.05")[1].count("A difference of 0.05 in equal is found by 120 items")
        == 1
    )
    status, out, _ = run("compare", old, new, "--effect", "0.1", "--pilot", "tone-comparison@1")
    assert status == 0 and "from a pilot" in out


def test_few_items_cannot_tell(run: Run) -> None:
    lines = Path("items.jsonl").read_text().splitlines()
    Path("items.jsonl").write_text("\n".join(lines[:20]) + "\n")
    status, out, _ = run("compare", "tone.md", "better.md", "--task", "shop.py:tone", "--items", "items.jsonl")
    assert status == 4 and "INCONCLUSIVE" in out


def test_prompts_are_evaluated_as_far_as_they_are_not_yet(run: Run) -> None:
    results(run, "tone")
    command = ["compare", "tone.md", "better.md", "--task", "shop.py", "--items", "items.jsonl", "--metric", "equal"]
    status, _, err = run(*command)
    assert status == 0 and "evaluated before: tone-results@1" in err and "tone-results@2: 120 calls, $0.1200" in err
    assert "calls" not in run(*command)[2], "the second time all of it is known"
    status, out, err = run(*command, "--metric", "shop.py:strict", "--repeats", "2")
    assert status == 0 and "2 times each" in out and "240 calls" in err


def test_results_in_files_and_results_of_other_items(run: Run) -> None:
    results(run, "tone", "--out", "a.json")
    results(run, "better", "--out", "b.json")
    assert run("compare", "a.json", "b.json")[0] == 0
    shutil.rmtree(".windlass")  # a build has the files alone
    assert run("compare", "a.json", "none.json")[0] == 2 and not Path(".windlass").exists()
    assert run("compare", "a.json", "b.json")[0] == 0
    row = json.loads(Path("b.json").read_text())
    Path("b.json").write_text(json.dumps({**row, "items": row["items"][1:]}))
    status, _, err = run("compare", "a.json", "b.json")
    assert status == 2 and "lacks 1 item" in err
    Path("b.json").write_text(json.dumps({**row, "dataset": "0" * 64}))
    assert "was evaluated on dataset" in run("compare", "a.json", "b.json")[2]


def test_an_experiment_is_declared_invalid(run: Run) -> None:
    old, new = results(run, "tone"), results(run, "better")
    run("compare", old, new)
    status, _, err = run("compare", "--invalidate", "tone-comparison")
    assert status == 2 and "without a reason" in err
    status, out, _ = run("compare", "--invalidate", "tone-comparison", "--reason", "the items leaked")
    assert status == 0 and "backs no promotion any more" in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["compare"], "takes the incumbent and at least one candidate"),
        (["compare", "a.json"], "takes the incumbent and at least one candidate"),
        (["compare", "a.json", "none.json"], "none.json cannot be read"),
        (["compare", "a.json", "items.json"], "items.json is not of the form"),
        (["compare", "a.json", "a.json", "--policy", "none.toml"], "none.toml cannot be read"),
        (["compare", "a.json", "a.json", "--policy", "f2.toml"], "'f2'"),
        (["compare", "a.json", "a.json", "--effect", "0"], "cannot be looked for"),
        (["compare", "a.json", "a.json", "--pilot", "x"], "says nothing without an effect"),
        (["compare", "a.json", "a.json", "--junit", "no/v.xml"], "no/v.xml cannot be written"),
        (["compare", "tone.md", "better.md", "--task", "shop.py"], "on which items"),
        (["compare", "tone.md", "none.md", "--task", "shop.py", "--items", "items.jsonl"], "no prompt 'none.md'"),
        (["compare", "nothing@1", "other@2"], "no artifact 'other@2'"),
        (["eval", "shop.py:tone"], "evaluated on items"),
        (["eval", "shop.py:tone", "items.jsonl", "--shots", "3"], "--shots belongs to benchmarks"),
        (["eval", "shop.py:tone", "items.jsonl", "--against", "live"], "belong to the assistant"),
        (["eval", "live", "--metric", "f1"], "--metric belongs to typed tasks"),
        (["eval", "shop.py:tone", "items.jsonl", "--metric", "f2"], "no metric 'f2'"),
        (["eval", "shop.py:tone", "items.jsonl", "--metric", "bleu"], "does not score answers one by one"),
        (["eval", "shop.py:tone", "items.jsonl", "--repeats", "0"], "repeats=0"),
        (["eval", "shop.py:tone", "items.jsonl", "--metric", "shop.py:none"], "is no function"),
    ],
)
def test_bad_input_is_one_clear_error(run: Run, arguments: list[str], why: str) -> None:
    results(run, "tone", "--out", "a.json")
    Path("items.json").write_text("{}")
    Path("f2.toml").write_text('[primary]\nmetric = "f2"\nrule = "superior"\nbetter = "higher"\n')
    status, _, err = run(*arguments)
    assert status == 2 and why in err and "Traceback" not in err


def test_what_is_wrong_with_results_in_a_file_is_named_with_the_file(run: Run) -> None:
    results(run, "tone", "--out", "good.json")
    good = json.loads(Path("good.json").read_text())

    def refused(change: Callable[[dict[str, Any]], object]) -> str:
        worn = json.loads(json.dumps(good))
        change(worn)
        Path("worn.json").write_text(json.dumps(worn))
        status, _, err = run("compare", "good.json", "worn.json")
        assert status == 2, err
        return err

    first = good["items"][0]["item"]
    said = refused(lambda row: row["items"].append(row["items"][0]))
    assert "worn.json: The results of tone@1 hold item" in said and f"{first[:12]}…' (repeat 0) twice." in said
    said = refused(lambda row: row["items"][0]["values"].update(equal=float("nan")))
    assert f"worn.json: The metric 'equal' of item '{first[:12]}…' is nan" in said
    assert "worn.json: The results of tone@1 hold no items" in refused(lambda row: row.update(items=[]))
    assert "lacks 1 item" in refused(lambda row: row["items"].pop())
    assert "on dataset" in refused(lambda row: row.update(dataset="another version"))
    assert "different code" in refused(lambda row: row["scorers"].update(equal="other"))
    assert "belongs to cluster" in refused(lambda row: row["items"][0].update(cluster="z"))
    assert "not results" in run("compare", "tone-items@1", "tone-results@1")[2]


def test_the_power_is_stated_before_anything_is_asked(run: Run) -> None:
    asked = ("compare", "tone.md", "better.md", "--task", "shop.py:tone", "--items", "items.jsonl", "--effect", "0.05")
    _, _, err = run(*asked)
    said = "A difference of 0.05 in equal is found by 120 items with a chance of 19%"
    assert said in err and err.index(said) < err.index("tone-results@1")


def test_failures_say_what_follows_for_a_comparison(run: Run) -> None:
    Path("picky.py").write_text("def picky(wanted, given):\n    if given == 'bad':\n        raise KeyError('no')\n")
    _, out, _ = run("eval", "shop.py:tone", "items.jsonl", "--metric", "picky.py:picky", "--metric", "equal")
    assert "answers have no picky" in out and "more than 2%: a comparison by it would decide nothing" in out
    assert "comparison" not in run("eval", "shop.py:tone", "items.jsonl")[1]


def test_items_are_called_what_was_asked(run: Run) -> None:
    old, worse = results(run, "tone"), results(run, "worse")
    run("compare", old, worse, "--markdown", "v.md", "--junit", "v.xml")
    assert "### review " in Path("v.md").read_text() and "Item `" in Path("v.md").read_text()
    told = ElementTree.parse("v.xml").getroot()[0].find(".//failure")
    assert told is not None and str(told.text).startswith("review ")


def test_what_does_not_fit_is_named_by_its_file_and_what_is_misspelt_by_what_is_near(run: Run) -> None:
    rows = Path("items.jsonl").read_text().splitlines()[:3]
    Path("wrong.jsonl").write_text("\n".join([*rows, '{"inputs": {"review": "x"}, "expected": "splendid"}']))
    assert "Example 4 of wrong.jsonl" in run("eval", "shop.py:tone", "wrong.jsonl")[2]
    assert "Did you mean 'equal'?" in run("eval", "shop.py:tone", "items.jsonl", "--metric", "equall")[2]


def test_two_tasks_that_ask_the_same_have_evaluations_of_their_own(run: Run) -> None:
    results(run, "tone")
    Path("other.py").write_text(SHOP.replace("def tone", "def mood"))
    _, _, err = run("eval", "other.py:mood", "items.jsonl", "--prompt", "tone.md")
    assert "mood-results@1: 120 calls" in err
    _, _, err = run("eval", "other.py:mood", "items.jsonl", "--prompt", "tone.md")
    assert "evaluated before: mood-results@1; --again asks anew" in err


def test_traces_are_kept_apart_and_can_be_switched_off(run: Run) -> None:
    results(run, "tone")
    assert "No traces yet" in run("traces")[1]
    listed = run("traces", "--evaluations", "--limit", "3")[1]
    assert listed.count("evaluate tone") == 3 and "review " in listed
    results(run, "better", "--no-traces")
    assert run("traces", "--evaluations", "--limit", "1000")[1].count("evaluate tone") == 120
