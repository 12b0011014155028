"""What every `AsyncChatModel` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from tests.apply.every_provider import KEYS, SPOKEN

from windlass.apply.providers import known
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.wrappers.pool import Pool
from windlass.core.errors import Unsupported
from windlass.core.protocols import AsyncChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, Usage

T = TypeVar("T")


def real() -> AsyncChatModel:
    """A provider, over the network; see docs/testing.md."""
    if not (name := os.environ.get("WINDLASS_TEST_MODEL")):
        pytest.skip("WINDLASS_TEST_MODEL names no model (provider:name) to ask for real")
    return known.model(name)


MAKERS: dict[str, Callable[[], AsyncChatModel]] = {
    "real": real,
    "pool": lambda: Pool([SPOKEN["anthropic"].serving(), SPOKEN["gemini"].serving()]),
    **{name: spoken.serving for name, spoken in SPOKEN.items()},
}
REQUEST = ChatRequest([Message("system", "Be brief."), Message("user", "How many hours has the day?")])


@pytest.fixture(params=list(MAKERS))
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncChatModel:
    for name, value in ({} if request.param == "real" else KEYS).items():
        monkeypatch.setenv(name, value)
    return MAKERS[request.param]()


def checked(response: ChatResponse | None) -> ChatResponse:
    assert response is not None
    assert response.id and response.model and response.message.role == "assistant" and response.message.text
    assert response.finish_reason in ("stop", "length") and isinstance(response.usage, Usage)
    return response


def run(model: AsyncChatModel, work: Coroutine[Any, Any, T]) -> T:
    """On an event loop of its own, whose connections are closed with it."""

    async def whole() -> T:
        try:
            return await work
        finally:
            if isinstance(model, RemoteChat):
                await model.aclose()

    return asyncio.run(whole())


async def read(model: AsyncChatModel, request: ChatRequest) -> list[ChatDelta]:
    return [delta async for delta in model.astream(request)]


def test_it_answers(model: AsyncChatModel) -> None:
    assert isinstance(model, AsyncChatModel) and model.name
    assert model.digest is None or len(model.digest) == 64
    checked(run(model, model.acomplete(REQUEST)))


def test_the_stream_adds_up_to_its_last_response(model: AsyncChatModel) -> None:
    *pieces, last = run(model, read(model, REQUEST))
    assert pieces and all(piece.response is None for piece in pieces)
    text = "".join(delta.text for delta in (*pieces, last))
    assert text == checked(last.response).message.text


def test_a_parameter_it_does_not_know_is_refused(model: AsyncChatModel) -> None:
    request = ChatRequest(REQUEST.messages, extra={"no_such_parameter": 1})
    with pytest.raises(Unsupported, match="no_such_parameter"):
        run(model, model.acomplete(request))
    with pytest.raises(Unsupported, match="no_such_parameter"):
        run(model, read(model, request))


def test_many_may_ask_at_once_and_one_may_leave(model: AsyncChatModel) -> None:
    async def leave() -> None:
        stream = model.astream(REQUEST)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    async def all_of_them() -> list[ChatResponse]:
        *answers, _ = await asyncio.gather(*(model.acomplete(REQUEST) for _ in range(5)), leave())
        return [*answers, await model.acomplete(REQUEST)]

    assert len({checked(answer).message.text for answer in run(model, all_of_them())}) == 1


def test_another_event_loop_may_ask_it_next(model: AsyncChatModel) -> None:
    first = checked(run(model, model.acomplete(REQUEST)))
    *_, last = run(model, read(model, REQUEST))
    assert checked(last.response).message == first.message
