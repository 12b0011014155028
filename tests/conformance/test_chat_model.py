"""What every `ChatModel` must do. A new implementation adds itself to `MAKERS`."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from tests.apply.every_provider import KEYS, SPOKEN, Spoken

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.providers import known
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.budget import Budget, Budgeted
from windlass.apply.wrappers.cached import Cached
from windlass.apply.wrappers.fitting import Fitting
from windlass.apply.wrappers.ledger import Ledger
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


def wrapped(ws: Workspace) -> ChatModel:
    """With all that can stand between a task and its model."""
    remote = Fitting(SPOKEN["openai"].serving(), window=Window(1000))
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


def remote(spoken: Spoken, ws: Workspace) -> ChatModel:
    """A provider, with a server in memory that speaks its API."""
    return spoken.serving()


def real(ws: Workspace) -> ChatModel:
    """A provider, over the network; see docs/testing.md."""
    if not (name := os.environ.get("WINDLASS_TEST_MODEL")):
        pytest.skip("WINDLASS_TEST_MODEL names no model (provider:name) to ask for real")
    return known.model(name)


MAKERS: dict[str, Callable[[Workspace], ChatModel]] = {
    "assistant": assistant,
    "real": real,
    "wrapped": wrapped,
    "local": local,
    **{name: partial(remote, spoken) for name, spoken in SPOKEN.items()},
}
REQUEST = ChatRequest([Message("system", "Be brief."), Message("user", "How many hours has the day?")])


@pytest.fixture(scope="module", params=list(MAKERS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatModel]:
    with pytest.MonkeyPatch.context() as patch, Workspace(tmp_path_factory.mktemp("model")) as ws:
        for name, value in ({} if request.param == "real" else KEYS).items():
            patch.setenv(name, value)
        made = MAKERS[request.param](ws)
        yield made
        if isinstance(made, RemoteChat):
            made.close()


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


def test_the_same_seed_gives_the_same_text_streamed_or_not(model: ChatModel, request: pytest.FixtureRequest) -> None:
    if "[real" in request.node.name:
        pytest.skip("providers promise it as best they can")
    try:
        seeded = ChatRequest(REQUEST.messages, seed=11)
        texts = {model.complete(seeded).message.text for _ in range(2)}
    except Unsupported:
        pytest.skip("this model draws nothing, and says so")
    texts.add("".join(delta.text for delta in model.stream(seeded)))
    assert len(texts) == 1


def test_a_stream_can_be_left_and_the_model_goes_on(model: ChatModel) -> None:
    stream = model.stream(REQUEST)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    checked(model, model.complete(REQUEST))
