"""Our batches are made, looked at and read by the requests of the official SDKs."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest
from tests.apply.provider_world import KEY, ask

from windlass.apply.providers import known
from windlass.apply.providers.batches.batch import Batch, Batches, new_mark
from windlass.apply.providers.batches.known import batches_of
from windlass.apply.providers.batches.openai import MARK

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of its own dependencies
    genai = pytest.importorskip("google.genai")

NAMES = ("0123-1-0", "4567-1-0")
REQUEST = ask("Hi", max_tokens=50)
TURN = [{"role": "user", "content": "Hi"}]


class Server:
    """Keeps requests and answers each with the same object."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.answer: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append((self.command, self.path, headers, body_of(headers, content)))
                answer = json.dumps(outer.answer).encode()
                self.send_response(200)
                kind = "octet-stream" if self.path.endswith("/content") else "json"
                self.send_header("content-type", f"application/{kind}")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def body_of(headers: dict[str, str], content: bytes) -> Any:
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/"):
        return json.loads(content) if content else None
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
    return {
        part.get_param("name", header="content-disposition"): (part.get_content_type(), part.get_payload(decode=True))
        for part in form.walk()
        if not part.is_multipart()
    }


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


def ours(server: Server, name: str, batch: Batch, monkeypatch: pytest.MonkeyPatch, mark: str) -> list[Any]:
    """The requests of making a batch, looking at it and reading its answers."""
    monkeypatch.setenv(known.PROVIDERS[name].variable, KEY)
    base = "/v1beta" if name == "gemini" else "/v1"
    remote = known.model(f"{name}:m", base_url=server.url + base, retries=0)

    async def all_of_it() -> None:
        api = batches_of(remote)
        await api.submit([api.line(mark, one, REQUEST) for one in NAMES], mark)
        await api.look(batch.id)
        list(await api.results(batch))
        await remote.aclose()

    asyncio.run(all_of_it())
    made, server.requests = server.requests, []
    return made


def test_openai(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = {
        "id": "f1", "object": "batch", "status": "in_progress", "created_at": 1, "endpoint": "/v1/chat/completions",
        "completion_window": "24h", "input_file_id": "f1", "custom_id": "c",
    }  # fmt: skip
    done = Batch("f1", "completed", False, 2, told={"output_file_id": "f1"})
    made = ours(server, "openai", done, monkeypatch, "mark")
    lines = made[0][3]["file"][1]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY) as client:
        client.files.create(file=("requests.jsonl", lines, "application/jsonl"), purpose="batch")
        client.batches.create(
            input_file_id="f1", endpoint="/v1/chat/completions", completion_window="24h", metadata={MARK: "mark"}
        )
        client.batches.retrieve("f1")
        client.files.content("f1")
        client.chat.completions.create(model="m", messages=TURN, max_completion_tokens=50)  # type: ignore[arg-type]
    *theirs, one = server.requests
    same(made, theirs, "authorization")
    for line, name in zip(map(json.loads, lines.splitlines()), NAMES, strict=True):
        assert line == {"custom_id": name, "method": "POST", "url": one[1], "body": one[3]}


def test_anthropic(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = {
        "id": "b1", "type": "message_batch", "processing_status": "ended", "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z", "results_url": f"{server.url}/v1/messages/batches/b1/results",
        "request_counts": dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0),
        "custom_id": "c",
    }  # fmt: skip
    made = ours(server, "anthropic", Batch("b1", "ended", False, 2, told=server.answer), monkeypatch, "mark")
    params: Any = {"model": "m", "max_tokens": 50, "messages": TURN}
    with anthropic.Anthropic(base_url=server.url, api_key=KEY) as client:
        client.messages.batches.create(requests=[{"custom_id": f"mark-{name}", "params": params} for name in NAMES])
        client.messages.batches.retrieve("b1")
        client.messages.batches.results("b1")
    first, second, _, read = server.requests  # it looks once more where the answers are
    same(made, [first, second, read], "x-api-key", "anthropic-version")


@pytest.mark.filterwarnings("ignore")
def test_gemini(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer = {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_RUNNING", "displayName": "mark"}}
    made = ours(server, "gemini", Batch("batches/b1", "RUNNING", True, 0), monkeypatch, "mark")
    options = genai.types.HttpOptions(base_url=server.url, api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    requests = [
        genai.types.InlinedRequest(contents=contents, metadata={"key": name}, config={"max_output_tokens": 50})
        for name in NAMES
    ]
    client.batches.create(model="m", src=requests, config={"display_name": "mark"})
    assert client.batches.get(name="batches/b1").state.name == "JOB_STATE_RUNNING"
    same(made, server.requests, "x-goog-api-key")


def test_mistral(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("mistralai.client")
    server.answer = {
        "id": "f1", "object": "file", "bytes": 1, "created_at": 1, "filename": "x", "purpose": "batch",
        "sample_type": "batch_request", "source": "upload", "custom_id": "c",
        "input_files": [], "endpoint": "/v1/chat/completions", "errors": [], "status": "RUNNING",
        "total_requests": 2, "completed_requests": 0, "succeeded_requests": 0, "failed_requests": 0,
    }  # fmt: skip
    done = Batch("f1", "SUCCESS", False, 2, told={"output_file": "f1"})
    made = ours(server, "mistral", done, monkeypatch, "mark")
    lines = made[0][3]["file"][1]
    client = sdk.Mistral(api_key=KEY, server_url=server.url)
    client.files.upload(
        file={"file_name": "requests.jsonl", "content": lines, "content_type": "application/jsonl"}, purpose="batch"
    )
    server.answer["object"] = "batch"
    client.batch.jobs.create(
        endpoint="/v1/chat/completions", input_files=["f1"], model="m", metadata={MARK: "mark"}, timeout_hours=24
    )
    client.batch.jobs.get(job_id="f1")
    client.files.download(file_id="f1")
    del server.requests[0][3]["visibility"]  # its default, said aloud
    same(made, server.requests, "authorization")
    for line, name in zip(map(json.loads, lines.splitlines()), NAMES, strict=True):
        assert line == {"custom_id": name, "body": {"messages": TURN, "max_tokens": 50}}


def same(ours: list[Any], theirs: list[Any], *headers: str) -> None:
    assert [one[:2] for one in ours] == [one[:2] for one in theirs]
    for mine, its in zip(ours, theirs):
        assert mine[3] == its[3]
        assert [mine[2].get(name) for name in headers] == [its[2].get(name) for name in headers]


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "mistral"])
def test_names_of_requests_fit_each_api(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anthropic's are at most 64 letters, digits, hyphens and underscores, the mark among them."""
    monkeypatch.setenv(known.PROVIDERS[name].variable, KEY)
    api: Batches = batches_of(known.model(f"{name}:m"))
    longest = f"{'f' * 32}-99-9999"
    line = json.loads(api.line(new_mark(), longest, REQUEST))
    said = line.get("custom_id") or line["metadata"]["key"]
    assert len(said) <= 64 and set(said) <= set("0123456789abcdef-")
