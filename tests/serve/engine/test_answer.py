"""A request ends when nobody waits for it, or when its time is over: in line, between parts of its prompt, between
tokens, in a beam search; over HTTP too."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("uvicorn")
sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx2 as httpx  # noqa: E402
from engine_world import make_folder  # noqa: E402

from windlass.core.errors import TimedOut  # noqa: E402
from windlass.core.sqlite_store import SqliteStore  # noqa: E402
from windlass.core.trace import Recorder  # noqa: E402
from windlass.core.values import ChatRequest, Message  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.engine.local import LocalModel  # noqa: E402
from windlass.serve.limits import Limits  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

LONG = list(range(200)) * 10
"""A prompt that is read in 125 steps."""
STAGES = {
    "in line": lambda stats: stats["waiting"] == 1,
    "in its prompt": lambda stats: stats["kv_held"] > 0 and not stats["written_tokens"],
    "in its answer": lambda stats: stats["written_tokens"] > 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "base", context=4096)


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Iterator[LocalModel]:
    """One that is in no hurry: a step takes at least ten milliseconds."""
    store = SqliteStore(tmp_path / "windlass.db")
    recorder = Recorder(store)
    model = LocalModel.load(folder, name="m", max_batch=1, token_budget=16, recorder=recorder)
    run = model.engine._runner.run

    def slowly(*arguments: Any) -> None:
        time.sleep(0.01)
        run(*arguments)

    model.engine._runner.run = slowly
    yield model
    model.close()
    recorder.close()
    store.close()


def ask(prompt: list[int] | None = None, **fields: Any) -> ChatRequest:
    extra = {"prompt_token_ids": LONG if prompt is None else prompt} | fields.pop("extra", {})
    return ChatRequest([Message("user", "")], extra=extra, **{"temperature": 0.0, "max_tokens": 1500} | fields)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def in_stage(model: LocalModel, stage: str) -> tuple[list[int], Any]:
    """The prompt of a request that reaches the stage, and what stands in its way."""
    before = None
    if stage == "in line":
        before = model.stream(ask([1]))
        next(before)
    return [1] if stage == "in its answer" else LONG, before


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_ends_it_while_another_thread_waits(model: LocalModel, stage: str) -> None:
    prompt, before = in_stage(model, stage)
    written = model.stats()["written_tokens"]
    answer, read = model.stream(ask(prompt)), []
    reader = threading.Thread(target=lambda: read.extend(answer))
    reader.start()
    until(lambda: STAGES[stage](model.stats()))
    steps = model.stats()["steps"]
    answer.cancel()
    reader.join(30)
    assert not reader.is_alive() and not [delta for delta in read if delta.response]
    stats = model.stats()
    assert (stats["waiting"], stats["cancelled"], stats["running"]) == (0, 1, 0 if before is None else 1)
    assert stats["steps"] - steps < 60, "at once, not at the end of the prompt"
    if before is None:
        assert stats["kv_held"] == 0
        assert bool(stats["written_tokens"] - written) == (stage == "in its answer") == bool(read)
    else:
        before.close()
    answer.cancel()  # once more does nothing
    model._voice.recorder.flush()
    store = model._voice.recorder._store
    roots = [trace.root for trace in store.traces()]
    assert len(roots) == 1 + (before is not None)
    assert all(root.status == "ok" and root.attributes["windlass.stopped_early"] for root in roots), "nothing failed"


def test_what_is_cancelled_before_it_begins_never_runs(model: LocalModel) -> None:
    answer = model.stream(ask())
    answer.cancel()
    assert list(answer) == [] and model.stats()["steps"] <= 1


def test_an_answer_that_is_dropped_ends(model: LocalModel) -> None:
    for _ in model.stream(ask([1])):
        break
    until(lambda: model.stats()["cancelled"] == 1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_deadline_ends_it(model: LocalModel, stage: str) -> None:
    prompt, before = in_stage(model, stage)
    answer, read = model.stream(ask(prompt, timeout=0.2)), []
    with pytest.raises(TimedOut, match=r"'m' had not finished its answer after 0\.2 s"):
        read.extend(answer)
    stats = model.stats()
    assert (stats["late"], stats["waiting"], stats["running"]) == (1, 0, 0 if before is None else 1)
    assert bool(read) == (stage == "in its answer"), "what was written in time can be read"
    if before is not None:
        before.close()
    until(lambda: model.stats()["kv_held"] == 0)


def test_time_that_is_over_before_the_turn_comes_costs_no_step(model: LocalModel) -> None:
    with pytest.raises(TimedOut):
        model.complete(ask(timeout=-1.0))
    assert model.stats()["prompt_tokens"] == 0


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_beam_search_ends_too(model: LocalModel, how: str) -> None:
    turns, turn = [], model.engine.turn

    def counted(work: Callable[[], None]) -> None:
        turns.append(time.sleep(0.005))
        turn(work)

    model.engine.turn = counted  # type: ignore[method-assign]
    answer = model.stream(ask([1], extra={"beam_width": 2}, timeout=0.3 if how == "deadline" else None))
    if how == "cancel":
        threading.Timer(0.3, answer.cancel).start()
        assert list(answer) == []
    else:
        with pytest.raises(TimedOut):
            list(answer)
    assert 0 < len(turns) < 200


# over HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def url(model: LocalModel) -> Iterator[str]:
    app = create_app({"m": model}, {}, limits=Limits(request_seconds=1.0, running=1, waiting=1))
    with ServerThread(app) as server:
        yield server.url


def body(prompt: list[int], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": prompt, "max_tokens": 1500, "temperature": 0} | fields


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_leaves_takes_its_request_along(model: LocalModel, stage: str, stream: bool) -> None:
    prompt, before = in_stage(model, stage)
    with ServerThread(create_app({"m": model}, {}, limits=Limits(running=1, waiting=1))) as server:  # no clock ends it
        client = sent(server.url, body(prompt, stream=stream))
        until(lambda: STAGES[stage](model.stats()))
        client.close()
        until(lambda: model.stats()["cancelled"] == 1)
    if before is None:
        assert model.stats()["kv_held"] == model.stats()["running"] == 0
    else:
        before.close()


def sent(url: str, fields: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent, and nothing read."""
    data = json.dumps(fields).encode()
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def test_who_leaves_the_line_for_a_thread_gives_the_place_back(model: LocalModel) -> None:
    app = create_app({"m": model}, {}, limits=Limits(running=1, waiting=1))  # with time on a busy machine too
    with ServerThread(app) as server:

        def in_progress() -> str:
            lines = httpx.get(f"{server.url}/metrics").text.splitlines()
            return next(line for line in lines if line.startswith("windlass_requests_in_progress "))

        first = sent(server.url, body([1], max_tokens=4000))
        until(lambda: model.stats()["running"] == 1)
        second = sent(server.url, body([2]))
        until(lambda: in_progress().endswith(" 2"))
        second.close()
        until(lambda: in_progress().endswith(" 1"))
        assert (model.stats()["requests"], model.stats()["ended"]) == (1, 0), "the first is still being answered"
        first.close()


@pytest.mark.parametrize("stage", ["in its prompt", "in its answer"])
def test_the_servers_limit_is_504(model: LocalModel, url: str, stage: str) -> None:
    prompt, _ = in_stage(model, stage)
    refused = httpx.post(f"{url}/v1/completions", json=body(prompt))
    assert refused.status_code == 504
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "timeout") and "had not finished" in error["message"]
    assert (model.stats()["late"], model.stats()["kv_held"], model.stats()["cancelled"]) == (1, 0, 0)


def test_a_stream_that_takes_too_long_ends_with_an_error(model: LocalModel, url: str) -> None:
    answer = httpx.post(f"{url}/v1/completions", json=body([1], stream=True))
    events = [line for line in answer.text.splitlines() if line]
    assert len(events) > 3 and '"code":"timeout"' in events[-1] and "[DONE]" not in answer.text


@pytest.mark.parametrize("fields", [{"n": 2}, {"best_of": 2}])
def test_several_answers_of_one_beam_search_are_refused_by_name(url: str, fields: dict[str, int]) -> None:
    refused = httpx.post(f"{url}/v1/completions", json=body([1], beam_width=3, **fields))
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "beam_width"


def test_an_answer_that_ends_by_itself_is_whole_however_late_the_engine_says_so(model: LocalModel) -> None:
    scheduler = model.engine._scheduler
    end, (last,) = scheduler.end, model.complete(ask([5, 6, 7], max_tokens=1, logprobs=0)).logprobs

    def late(row: Any, finish: Any, error: Any = None) -> None:
        time.sleep(0.1)  # between the last token and the end
        end(row, finish, error)

    scheduler.end = late
    answer = model.complete(ask([5, 6, 7], max_tokens=9, extra={"stop_token_ids": [last.id]}))
    assert answer.finish_reason == "stop" and answer.message.text == ""
