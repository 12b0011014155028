"""A real server, real users, and a variant that makes them unhappy: it is gone before anybody looks."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")
pytest.importorskip("torch", reason="needs the embedder of windlass[rag]")

from windlass.cli.main import main
from windlass.core.workspace import Workspace
from windlass.loop.releasing.releases import live
from windlass.loop.releasing.trial import states

pytestmark = pytest.mark.slow

PLANTS = ["beech", "oak", "pine", "willow", "birch", "maple"]
POLICY = """
[primary]
metric = "failed"
rule = "non-inferior"
margin = 0.05

[[guard]]
metric = "feedback"
rule = "non-inferior"
margin = 0.1
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two versions of one index; in the second, each leaf is told of the wrong tree."""
    monkeypatch.chdir(tmp_path)
    main(["init"])
    for version in (0, 1):
        folder = tmp_path / f"trees-{version}"
        folder.mkdir()
        for n, plant in enumerate(PLANTS):
            leaf = f"The leaf of the {plant} is long, and number {(n + version) % len(PLANTS)} of the collection."
            (folder / f"{plant}.md").write_text(f"# {plant}\n\n{leaf}\n\nThe wood of the {plant} burns well in winter.")
        for command in (["corpus", str(folder), "--name", "trees"], ["index", "build", "trees", "--name", "leaves"]):
            assert main(command) == 0
    return tmp_path


def test_a_guard_that_is_violated_rolls_back_on_a_live_server(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "policy.toml").write_text(POLICY)
    assert main(["promote", "assistant", "leaves@1", "--reason", "the first"]) == 0
    start = ["canary", "start", "assistant", "leaves@2", "--share", "0.5", "--policy", "policy.toml"]
    assert main([*start, "--planned", "300"]) == 0
    command = [sys.executable, "-m", "windlass", "serve", "assistant", "--port", "0", "--look", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told: list[str] = []
    rolled_back, listening = threading.Event(), threading.Event()

    def read() -> None:
        assert server.stdout is not None
        for line in server.stdout:
            told.append(line)
            if line.startswith("OpenAI API"):
                listening.set()
            if "trial of 'assistant' rolled back" in line:
                rolled_back.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert listening.wait(120), told
        (url,) = (found[1] for line in told if (found := re.search(r"OpenAI API\s+(\S+)/v1", line)))
        with httpx2.Client(base_url=url, timeout=60) as client:
            for n in range(400):
                _ask_and_judge(client, n)
                if rolled_back.is_set():
                    break
            assert rolled_back.wait(60), "nobody typed `windlass canary look`"
            assert {_ask_and_judge(client, 1000 + n) for n in range(12)} == {True}, "all have what was live again"
    finally:
        server.terminate()
        server.wait(60)
        reader.join(60)
        server.stdout.close()  # type: ignore[union-attr]
    with Workspace(home) as ws:
        (state,) = states(ws, "assistant")
        assert state.outcome == "rolled back" and "feedback changes by" in state.reason
        assert live(ws, "assistant").variant == state.trial.incumbent  # type: ignore[union-attr]
    capsys.readouterr()
    assert main(["releases", "assistant"]) == 0
    assert "rolled back" in capsys.readouterr().out


def _ask_and_judge(client: httpx2.Client, n: int) -> bool:
    """A user who knows the right answer."""
    number = n % len(PLANTS)
    messages = [{"role": "user", "content": f"Which number has the leaf of the {PLANTS[number]}?"}]
    body = {"model": "assistant", "messages": messages, "metadata": {"user_id": f"user-{n}"}}
    answer = client.post("/v1/chat/completions", json=body).json()
    content = answer["choices"][0]["message"]["content"]
    good = f"{PLANTS[number]} is long, and number {number} of" in content
    said = {"trace_id": answer["windlass"]["trace_id"], "value": float(good), "user": f"user-{n}"}
    assert client.post("/v1/feedback", json=said).status_code == 200
    return good
