"""`windlass eval MODEL --tasks …`: from the command line to what is kept, with a small model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.evaluate.harness.harness_world import write_benchmark, write_rows

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import Results

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from tests.serve.engine_world import TEMPLATE, make_folder

CHOICE = (
    'kind = "choice"\ndata = "rows.jsonl"\nprompt = "{q}"\nchoices = "{c}"\ngold = "{g}"\n[slices]\nparity = "{g}"\n'
)
WRITE = 'kind = "answer"\ndata = "rows.jsonl"\nprompt = "{q}"\nanswers = "the"\nmax_tokens = 3\nstop = []\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE, context=256)


@pytest.fixture
def world(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workspace that holds the model, data, and two benchmarks."""
    rows = [{"q": f"the cat {i} sat on", "c": [" the mat", " the end", " a cat"], "g": i % 3} for i in range(40)]
    write_rows(tmp_path / "data/rows.jsonl", rows)
    write_benchmark(tmp_path / "mats.toml", CHOICE)
    write_benchmark(tmp_path / "writing.toml", WRITE)
    with Workspace(tmp_path) as ws, ws.artifacts.build("model", "tiny") as draft:
        for path in model.iterdir():
            shutil.copy(path, draft.path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_model_of_the_workspace(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tiny", "--tasks", "mats.toml", "writing.toml", "--slices"]) == 0
    shown = capsys.readouterr().out
    assert "acc_norm" in shown and "exact_match" in shown and "parity: 2" in shown
    with Workspace(world) as ws:
        kept = {record.card["benchmark"]: ws.artifacts.get(record.digest) for record in ws.store.artifacts("results")}
        assert set(kept) == {"mats", "writing"}
        artifact = kept["mats"]
        assert artifact.parent("model") == ws.artifacts.get("tiny").digest
        results = Results.from_json(json.loads((artifact.path / "results.json").read_text()))
        assert len(results.items) == 40 and results.digest == artifact.parent("model")
        assert results.made_with["model"]["policy"] == "fp32" and results.made_with["files"].keys() == {"rows.jsonl"}
        assert "acc_norm" in (artifact.path / "README.md").read_text()
        assert not list((ws.root / "benchmarks").glob("*.jsonl")), "what was finished needs no journal"
    assert main(["eval", "tiny", "--tasks", "mats.toml", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert again["artifact"] == artifact.digest, "the same model on the same data gives the same results"


def test_a_folder_without_a_workspace(
    world: Path,
    model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    asked = ["eval", str(model), "--tasks", str(world / "mats.toml"), "--limit", "5", "--shots", "2"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "Nothing was kept" in shown and "tiny" in shown
    assert main([*asked, "--out", "kept.json"]) == 0
    assert len(Results.from_json(json.loads(Path("kept.json").read_text())).items) == 5
    assert "Nothing was kept" not in capsys.readouterr().out
    assert main([*asked, "--json", "--chat"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["items"], found["held_out"], found["artifact"]) == (5, 2, None)


def test_an_endpoint_gives_the_same_scores(world: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    from windlass.serve.app import create_app
    from windlass.serve.engine.local import LocalModel
    from windlass.serve.run import ServerThread

    local = LocalModel.load(model, policy="fp32")
    with ServerThread(create_app({"tiny": local}, {})) as server:
        assert main(["eval", f"{server.url}/v1", "--tasks", "mats.toml", "--json"]) == 0
        (remote,) = json.loads(capsys.readouterr().out)
        assert main(["eval", f"{server.url}/v1", "--tasks", "writing.toml", "--chat", "--limit", "3"]) == 0
        capsys.readouterr()
        assert main(["eval", f"{server.url}/v1", "--tasks", "mats.toml", "--chat"]) == 2
        assert "does not tell" in capsys.readouterr().err
    local.close()
    assert main(["eval", "tiny", "--tasks", "mats.toml", "--json", "--bos"]) == 0  # as the server begins its texts
    (here,) = json.loads(capsys.readouterr().out)
    assert remote["measures"] == here["measures"] and remote["dataset"] == here["dataset"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["tiny", "--tasks", "nothing"], "no benchmark 'nothing'"),
        (["tiny", "--tasks", "piqa"], "There is no lm_eval/piqa/valid.jsonl.gz in"),
        (["tiny", "--tasks", "mats.toml", "--data", "nowhere"], "no folder nowhere"),
        (["tiny", "--tasks", "mats.toml", "--limit", "0"], "limit of 0"),
        (["tiny", "--tasks", "mats.toml", "--shots", "40"], "no row left"),
        (["tiny", "--tasks", "mats.toml", "--repeats", "2"], "temperature 0"),
        (["tiny", "--tasks", "mats.toml", "--served", "x"], "belong to an endpoint"),
        (["tinny", "--tasks", "mats.toml"], "tinny"),
        (["http://127.0.0.1:9/v1", "--tasks", "mats.toml"], "cannot be reached"),
        (["tiny", "--shots", "3"], "--shots belongs to benchmarks"),
        (["task.py:x", "items.jsonl", "--shots", "3"], "--shots belongs to benchmarks"),
        (["tiny", "--tasks", "mats.toml", "--dollars", "3"], "--dollars belongs to typed tasks"),
        (["tiny", "--tasks", "mats.toml", "writing.toml", "--out", "x.json"], "results of one benchmark"),
        ([], "Nobody said what"),
        (["tiny"], "'tiny' is a model: nobody said what to ask it"),
        (["http://127.0.0.1:9/v1"], "is a model: nobody said what to ask it"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines(
    world: Path, capsys: pytest.CaptureFixture[str], asked: list[str], said: str
) -> None:
    assert main(["eval", *asked]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_items_that_do_not_fit_are_counted_apart(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"q": "the cat " * (200 if i < 2 else 1), "c": [" a", " b"], "g": 0} for i in range(6)]
    write_rows(world / "data/rows.jsonl", rows)
    assert main(["eval", "tiny", "--tasks", "mats.toml", "--json"]) == 0
    out = capsys.readouterr()
    (found,) = json.loads(out.out)
    assert found["failed"] == 2 and found["measures"]["acc"]["n"] == 4
    assert "2 failed" in out.err and "256" in out.err
    right = round(found["measures"]["acc"]["estimate"] * 4)
    assert f"with them, acc lies between {right / 6:.3f} and {(right + 2) / 6:.3f}" in out.err
    assert main(["eval", "tiny", "--tasks", "mats.toml", "--json", "--truncate"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)[0]["failed"] == 0 and "cut at their left" in out.err


def test_the_list_of_benchmarks(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "piqa" in shown and "no data" in shown
    assert main(["eval", "--list", "--data", "gone"]) == 2
    assert "no folder gone" in capsys.readouterr().err


def test_of_several_benchmarks_none_is_asked_twice(world: Path) -> None:
    """Stopped in the second, the same command asks nothing of the first again."""
    from tests.evaluate.harness.harness_world import Nearby

    from windlass.evaluate.harness.definitions import read_benchmark
    from windlass.evaluate.harness.items import make_exam
    from windlass.loop.benchmarks.evaluating import evaluate_model

    write_benchmark(world / "again.toml", CHOICE.replace('"{q}"', '"Once more, {q}"'))
    exams = [make_exam(read_benchmark(str(world / name)), world / "data") for name in ("mats.toml", "again.toml")]
    with Workspace(world) as ws:
        stopped, other, third = Nearby(stop_after=1), Nearby(), Nearby()
        with pytest.raises(KeyboardInterrupt):
            list(evaluate_model(ws, stopped, exams))
        found = list(evaluate_model(ws, other, exams))
        assert all(context.startswith("Once more") for context, _ in other.asked) and len(other.asked) == 120
        assert [len(one.results.items) for one in found] == [40, 40]
        assert not list((ws.root / "benchmarks").glob("*.jsonl"))
        list(evaluate_model(ws, third, exams))
        assert len(third.asked) == 240, "what is done is asked anew: a name may mean another model by now"


def test_what_failed_is_asked_again_and_nothing_else(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.evaluate.harness.harness_world import Nearby

    from windlass.evaluate.harness.definitions import read_benchmark
    from windlass.evaluate.harness.items import make_exam
    from windlass.loop.benchmarks.evaluating import evaluate_model

    exams = [make_exam(read_benchmark(str(world / "mats.toml")), world / "data")]
    with Workspace(world) as ws:
        (found,) = evaluate_model(ws, Nearby(refuse="cat 7 "), exams)
        assert found.failed == 1
        model = Nearby()
        (mended,) = evaluate_model(ws, model, exams)
        assert len(model.asked) == 3 and not mended.failed
        (_,) = evaluate_model(ws, Nearby(refuse="cat 7 "), exams)
        model = Nearby()
        (_,) = evaluate_model(ws, model, exams, again=True)
        assert len(model.asked) == 120, "asked for"


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(world: Path) -> None:
    """kill -9 in the middle; the second run asks what is left, and its results are those of a run in one piece."""
    rows = [
        {"q": f"the cat {i} sat on", "c": [f" {a} {i}" for a in ("mat", "hat", "cat")], "g": i % 3} for i in range(3000)
    ]
    write_rows(world / "data/rows.jsonl", rows)
    command = [sys.executable, "-m", "windlass", "eval", "tiny", "--tasks", "mats.toml", "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        journal: list[Path] = []
        until = time.monotonic() + 120
        while time.monotonic() < until and process.poll() is None:
            journal = [path for path in (world / ".windlass/benchmarks").glob("*.jsonl") if path.stat().st_size > 0]
            if journal:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert journal, "nothing was kept in two minutes"
    kept = journal[0].read_bytes().count(b"\n")
    assert 0 < kept < 9000
    resumed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (found,) = json.loads(resumed.stdout)
    assert found["items"] == 3000 and not journal[0].exists()
    whole = subprocess.run([*command, "--workspace", "."], capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(whole.stdout)[0]["measures"] == found["measures"]
