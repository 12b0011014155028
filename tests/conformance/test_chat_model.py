"""What every `ChatModel` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.providers.http import Endpoint
from windlass.apply.providers.openai_compatible import OpenAIChat
from windlass.apply.rag.abstention import AbstentionRule
from windlass.apply.rag.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.documents import Document, write_documents
from windlass.core.errors import Unsupported
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace


def assistant(ws: Workspace) -> ChatModel:
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(
            draft.path / "documents.jsonl", [Document("d", "d.txt", "Day", "The day has 24 hours, the year 365 days.")]
        )
    embedder = HashingEmbedder()
    index = HybridIndex.open(build_index(ws, draft.done, embedder), embedder)
    return Assistant(index, AssistantSettings(abstention=AbstentionRule(threshold=0.0)))


def openai_compatible(ws: Workspace) -> ChatModel:
    """Against a server in memory that speaks the OpenAI API."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        base = {"id": "c", "model": body["model"], "created": 1}
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        if not body.get("stream"):
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": "It has 24 hours."},
                "finish_reason": "stop",
            }
            return httpx2.Response(200, json={**base, "choices": [choice], "usage": usage})
        chunks = [{"index": 0, "delta": {"content": t}, "finish_reason": None} for t in ("It has", " 24 hours.")]
        chunks.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        lines = [{**base, "choices": [c]} for c in chunks] + [{**base, "choices": [], "usage": usage}]
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        return httpx2.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})

    return OpenAIChat(Endpoint("http://model.example/v1", transport=httpx2.MockTransport(handle)), "remote")


MAKERS: dict[str, Callable[[Workspace], ChatModel]] = {"assistant": assistant, "openai": openai_compatible}
REQUEST = ChatRequest([Message("system", "Be brief."), Message("user", "How many hours has the day?")])


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatModel]:
    with Workspace(tmp_path_factory.mktemp("model")) as ws:
        yield MAKERS[request.param](ws)


def checked(model: ChatModel, response: ChatResponse) -> ChatResponse:
    assert response.id and response.model and response.message.role == "assistant" and response.message.text
    assert response.finish_reason == "stop" and isinstance(response.usage, Usage)
    assert all(count is None or count >= 0 for count in (response.usage.input, response.usage.output))
    return response


def test_it_answers(model: ChatModel) -> None:
    assert isinstance(model, ChatModel) and model.name
    assert model.digest is None or len(model.digest) == 64
    checked(model, model.complete(REQUEST))


def test_the_stream_adds_up_to_its_last_response(model: ChatModel) -> None:
    deltas = list(model.stream(REQUEST))
    *pieces, last = deltas
    assert pieces and all(piece.response is None for piece in pieces)
    assert last.response is not None
    response = checked(model, last.response)
    assert "".join(delta.text for delta in deltas) == response.message.text


def test_a_parameter_it_does_not_know_is_refused(model: ChatModel) -> None:
    request = ChatRequest(REQUEST.messages, extra={"no_such_parameter": 1})
    with pytest.raises(Unsupported, match="no_such_parameter"):
        model.complete(request)
    with pytest.raises(Unsupported, match="no_such_parameter"):
        list(model.stream(request))
