"""Simulated users over the real server: sticky variants, feedback, and a harmful one taken back while they ask."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from traffic import TASK, variant

pytest.importorskip("starlette", reason="needs windlass[serve]")

import uvicorn

from windlass.cli.main import main
from windlass.core.artifacts import Artifact
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace
from windlass.loop.releasing.releases import promote
from windlass.loop.releasing.routing import Routed
from windlass.loop.releasing.trial import must_run, states
from windlass.serve.app import create_app


class Parrot:
    """Answers with the name of its variant; the broken one fails for half of the calls."""

    name = TASK

    def __init__(self, made_of: Artifact, recorder: Recorder) -> None:
        self.digest, self._recorder = made_of.digest, recorder
        self.says = (made_of.path / "variant.json").read_text()
        self._chance = random.Random(0)

    def complete(self, request: ChatRequest) -> ChatResponse:
        with self._recorder.span(TASK) as span:
            if self.says == "broken" and self._chance.random() < 0.5:
                raise ProviderError("down")
            return ChatResponse("1", self.name, Message("assistant", self.says), "stop", trace_id=span.trace_id)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        response = self.complete(request)
        yield ChatDelta(response.message.text)
        yield ChatDelta(response=response)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Workspace, str]]:
    def load(made_of: Artifact) -> Parrot:
        if (made_of.path / "variant.json").read_text() == "unloadable":
            raise ConfigError("no such index")
        return Parrot(made_of, ws.recorder)

    with Workspace(tmp_path) as ws, socket.socket() as listening:
        promote(ws, TASK, variant(ws, "live"), None, "the first")
        routed = Routed(ws, TASK, load, tell=lambda line: None)
        app = create_app({TASK: routed}, {}, store=ws.store, recorder=ws.recorder, folder=tmp_path / "serve")
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield ws, f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


def ask(client: httpx2.Client, user: str, stream: bool = False) -> str | None:
    """What was answered; None for a failure."""
    body = {"model": TASK, "messages": [{"role": "user", "content": "Who are you?"}], "user": user, "stream": stream}
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        return None
    return "candidate" if "candidate" in response.text else "broken" if "broken" in response.text else "live"


def windlass(ws: Workspace, *arguments: str) -> int:
    return main([*arguments, "--workspace", str(ws.home)])


def test_users_stay_with_their_variant_while_its_share_grows(
    home: tuple[Workspace, str], capsys: pytest.CaptureFixture[str]
) -> None:
    ws, url = home
    new = variant(ws, "candidate")
    assert windlass(ws, "canary", "start", TASK, new.ref, "--share", "0.3") == 0
    users = [f"user-{n}" for n in range(40)]
    with httpx2.Client(base_url=url, timeout=30) as client:
        first = {user: ask(client, user) for user in users}
        assert 3 <= sum(said == "candidate" for said in first.values()) <= 22
        assert {user: ask(client, user, stream=True) for user in users} == first, "streams, too"
        assert windlass(ws, "canary", "share", TASK, new.ref, "0.7") == 0
        grown = {user: ask(client, user) for user in users}
        assert all(grown[user] == "candidate" for user in users if first[user] == "candidate")
        assert sum(said == "candidate" for said in grown.values()) > 17
        capsys.readouterr()
        assert windlass(ws, "canary", "show", TASK) == 0
        assert "70.0%" in capsys.readouterr().out
        ws.recorder.flush()
        (root,) = [t.root for t in ws.store.traces(name=TASK, limit=1)]
        assert root.attributes["windlass.trial.propensity"] in (0.7, pytest.approx(0.3))
        assert root.attributes["windlass.trial.unit"] == "user-39"
        assert windlass(ws, "canary", "promote", TASK, new.ref) == 0
        assert {ask(client, user) for user in users} == {"candidate"}
        assert windlass(ws, "rollback", TASK) == 0
        assert {ask(client, user) for user in users[:5]} == {"live"}


def test_a_harmful_variant_is_taken_back_while_users_ask(home: tuple[Workspace, str]) -> None:
    ws, url = home
    assert windlass(ws, "canary", "start", TASK, variant(ws, "broken").ref, "--share", "0.5", "--planned", "300") == 0
    status = 4
    with httpx2.Client(base_url=url, timeout=30) as client:
        for step in range(8):
            for n in range(50):
                ask(client, f"user-{step}-{n}")
            status = windlass(ws, "canary", "look", TASK)
            if status != 4:
                break
        assert status == 3
        (state,) = states(ws, TASK)
        assert state.outcome == "rolled back" and "failed changes by" in state.reason
        assert {ask(client, f"after-{n}") for n in range(20)} == {"live"}


def test_a_variant_that_cannot_be_loaded_gets_nobody(home: tuple[Workspace, str]) -> None:
    ws, url = home
    assert windlass(ws, "canary", "start", TASK, variant(ws, "unloadable").ref, "--share", "0.5") == 0
    with httpx2.Client(base_url=url, timeout=30) as client:
        assert {ask(client, f"user-{n}") for n in range(20)} == {"live"}
    assert must_run(ws, TASK).running


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["start", TASK, "none"], "no artifact 'none'"),
        (["start", TASK, "assistant@1"], "is what is live already"),
        (["start", TASK, "assistant@2", "assistant@2"], "is there twice"),
        (["start", TASK, "assistant@2", "--share", "1.5"], "not parts of one whole"),
        (["start", "nothing", "assistant@2"], "Nothing is released"),
        (["start", TASK, "assistant@2", "--share", "0"], "compared with nobody"),
        (["start", TASK, "assistant@2", "--planned", "0"], "compares nobody"),
        (["start", TASK, "assistant@2", "--bandit", "--floor", "0.5"], "cannot keep a share of 0.5 each"),
        (["start", TASK, "assistant@2", "--bandit", "--floor", "0"], "cannot keep a share of 0 each"),
        (["start", TASK, "assistant@2", "--bandit", "--reward", "latency_ms"], "is no such metric"),
        (["share", TASK, "assistant@2", "0.5"], "No trial of 'assistant' runs"),
        (["show", TASK], "There was no trial"),
        (["look", TASK], "No trial"),
        (["stop", TASK], "No trial"),
    ],
)
def test_bad_input_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    with Workspace(tmp_path) as ws:
        promote(ws, TASK, variant(ws, "live"), None, "the first")
        variant(ws, "candidate")
        assert windlass(ws, "canary", *arguments) in (1, 2, 4)
        err = capsys.readouterr().err
        assert why in err and "Traceback" not in err
        assert windlass(ws, "promote", TASK, "assistant@2") == 2 and "Nothing says why" in capsys.readouterr().err
        assert windlass(ws, "promote", TASK, "assistant@2", "--reason", "asked for") == 0
