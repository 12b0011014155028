"""A whole scaling study on a corpus of a few pages, and the picture it leaves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.cli.main import main
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace
from windlass.loop.training.loglog import Curve, loglog

SETTINGS = ["model.context=32", "data.batch=4", "run.compile=no", "run.evaluate_seconds=1000"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(12):
        words = " ".join(("wind", "lass", "rope", "load", "pawl")[(i * j + j * j) % 5] for j in range(200))
        (texts / f"part{i}.txt").write_text(f"Part {i}. {words}.\n", encoding="utf-8")
    with Workspace(tmp_path) as ws:
        train_tokenizer(ws, build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.25)), 330, allow_smaller=True)
    return tmp_path


@pytest.mark.slow
def test_a_study_trains_fits_predicts_and_checks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scaling", "--depths", "1", "2", "--steps", "4", "8", "12", "--check", "2", "16"]
    command += [word for setting in SETTINGS for word in ("--set", setting)] + ["--workspace", str(home)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "depth 2, 16 steps: predicted" in said and "the interval" in said
    assert "log10 of training FLOPs" in said
    with Workspace(home) as ws:
        report = ws.artifacts.get("scaling")
        facts = json.loads((report.path / "scaling.json").read_text())
        assert [(run["depth"], run["steps"]) for run in facts["runs"]] == [(d, s) for d in (1, 2) for s in (4, 8, 12)]
        assert all(run["flops"] > 0 and run["observation"]["tokens"] == run["steps"] * 128 for run in facts["runs"])
        check = facts["check"]
        assert check["low"] <= check["high"]
        assert check["inside"] == (check["low"] <= check["point"]["observation"]["loss"] <= check["high"])
        ElementTree.fromstring((report.path / "scaling.svg").read_text())
        assert len(ws.runs.list("pretrain")) == 7
    assert main(command) == 0  # finished runs are taken up again
    with Workspace(home) as ws:
        assert len(ws.runs.list("pretrain")) == 7


def test_too_few_runs_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["scaling", "--depths", "1", "--steps", "2", "3", "--workspace", str(home)]
    assert main(command + [word for setting in SETTINGS for word in ("--set", setting)]) == 2
    assert "too few" in capsys.readouterr().err
    with Workspace(home) as ws:
        assert not ws.runs.list("pretrain")


def test_larger_values_lie_further_right_and_higher() -> None:
    curve = Curve("a & b", [(1e9, 4.0), (1e11, 2.0)], [(1e9, 4.0), (1e11, 2.0)])
    root = ElementTree.fromstring(loglog([curve], (1e12, 1.8, 1.9), x_label="x", y_label="y"))
    circles = [
        (float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert circles[0][0] < circles[1][0] and circles[0][1] < circles[1][1]
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a & b" in texts and any(text == "1e10" for text in texts)
