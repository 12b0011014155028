"""A map by the batch API: submit, poll, collect, ask again in the next batch, and go on after a crash at any point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx2
import pytest

from windlass.apply.providers.anthropic import Anthropic
from windlass.apply.providers.batches import MARK, Batches
from windlass.apply.providers.chat_completions import ChatCompletions
from windlass.apply.providers.dialect import Call
from windlass.apply.providers.http import Endpoint
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.tasks import batching, task
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.pricing import Price, SellerPrices
from windlass.core.values import Usage
from windlass.testing import Random, Scripted


@task
def size(text: str) -> int:
    """Say how long the text is."""
    raise NotImplementedError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LOOKS", (0.001, 0.002))


class Provider:
    """Files and batches in memory. A batch is over at the third look at it."""

    def __init__(self, answer: Callable[[str, int], Any] = lambda text, _: len(text)) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.looks = 0
        self.asked: list[str] = []
        self.status = "completed"
        self.break_at: str | None = None
        """Where the next connection breaks: after the request has arrived."""
        self._answer = answer

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        answer = self._handle(request, path)
        if self.break_at is not None and self.break_at == f"{request.method} {path.split('/')[1]}":
            self.break_at = None
            raise httpx2.RemoteProtocolError("gone")
        return answer

    def _handle(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path.split("/")[1:]:
            case "POST", ["files"]:
                head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
                parts = {
                    part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                    for part in message_from_bytes(head + request.content).walk()
                    if not part.is_multipart()
                }
                assert parts["purpose"] == b"batch"
                id = f"file-{len(self.files)}"
                self.files[id] = parts["file"]  # type: ignore[assignment]
                return httpx2.Response(200, json={"id": id})
            case "POST", ["batches"]:
                body = json.loads(request.content)
                assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
                id = f"batch-{len(self.batches)}"
                self.batches[id] = {"id": id, "status": "validating", "metadata": body["metadata"], "looks": 0}
                self._carry_out(self.batches[id], self.files[body["input_file_id"]])
                return httpx2.Response(200, json=self._shown(id))
            case "GET", ["batches"]:
                return httpx2.Response(200, json={"data": [self._shown(id) for id in self.batches], "has_more": False})
            case "GET", ["batches", id]:
                self.looks += 1
                self.batches[id]["looks"] += 1
                return httpx2.Response(200, json=self._shown(id))
            case "GET", ["files", id, "content"]:
                return httpx2.Response(200, content=self.files[id])
        raise AssertionError(f"{request.method} {path}")

    def _carry_out(self, batch: dict[str, Any], requests: bytes) -> None:
        answers, errors = [], []
        for line in map(json.loads, requests.splitlines()):
            said = line["body"]["messages"]
            self.asked.append(said[1]["content"])
            answer = self._answer(said[1]["content"], len(said) // 2)
            if isinstance(answer, dict):
                errors.append({"custom_id": line["custom_id"], **answer})
            elif answer is not None:
                message = {"role": "assistant", "content": json.dumps({"value": answer})}
                body = {
                    "id": "c", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
                }  # fmt: skip
                response = {"status_code": 200, "body": body}
                answers.append({"custom_id": line["custom_id"], "response": response, "error": None})
        answers.reverse()  # no order is promised
        for name, lines in (("output_file_id", answers), ("error_file_id", errors)):
            if lines:
                batch[name] = f"file-{len(self.files)}"
                self.files[batch[name]] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _shown(self, id: str) -> dict[str, Any]:
        batch = dict(self.batches[id])
        if batch.pop("looks") < 3:
            return {"id": id, "status": "in_progress", "metadata": batch["metadata"]}
        return {**batch, "status": self.status, "errors": {"data": [{"message": "Line 1 is odd."}]}}


def at(provider: Provider) -> RemoteChat:
    endpoint = Endpoint("http://model.example/v1", transport=httpx2.MockTransport(provider), retries=1)
    prices = SellerPrices("here", {"m": Price(input=1.0, output=5.0, batch=0.5)})
    return RemoteChat(endpoint, ChatCompletions("m"), price_of=prices)


def texts(count: int) -> list[str]:
    return ["x" * (n % 5) for n in range(count)]


def test_a_map_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "LINES", 8)
    provider, journal = Provider(), tmp_path / "j.jsonl"
    sizes = size.using(model=at(provider))
    done = sizes.map(texts(20), journal=journal, batch=True, progress=False)
    assert [result.value for result in done] == list(map(len, texts(20))) and len(provider.batches) == 3
    assert done.usage == Usage(input=2000, output=200) and done.cost_usd == pytest.approx(20 * 150e-6 / 2)
    again = sizes.map([*texts(20), "new"], journal=journal, batch=True, progress=False)
    assert again.resumed == 20 and again.values == 21 and provider.asked.count("new") == 1
    assert len(provider.asked) == 21 and len(provider.batches) == 4
    mixed = sizes.map([*texts(20), "new"], journal=journal, progress=False)
    assert mixed.resumed == 21, "however it was asked, it is the same answer"


def test_answers_that_do_not_fit_go_into_the_next_batch() -> None:
    provider = Provider(lambda text, attempt: "many" if text == "bad" or (text == "odd" and attempt == 1) else 3)
    done = size.using(model=at(provider), attempts=2).map(["good", "odd", "bad"], batch=True, progress=False)
    assert [result.value for result in done] == [3, 3, None] and len(provider.batches) == 2
    good, odd, bad = done
    assert (good.attempts, odd.attempts, bad.attempts) == (1, 2, 2) and bad.kind == "NoAnswer"
    assert sorted(provider.asked) == ["bad", "bad", "good", "odd", "odd"]


def test_requests_that_fail_and_requests_without_an_answer(tmp_path: Path) -> None:
    fault = {"response": {"status_code": 400, "body": {"error": {"message": "Too long."}}}, "error": None}
    late = {"response": None, "error": {"code": "batch_expired", "message": "Too late."}}
    provider = Provider(lambda text, _: {"long": fault, "late": late, "lost": None}.get(text, 1))
    sizes, journal = size.using(model=at(provider)), tmp_path / "j.jsonl"
    items = ["fine", "long", "late", "lost"]
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    reasons = [result.error or "" for result in done]
    assert done.values == 1 and "Too long." in reasons[1] and "Too late." in reasons[2]
    assert "ended as 'completed' without an answer" in reasons[3]
    provider._answer = lambda text, _: 1
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    assert done.values == 4 and provider.asked == [*items, *items[1:]]


@pytest.mark.parametrize("point", ["submit", "note", "look", "results", "store"])
def test_a_crash_at_any_point_asks_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    class Crash(BaseException):
        """As a kill: nothing is tidied up."""

    provider, journal = Provider(lambda text, attempt: "?" if text == "xx" and attempt == 1 else 1), tmp_path / "j"
    sizes, items = size.using(model=at(provider)), texts(10)

    def crash(*_: Any) -> Any:
        raise Crash

    with monkeypatch.context() as patch:
        api = batching.Batches
        if point == "submit":  # the batch is made, and nobody hears of it
            submit = api.submit

            async def lost(self: Any, lines: Any, mark: str) -> Any:
                await submit(self, lines, mark)
                raise Crash

            patch.setattr(api, "submit", lost)
        elif point == "note":
            patch.setattr(batching._Work, "_ended", crash)
        elif point == "look":
            patch.setattr(api, "look", crash)
        elif point == "results":
            patch.setattr(api, "results", crash)
        else:
            stored = iter(range(4))
            answered = batching._Work._answered

            async def some(self: Any, one: Any, line: Any) -> Any:
                if next(stored, None) is None:
                    raise Crash
                return await answered(self, one, line)

            patch.setattr(batching._Work, "_answered", some)
        with pytest.raises((Crash, BaseExceptionGroup)):
            sizes.map(items, journal=journal, batch=True, progress=False)
    assert len(provider.asked) == 10
    done = sizes.map(items, journal=journal, batch=True, progress=False)
    assert done.values == 10 and [result.attempts for result in done] == [2 if t == "xx" else 1 for t in items]
    assert len(provider.asked) == 12, "ten items, and two that were asked again with their fault"
    assert done.cost_usd == pytest.approx(12 * 75e-6)


def test_a_connection_that_breaks_while_a_batch_is_made_makes_no_second_one() -> None:
    provider = Provider()
    provider.break_at = "POST batches"
    done = size.using(model=at(provider)).map(texts(3), batch=True, progress=False)
    assert done.values == 3 and len(provider.batches) == 1


def test_batches_that_cannot_be(tmp_path: Path) -> None:
    provider = Provider()
    provider.status = "failed"
    with pytest.raises(ProviderError, match=r"batch-0 was refused: Line 1 is odd\."):
        size.using(model=at(provider)).map(["a"], batch=True, progress=False)
    with pytest.raises(Unsupported, match="scripted has no batch API"):
        size.using(model=Scripted("1")).map(["a"], batch=True, progress=False)
    anthropic = RemoteChat(at(provider).endpoint, Anthropic("claude"))
    with pytest.raises(Unsupported, match="has no batches that windlass can make"):
        size.using(model=anthropic).map(["a"], batch=True, progress=False)


def test_a_price_of_batches_that_is_not_known_is_none() -> None:
    provider = Provider()
    remote = at(provider)
    unpriced = RemoteChat(remote.endpoint, ChatCompletions("m"), price_of=lambda model, usage: 1.0)
    done = size.using(model=unpriced).map(["a"], batch=True, progress=False)
    assert done.cost_usd is None and done.values == 1


def test_our_own_server_answers_batches(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    from windlass.serve.app import create_app
    from windlass.serve.run import ServerThread

    with ServerThread(create_app({"anything": Random(1)}, {}, folder=tmp_path / "server")) as server:
        remote = RemoteChat(Endpoint(f"{server.url}/v1"), ChatCompletions("anything"))
        done = size.using(model=remote).map(texts(6), journal=tmp_path / "j.jsonl", batch=True, progress=False)
        assert done.values == 6 and done.cost_usd is None and (done.usage.total or 0) > 0
        assert done.spent.attempts == 6

        async def found() -> None:
            api = Batches(remote)
            page = await remote.endpoint.apost(Call("/batches", None))
            (only,) = page["data"]
            assert await api.find(only["metadata"][MARK]) == await api.look(only["id"])
            assert await api.find("another") is None
            await remote.aclose()

        asyncio.run(found())
