"""What every `ChatModel` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator

import httpx2
import pytest

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.providers.answers import Answers
from windlass.apply.providers.budget import Budget, Budgeted
from windlass.apply.providers.cached import Cached
from windlass.apply.providers.chat_completions import ChatCompletions
from windlass.apply.providers.fitting import Fitting
from windlass.apply.providers.http import Endpoint
from windlass.apply.providers.ledger import Ledger
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.rag.abstention import AbstentionRule
from windlass.apply.rag.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.documents import Document, write_documents
from windlass.core.errors import Unsupported
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, ChatResponse, Message, Usage
from windlass.core.windows import Window
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

    endpoint = Endpoint("http://model.example/v1", transport=httpx2.MockTransport(handle))
    return RemoteChat(endpoint, ChatCompletions("remote"))


def wrapped(ws: Workspace) -> ChatModel:
    """With all that can stand between a task and its model."""
    remote = Fitting(openai_compatible(ws), window=Window(1000))
    budgeted = Budgeted(remote, Budget("all", tokens=1_000_000), Ledger(ws.root / "budgets.db"))
    return Cached(budgeted, Answers(ws.root / "answers.db"))


def local(ws: Workspace) -> ChatModel:
    """A small random decoder with a chat template, run by our own engine."""
    for package in ("torch", "tokenizers", "jinja2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from tests.serve.engine_world import TEMPLATE, make_folder

    from windlass.serve.engine import LocalModel

    return LocalModel.load(make_folder(ws.home / "model", template=TEMPLATE))


MAKERS: dict[str, Callable[[Workspace], ChatModel]] = {
    "assistant": assistant,
    "openai": openai_compatible,
    "wrapped": wrapped,
    "local": local,
}
REQUEST = ChatRequest([Message("system", "Be brief."), Message("user", "How many hours has the day?")])


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatModel]:
    with Workspace(tmp_path_factory.mktemp("model")) as ws:
        yield MAKERS[request.param](ws)


def checked(model: ChatModel, response: ChatResponse) -> ChatResponse:
    assert response.id and response.model and response.message.role == "assistant" and response.message.text
    assert response.finish_reason in ("stop", "length") and isinstance(response.usage, Usage)
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


def test_calls_of_a_model_that_traces_have_a_trace_of_their_own(model: ChatModel) -> None:
    traces = [model.complete(REQUEST).trace_id for _ in range(2)]
    if traces == [None, None]:
        pytest.skip("whoever calls this model traces it")
    assert len(set(traces)) == 2 and all(trace is not None and len(trace) == 32 for trace in traces)


def test_the_same_seed_gives_the_same_text_streamed_or_not(model: ChatModel) -> None:
    try:
        request = ChatRequest(REQUEST.messages, seed=11)
        texts = {model.complete(request).message.text for _ in range(2)}
    except Unsupported:
        pytest.skip("this model draws nothing, and says so")
    texts.add("".join(delta.text for delta in model.stream(request)))
    assert len(texts) == 1


def test_a_stream_can_be_left_and_the_model_goes_on(model: ChatModel) -> None:
    stream = model.stream(REQUEST)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    checked(model, model.complete(REQUEST))
