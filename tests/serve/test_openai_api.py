"""The server as its clients see it: the official `openai` package, raw HTTP, and a fuzzer."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

from serving_fakes import Echo, Failing, Letters, Slow  # noqa: E402

from windlass.core.errors import DiskFull, InputError, ProviderError  # noqa: E402
from windlass.core.sqlite_store import SqliteStore  # noqa: E402
from windlass.core.trace import Recorder  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.limits import Limits  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402


class Running:
    """One server over fake models, with a store and a recorder behind it."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "windlass.db")
        self.recorder = Recorder(self.store)
        self.echo = Echo(self.recorder)
        self.models: dict[str, Any] = {
            "echo": self.echo,
            "input": Failing(InputError("The prompt has 9 tokens.", "Shorten it.")),
            "provider": Failing(ProviderError("The provider refused.", status=401)),
            "throttled": Failing(ProviderError("Too fast.", status=429)),
            "unreachable": Failing(ProviderError("No answer.")),
            "full": Failing(DiskFull("No space.")),
            "midway": Failing(ProviderError("It broke.", status=500), after=2),
            "endless": Slow(pieces=100_000),
        }
        self.limits = Limits(body_bytes=200_000, messages=20, texts=10, running=6, waiting=2)
        self.app = create_app(self.models, {"letters": Letters()}, self.store, self.recorder, limits=self.limits)

    def close(self) -> None:
        self.recorder.close()
        self.store.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("server"))
    with ServerThread(made.app) as server:
        made.url = server.url  # type: ignore[attr-defined]
        yield made
    made.close()


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="unused", max_retries=0) as made:  # type: ignore[attr-defined]
        yield made


@pytest.fixture(scope="module")
def http(running: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=20) as made:  # type: ignore[attr-defined]
        yield made


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# the official client -------------------------------------------------------------------------------------------------


def test_models_are_listed_and_shown(client: Any) -> None:
    models = client.models.list().data
    assert [m.id for m in models][:1] == ["echo"] and models[-1].id == "letters"
    shown = client.models.retrieve("echo")
    assert shown.windlass == {"kinds": ["chat"], "digest": "e" * 64}
    with pytest.raises(openai.NotFoundError, match="'echo'"):
        client.models.retrieve("nobody/nothing")


def test_chat(client: Any, running: Running) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "system", "content": "Be brief."}, *user("please cite this")],
        temperature=0.5, top_p=0.9, max_completion_tokens=7, seed=3, stop=["END"], user="me", store=False,
        metadata={"a": "b"}, n=1, presence_penalty=0, extra_body={"verbosity": "low"},
    )  # fmt: skip
    assert answer.choices[0].message.content == "please cite this"
    assert (answer.choices[0].finish_reason, answer.object, answer.model) == ("stop", "chat.completion", "echo")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)
    assert answer.usage.prompt_tokens_details.cached_tokens == 2
    assert answer.windlass["citations"][0]["quote"] == "quote" and answer.windlass["abstained"] is False
    running.recorder.flush()
    assert running.store.trace(answer.windlass["trace_id"])[0].operation == "chat"
    request = running.echo.requests[-1]
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0.5, 0.9, 7, 3)
    assert (request.stop, request.extra, len(request.messages)) == (("END",), {"verbosity": "low"}, 2)


def test_an_answer_can_be_sent_back_as_history(client: Any, running: Running) -> None:
    first = client.chat.completions.create(model="echo", messages=user("call a tool"))
    assert first.choices[0].finish_reason == "tool_calls"
    history = [*user("call a tool"), first.choices[0].message.model_dump()]
    history.append({"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "found"}]})
    assert client.chat.completions.create(model="echo", messages=history).choices[0].message.content == "found"
    assert running.echo.requests[-1].messages[1].tool_calls[0].name == "look"


def test_stream(client: Any) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=user("one two abstain"), stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two abstain"
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].windlass["abstained"] is True and len(chunks[-1].windlass["trace_id"]) == 32
    assert all(getattr(c, "usage", None) is None for c in chunks)
    assert len({c.id for c in chunks}) == 1


def test_stream_with_usage_and_tool_calls(client: Any) -> None:
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="echo", messages=user("tool"), stream=True, stream_options=options)
    )
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == 6
    assert chunks[-2].choices[0].delta.tool_calls[0].function.name == "look"
    assert chunks[-2].choices[0].finish_reason == "tool_calls"


def test_the_clients_stream_helper_assembles_the_message(client: Any) -> None:
    with client.chat.completions.stream(model="echo", messages=user("a b c")) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == "a b c"


def test_completions(client: Any, running: Running) -> None:
    whole = client.completions.create(model="echo", prompt="go on", max_tokens=5)
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == ("text_completion", "go on", "stop")
    assert running.echo.requests[-1].extra == {"raw_prompt": True}
    chunks = list(client.completions.create(model="echo", prompt="go on", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "go on" and chunks[-1].choices[0].finish_reason == "stop"


def test_embeddings_are_equal_in_both_encodings(client: Any) -> None:
    floats = client.embeddings.create(model="letters", input=["aab", "c"], encoding_format="float")
    packed = client.embeddings.create(model="letters", input=["aab", "c"])  # the client asks for base64 itself
    assert [d.embedding for d in floats.data] == [d.embedding for d in packed.data]
    assert len(floats.data[0].embedding) == 4 and floats.usage.prompt_tokens == 4
    assert client.embeddings.create(model="letters", input="one").data[0].index == 0
    with pytest.raises(openai.BadRequestError, match="'dimensions' is 2"):
        client.embeddings.create(model="letters", input="x", dimensions=2)


def test_embeddings_are_traced(client: Any, running: Running) -> None:
    client.embeddings.create(model="letters", input=["traced"])
    running.recorder.flush()
    root = running.store.traces(name="embeddings", limit=1)[0].root
    assert root.attributes["gen_ai.usage.input_tokens"] == 6
    assert root.attributes["windlass.embedder.digest"] == "d" * 64


@pytest.mark.parametrize(
    ("model", "kind", "match"),
    [
        ("nobody", openai.NotFoundError, r"no model 'nobody'.*'echo'"),
        ("input", openai.BadRequestError, r"9 tokens\. Shorten it\."),
        ("throttled", openai.RateLimitError, "Too fast"),
        ("provider", openai.InternalServerError, "refused"),
        ("unreachable", openai.InternalServerError, "No answer"),
        ("full", openai.InternalServerError, "No space"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_are_the_clients_own_errors(client: Any, model: str, kind: Any, match: str, stream: bool) -> None:
    with pytest.raises(kind, match=match):
        client.chat.completions.create(model=model, messages=user("hi"), stream=stream)


def test_statuses_of_provider_failures(http: httpx.Client) -> None:
    def status(model: str) -> int:
        return http.post("/v1/chat/completions", json={"model": model, "messages": user("x")}).status_code

    assert [status(m) for m in ("provider", "unreachable", "throttled", "full", "midway")] == [502, 504, 429, 507, 502]


def test_a_failure_midway_is_raised_and_the_stream_is_not_taken_for_complete(client: Any) -> None:
    got: list[Any] = []
    with pytest.raises(openai.APIError, match="It broke"):
        got.extend(client.chat.completions.create(model="midway", messages=user("hi"), stream=True))
    assert [c.choices[0].delta.content for c in got] == ["", "x", "x"]


# what is refused -----------------------------------------------------------------------------------------------------


TOOL = {"type": "function", "function": {"name": "look"}}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user", "content": "x"}] * 21}, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"model": 3}, "model"),
    ({"model": None}, "model"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"stop": list("abcdefghijklmnopq")}, "stop"),
    ({"seed": 1 << 70}, "seed"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"n": True}, "n"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"audio": {}}, "audio"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"logprobs": True}, "logprobs"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"colour": 1}}, "stream_options.colour"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TOOL]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"temprature": 1}, "temprature"),
]


@pytest.mark.parametrize(("change", "param"), BAD, ids=[f"{p}-{i}" for i, (_, p) in enumerate(BAD)])
@pytest.mark.parametrize("stream", [False, True])
def test_the_field_at_fault_is_named(http: httpx.Client, change: dict[str, Any], param: str, stream: bool) -> None:
    body: dict[str, Any] = {"model": "echo", "messages": user("x")} | change
    if stream and "stream" not in body and "stream_options" not in body:
        body["stream"] = True
    answer = http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["message"]


def test_a_misspelt_field_is_recognised(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "echo", "messages": user("x"), "temprature": 1})
    assert "Did you mean 'temperature'?" in answer.json()["error"]["message"]


NOT_JSON = [
    b"", b"{", b"[]", b"null", b'"x"', b'{"model": NaN}', b'{"a": 1, "a": 2}', b"\xff\xfe", "{}".encode("utf-16"),
    b'{"model": "\xed\xa0\x80"}', b'{"model": "\\ud800"}', b'{"\\ud800": 1, "\\ud800": 1}',
    b"[" * 100_000, b'{"a":' * 20_000, b'{"a": ' + b"9" * 10_000 + b"}",
    b'{"model": "echo", "messages": [{"role": "user", "content": "\\udc00"}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_not_json_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_other_content_types_are_refused(http: httpx.Client) -> None:
    # a foreign web page can send text/plain without being asked first, and JSON it cannot
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = http.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]


def test_large_bodies_are_refused_early(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b" " * 100_000

    for content in (b'"' + b"x" * 10_000_000 + b'"', endless()):
        try:
            answer = http.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413 and "200000 bytes" in answer.json()["error"]["message"]
        except (httpx.WriteError, httpx.RemoteProtocolError):
            pass  # refused while we were still sending, which closes the connection
    assert http.get("/health").status_code == 200


def test_unknown_paths_and_wrong_methods_are_answered_in_json(http: httpx.Client) -> None:
    assert http.get("/v1/nothing").json()["error"]["code"] == "unknown_path"
    answer = http.get("/v1/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["message"] == "/v1/chat/completions takes POST only."
    assert http.post("/v1/models").status_code == 405


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "messages",
        "prompt",
        "input",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "seed",
        "n",
        "stream",
        "stream_options",
        "tools",
        "tool_choice",
        "logprobs",
        "response_format",
        "user",
        "dimensions",
        "encoding_format",
        "trace_id",
        "value",
        "comment",
        "metadata",
        "logit_bias",
        "modalities",
        "audio",
        "verbosity",
    ]
)
CALL = st.fixed_dictionaries({"id": st.text(), "type": st.just("function"), "function": JSON})
PART = st.fixed_dictionaries({"type": st.just("text"), "text": st.text()})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | JSON,
        "content": st.text() | st.lists(PART) | JSON,
        "tool_calls": JSON | st.lists(CALL),
        "tool_call_id": JSON,
        "name": JSON,
    },
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["chat/completions", "completions", "embeddings", "feedback"]),
    model=st.sampled_from(["echo", "letters"]) | JSON,
    body=st.dictionaries(FIELDS | st.text(max_size=8), JSON, max_size=5),
    messages=st.lists(MESSAGE, max_size=3) | st.none(),
)
def test_no_body_makes_the_server_fail(http: httpx.Client, path: str, model: Any, body: Any, messages: Any) -> None:
    body = {"model": model, **body}
    if messages is not None:
        body["messages"] = messages
    try:
        content = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        return
    answer = http.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404, 413), answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


# feedback ------------------------------------------------------------------------------------------------------------


def test_feedback_becomes_a_score_on_the_trace(client: Any, http: httpx.Client, running: Running) -> None:
    trace = client.chat.completions.create(model="echo", messages=user("rate me")).windlass["trace_id"]
    body = {"trace_id": trace, "value": 0, "comment": "no", "correct_document": "d7", "user": "ann"}
    answer = http.post("/v1/feedback", json=body)
    assert answer.status_code == 200 and answer.json()["trace_id"] == trace
    (score,) = running.store.scores(subject=trace)
    assert (score.name, score.value, score.source, score.author, score.comment) == (
        "feedback",
        0.0,
        "user",
        "ann",
        "no",
    )
    assert score.metadata == {"correct_document": "d7"} and score.id == answer.json()["id"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"trace_id": "0" * 32, "value": 1}, 404, "trace_id"),
        ({"trace_id": "0" * 32, "value": 2}, 400, "value"),
        ({"value": 1}, 400, "trace_id"),
        ({"trace_id": "0" * 32, "value": 1, "stars": 5}, 400, "stars"),
    ],
)
def test_bad_feedback_is_refused(http: httpx.Client, body: dict[str, Any], status: int, param: str) -> None:
    answer = http.post("/v1/feedback", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_feedback_takes_no_prefix_of_a_trace(client: Any, http: httpx.Client) -> None:
    trace = client.chat.completions.create(model="echo", messages=user("x")).windlass["trace_id"]
    assert http.post("/v1/feedback", json={"trace_id": trace[:16], "value": 1}).status_code == 404


# under load ----------------------------------------------------------------------------------------------------------


def metric(http: httpx.Client, name: str) -> float:
    return sum(float(line.split()[-1]) for line in http.get("/metrics").text.splitlines() if line.startswith(name))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_model(http: httpx.Client, running: Running, stream: bool) -> None:
    endless = running.models["endless"] = Slow(pieces=100_000)
    cancelled = metric(http, "windlass_requests_cancelled_total")
    body = {"model": "endless", "messages": user("x"), "stream": stream}
    leaving = httpx.Client(base_url=running.url, timeout=0.4)  # type: ignore[attr-defined]
    if stream:
        with leaving.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            leaving.post("/v1/chat/completions", json=body)
    leaving.close()
    assert endless.closed.wait(30)
    assert endless.written < 1000
    for _ in range(100):
        if metric(http, "windlass_requests_in_progress") == 0:
            break
        time.sleep(0.02)
    assert metric(http, "windlass_requests_in_progress") == 0
    assert metric(http, "windlass_requests_cancelled_total") == cancelled + 1


def test_many_clients_at_once(running: Running) -> None:
    answers: dict[int, str] = {}

    def ask(i: int) -> None:
        with openai.OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=8) as own:  # type: ignore[attr-defined]
            chunks = own.chat.completions.create(model="echo", messages=user(f"number {i} end"), stream=True)
            answers[i] = "".join(c.choices[0].delta.content or "" for c in chunks)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {i: f"number {i} end" for i in range(16)}


def test_no_place_left_is_429_with_retry_after(running: Running, http: httpx.Client) -> None:
    places = running.limits.running + running.limits.waiting
    clients = [httpx.Client(base_url=running.url, timeout=20) for _ in range(places)]  # type: ignore[attr-defined]
    body = {"model": "endless", "messages": user("x")}

    def occupy(client: httpx.Client) -> None:
        with contextlib.suppress(httpx.TimeoutException):
            client.post("/v1/chat/completions", json=body, timeout=2)

    threads = [threading.Thread(target=occupy, args=(c,)) for c in clients]
    for thread in threads:
        thread.start()
    while metric(http, "windlass_requests_in_progress") < places:
        time.sleep(0.01)
    refused = http.post("/v1/chat/completions", json={"model": "echo", "messages": user("x")})
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    while metric(http, "windlass_requests_in_progress"):  # their places are free once their threads have noticed
        time.sleep(0.01)


def test_health_and_metrics(http: httpx.Client, client: Any) -> None:
    client.chat.completions.create(model="echo", messages=user("a b"))
    assert http.get("/health").json()["status"] == "ok"
    http.get("/made/up/by/a/client")
    text = http.get("/metrics").text
    assert 'windlass_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert 'windlass_tokens_total{direction="output",model="echo"}' in text
    assert 'windlass_request_seconds_bucket{path="/v1/models",le="+Inf"}' in text
    assert 'windlass_time_to_first_chunk_seconds_count{model="echo"}' in text
    assert "made/up" not in text
