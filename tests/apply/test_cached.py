"""Answers that are kept: what counts as the same question, what is never kept, what a kept answer says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.cached import Cached
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import ConfigError, DiskFull, ProviderError, WorkspaceCorrupt
from windlass.core.protocols import AsyncChatModel, ChatModel
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Kept, Message, ToolCall, Usage
from windlass.testing import Scripted


class Known(Scripted):
    """A scripted model that can be told from others."""

    identity = "http://model.example"


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Answers]:
    made = Answers(tmp_path / "cache" / "answers.db")
    yield made
    made.close()


def ask(text: str = "hi", **parameters: Any) -> ChatRequest:
    return ChatRequest([Message("user", text)], **parameters)


def whole(model: Any, request: ChatRequest) -> ChatResponse:
    return model.complete(request)  # type: ignore[no-any-return]


def streamed(model: Any, request: ChatRequest) -> ChatResponse:
    return read([*model.stream(request)])


def awaited(model: Any, request: ChatRequest) -> ChatResponse:
    return asyncio.run(model.acomplete(request))


def astreamed(model: Any, request: ChatRequest) -> ChatResponse:
    async def run() -> list[ChatDelta]:
        return [delta async for delta in model.astream(request)]

    return read(asyncio.run(run()))


def read(deltas: list[ChatDelta]) -> ChatResponse:
    response = deltas[-1].response
    assert response is not None and "".join(d.text for d in deltas) == response.message.text
    assert "".join(d.reasoning for d in deltas) in ("", response.message.reasoning)
    return response


WAYS = [whole, streamed, awaited, astreamed]


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_the_second_time_costs_nothing_and_says_so(
    answers: Answers, first: Callable[..., ChatResponse], second: Callable[..., ChatResponse]
) -> None:
    model = Known("yes", cost_usd=0.5)
    cached = Cached(model, answers)
    assert isinstance(cached, ChatModel) and isinstance(cached, AsyncChatModel) and cached.name == "scripted"
    with Recorder(None).span("one") as one:
        made = first(cached, ask())
    with Recorder(None).span("two") as two:
        kept = second(cached, ask())
    assert len(model.requests) == 1
    assert made.kept is None and made.cost_usd == 0.5 and "windlass.kept" not in one.attributes
    assert kept.message == made.message and kept.id == made.id
    assert kept.kept == Kept(made.usage, 0.5) and kept.cost_usd == 0 and kept.usage == Usage(input=0, output=0)
    assert two.attributes["windlass.kept"] == "exact" and two.attributes["windlass.saved.usd"] == 0.5


def test_reasoning_and_calls_are_kept(answers: Answers) -> None:
    message = Message("assistant", "", [ToolCall("1", "look", "{}")], reasoning="hm", sealed=("api", {"sig": "x"}))
    cached = Cached(Known(ChatResponse("1", "m", message, "tool_calls")), answers)
    cached.complete(ask())
    deltas = [*cached.stream(ask())]
    assert [delta.reasoning for delta in deltas] == ["hm", "", ""]
    assert [call.name for delta in deltas for call in delta.calls] == ["look"]
    assert deltas[-1].response is not None and deltas[-1].response.message == message


def test_a_changed_result_does_not_change_the_next(answers: Answers) -> None:
    said = {"steps": ["one"]}
    response = ChatResponse("1", "m", Message("assistant", "hi", sealed=("api", said)), "stop")
    cached = Cached(Known(response), answers)
    for _ in range(3):
        given = cached.complete(ask()).message.sealed
        assert given == ("api", {"steps": ["one"]})
        given[1]["steps"].append("two")


@pytest.mark.parametrize(
    "answer",
    [
        ChatResponse("1", "m", Message("assistant", "no"), "stop", refused=True),
        ChatResponse("1", "m", Message("assistant", "once upon"), "length"),
        ChatResponse("1", "m", Message("assistant", ""), "content_filter"),
        ChatResponse("1", "m", Message("assistant", "?"), "error"),
        ProviderError("down", status=503),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_good_answer_is_asked_for_again(answers: Answers, way: Any, answer: Any) -> None:
    cached = Cached(Known(answer, "better"), answers)
    try:
        way(cached, ask())
    except ProviderError:
        assert isinstance(answer, ProviderError)
    assert answers.held().answers == 0
    assert way(cached, ask()).message.text == "better"


def test_draws_of_one_request_are_kept_apart(answers: Answers) -> None:
    model = Known("a", "b", "c")
    cached = Cached(model, answers, embedder=HashingEmbedder(), threshold=0.5)
    requests = [replace(ask("q"), draw=draw) for draw in range(3)]
    assert [cached.complete(request).message.text for request in requests] == ["a", "b", "c"]
    assert [cached.complete(request).message.text for request in requests] == ["a", "b", "c"]
    assert len(model.requests) == 3


def test_only_the_waiting_may_differ(answers: Answers) -> None:
    cached = Cached(Known("a", "b"), answers)
    cached.complete(ask())
    assert cached.complete(ask(timeout=3.0, background=True)).kept is not None
    assert cached.complete(ask(temperature=0.5)).kept is None


def test_a_model_at_another_address_is_another_model(answers: Answers) -> None:
    def at(url: str, name: str = "m", **options: Any) -> Any:
        return Cached(RemoteChat(Endpoint(url, **options), ChatCompletions(name)), answers).identity

    here = at("http://a.example/v1")
    assert here == at("http://a.example/v1/")
    others = [at("http://b.example/v1"), at("http://a.example/v1", "n"), at("http://a.example/v1", headers={"X": "1"})]
    assert all(other != here for other in others)
    assert "secret" not in str(at("http://a.example/v1", headers={"X-Key": "secret"}))


def test_a_model_that_cannot_be_told_from_others_is_not_cached(answers: Answers) -> None:
    with pytest.raises(ConfigError, match="'scripted'"):
        Cached(Scripted(), answers)
    with pytest.raises(ConfigError, match="'scripted'"):
        Cached(Pool([Known(), Scripted()]), answers)

    class Local(Scripted):
        digest = "abc"

    assert Cached(Pool([Known(), Local()]), answers).identity == ["http://model.example", ["scripted", "abc", None]]


def test_similar_questions_share_an_answer_that_says_how_similar(answers: Answers) -> None:
    model = Known("Paris", "Rome", "Paris, sir", cost_usd=0.5)
    cached = Cached(model, answers, embedder=HashingEmbedder(), threshold=0.7)
    cached.complete(ask("What is the capital city of France today?"))
    with Recorder(None).span("call") as span:
        near = cached.complete(ask("What is the capital city of France?"))
    assert near.message.text == "Paris" and near.kept is not None and near.cost_usd == 0
    assert near.kept.similarity == span.attributes["windlass.kept.similarity"] and 0.7 <= near.kept.similarity < 1
    assert span.attributes["windlass.kept"] == "similar" and near.kept.cost_usd == 0.5
    assert cached.complete(ask("Where do the Romans live, and why?")).message.text == "Rome"
    other_frame = ChatRequest([Message("system", "Be polite."), *ask("What is the capital city of France?").messages])
    assert cached.complete(other_frame).message.text == "Paris, sir"
    assert Cached(Known("anew"), answers).complete(ask("What is the capital city of France?")).message.text == "anew"


@pytest.mark.parametrize("options", [{"threshold": 0.9}, {"embedder": HashingEmbedder()}])
def test_similarity_needs_embedder_and_threshold(answers: Answers, options: Any) -> None:
    with pytest.raises(ConfigError, match="both"):
        Cached(Known(), answers, **options)


def test_it_stays_within_its_room_and_drops_what_was_not_used(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.db", limit=1 << 16)
    for n in range(100):
        assert answers.put(str(n), ChatResponse(str(n), "m", Message("assistant", "x" * 2000), "stop"))
        assert answers.held().bytes <= 1 << 16
    held = answers.held().answers
    assert 20 < held < 35
    assert [n for n in range(100) if answers.get(str(n)) is not None] == [*range(100 - held, 100)]
    assert not answers.put("large", ChatResponse("1", "m", Message("assistant", "x" * 20_000), "stop"))
    assert answers.clear() == held and answers.held().bytes == 0
    with pytest.raises(ConfigError, match="holds nothing"):
        Answers(tmp_path / "none.db", limit=0)


def test_reading_writes_down_a_use_once_in_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("windlass.apply.wrappers.answers.time.time", lambda: now)
    answers = Answers(tmp_path / "answers.db", limit=1 << 16)
    one = ChatResponse("1", "m", Message("assistant", "x" * 15_000), "stop")
    for key in "abc":
        answers.put(key, one)
        now += 1
    now += 4000
    answers.get("a")  # now the one that was used last
    for key in "de":
        answers.put(key, one)
    assert [key for key in "abcde" if answers.get(key)] == ["a", "d", "e"]


def test_an_answer_is_served_though_its_use_cannot_be_written_down(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def full() -> Iterator[Any]:
        raise DiskFull("No space left.")
        yield

    cached = Cached(Known("yes"), answers)
    cached.complete(ask())
    monkeypatch.setattr("windlass.apply.wrappers.answers._STALE", -1.0)
    monkeypatch.setattr(answers._database, "write", full)
    assert cached.complete(ask()).kept is not None


def test_what_another_version_wrote_is_asked_for_again(answers: Answers) -> None:
    model = Known("a", "b")
    cached = Cached(model, answers)
    cached.complete(ask())
    with answers._database.write() as connection:
        connection.execute("UPDATE answers SET answer = ?", ('{"$":"Newer"}',))
    assert cached.complete(ask()).message.text == "b"
    assert cached.complete(ask()).kept is not None


def test_a_paid_answer_is_given_even_when_it_cannot_be_kept(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> bool:
        raise DiskFull("No space left.")

    monkeypatch.setattr(answers, "put", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert Cached(Known("yes"), answers).complete(ask()).message.text == "yes"


def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"no database" * 500)
    with pytest.raises(WorkspaceCorrupt, match="Delete"):
        Answers(path)


OTHER = """
import sys
from pathlib import Path
from windlass.apply.wrappers.answers import Answers
from windlass.core.values import ChatResponse, Message
answers = Answers(Path(sys.argv[1]))
for n in range(30):
    answers.put(f"{sys.argv[2]}-{n}", ChatResponse("1", "m", Message("assistant", sys.argv[2]), "stop"))
    answers.put("shared", ChatResponse("1", "m", Message("assistant", sys.argv[2]), "stop"))
"""


def test_processes_share_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    others = [subprocess.Popen([sys.executable, "-c", OTHER, str(path), name]) for name in "ab"]
    assert [other.wait(timeout=120) for other in others] == [0, 0]
    answers = Answers(path)
    assert answers.held().answers == 61
    shared = answers.get("shared")
    assert shared is not None and shared.message.text in "ab"


def test_cancelling_a_call_ends_it_and_keeps_nothing(answers: Answers) -> None:
    class Slow(Known):
        async def acomplete(self, request: ChatRequest) -> ChatResponse:
            await asyncio.sleep(60)
            raise AssertionError("not cancelled")

    async def run() -> None:
        call = asyncio.create_task(Cached(Slow(), answers).acomplete(ask()))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(run())
    assert answers.held().answers == 0


def test_nearest_of_none_is_none(answers: Answers) -> None:
    assert answers.nearest("kind", np.ones(4, np.float32) / 2) is None
