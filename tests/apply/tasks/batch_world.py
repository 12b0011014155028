"""Providers in memory that answer batches, each in its own way. A batch is over at the third look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

import httpx2

from windlass.apply.providers.dialects.anthropic import Anthropic
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Dialect
from windlass.apply.providers.dialects.gemini import Gemini
from windlass.apply.providers.dialects.mistral import Mistral
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.core.pricing import Price, SellerPrices

LATE = "late"
"""An answer of a provider that did not come to the request in time."""


class Failed(str):
    """An answer that is an error of this text."""


def bad(answer: Any) -> bool:
    return answer == LATE or isinstance(answer, Failed)


class Provider:
    """`answer`: what it says to a text at an attempt: a value, `Failed`, `LATE`, or None for no line at all."""

    dialect: Callable[[str], Dialect] = ChatCompletions

    def __init__(self, answer: Callable[[str, int], Any] = lambda text, _: len(text)) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.refuses = False
        """Whether batches fail as a whole."""
        self.gone = False
        """Whether answers are kept no longer."""
        self.lost: list[int | None] = []
        """What comes instead of the answers to batches that were made: a status, or None for a broken connection."""
        self.answer = answer

    def chat(self) -> RemoteChat:
        endpoint = Endpoint("http://model.example/v1", transport=httpx2.MockTransport(self), retries=1)
        prices = SellerPrices("here", {"m": Price(input=1.0, output=5.0, batch=0.5)})
        return RemoteChat(endpoint, self.dialect("m"), price_of=prices)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        answer = self.handle(request, path)
        if not self.lost or request.method != "POST" or path == "/files":
            return answer
        if (status := self.lost.pop()) is None:
            raise httpx2.RemoteProtocolError("gone")
        return httpx2.Response(status, text="Bad gateway")

    def handle(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path.split("/")[1:]:
            case "POST", ["files"]:
                id = f"file-{len(self.files)}"
                self.files[id] = uploaded(request)
                return httpx2.Response(200, json={"id": id})
            case "POST", ["batches"]:
                body = json.loads(request.content)
                assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
                id = self.made(metadata=body["metadata"])
                lines = self.files[body["input_file_id"]].splitlines()
                self.carry_out(id, [(line["custom_id"], line["body"]["messages"]) for line in map(json.loads, lines)])
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["batches"]:
                return httpx2.Response(200, json={"data": [self.shown(id) for id in self.batches], "has_more": False})
            case "GET", ["batches", id]:
                self.batches[id]["looks"] += 1
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["files", id, "content"] if not self.gone:
                return httpx2.Response(200, content=self.files[id])
            case "GET", ["files", id, "content"]:
                return httpx2.Response(404, json={"error": {"message": f"No such File object: {id}"}})
        raise AssertionError(f"{request.method} {path}")

    def made(self, **more: Any) -> str:
        id = f"batch-{len(self.batches)}"
        self.batches[id] = {"id": id, "looks": 0, "results": [], **more}
        return id

    def over(self, id: str) -> bool:
        return bool(self.batches[id]["looks"] >= 3)

    def carry_out(self, id: str, requests: list[tuple[str, list[Any]]]) -> None:
        for name, messages in requests:
            said = [message for message in messages if message["role"] not in ("system", "developer")]
            text = said[0]["content"] if "content" in said[0] else "".join(part["text"] for part in said[0]["parts"])
            self.asked.append(text)
            answer = self.answer(text, (len(said) + 1) // 2)
            if answer is not None:
                self.batches[id]["results"].insert(0, (name, answer))  # no order is promised

    def shown(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        known = {"id": id, "status": "in_progress", "metadata": batch["metadata"]}
        if not self.over(id):
            return known
        if self.refuses:
            return known | {"status": "failed", "errors": {"data": [{"message": "Line 1 is odd."}]}}
        files = dict(zip(("output_file_id", "error_file_id"), self.written(id)))
        late = any(answer == LATE for _, answer in batch["results"])
        return known | files | {"status": "expired" if late else "completed"}

    def written(self, id: str) -> list[str]:
        """The files of answers and of errors, where there are any."""
        for failed in (False, True):
            lines = [line(name, said) for name, said in self.batches[id]["results"] if bad(said) is failed]
            self.files[f"{id}-{failed}"] = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
        return [f"{id}-False", f"{id}-True"]


def line(name: str, answer: Any) -> dict[str, Any]:
    """A line of OpenAI's and Mistral's files."""
    if isinstance(answer, Failed):
        body: dict[str, Any] = {"error": {"message": str(answer)}}
        return {"custom_id": name, "response": {"status_code": 400, "body": body}, "error": None}
    if answer == LATE:
        return {"custom_id": name, "response": None, "error": {"code": "batch_expired", "message": "Too late."}}
    message = {"role": "assistant", "content": json.dumps({"value": answer})}
    body = {
        "id": "c", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }  # fmt: skip
    return {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def uploaded(request: httpx2.Request) -> bytes:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    parts = {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message_from_bytes(head + request.content).walk()
        if not part.is_multipart()
    }
    assert parts["purpose"] == b"batch"
    file = parts["file"]
    assert isinstance(file, bytes)
    return file


class MistralProvider(Provider):
    dialect = Mistral

    def handle(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path.split("/")[1:]:
            case "POST", ["batch", "jobs"]:
                body = json.loads(request.content)
                (file,) = body["input_files"]
                id = self.made(metadata=body["metadata"])
                lines = [json.loads(one) for one in self.files[file].splitlines()]
                assert body["model"] == "m" and not any("model" in one["body"] for one in lines)
                self.carry_out(id, [(one["custom_id"], one["body"]["messages"]) for one in lines])
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["batch", "jobs"]:
                return httpx2.Response(200, json={"total": 1, "data": [self.shown(id) for id in self.batches]})
            case "GET", ["batch", "jobs", id]:
                self.batches[id]["looks"] += 1
                return httpx2.Response(200, json=self.shown(id))
        return super().handle(request, path)

    def shown(self, id: str) -> dict[str, Any]:
        shown = super().shown(id)
        status = {"in_progress": "RUNNING", "failed": "FAILED", "completed": "SUCCESS", "expired": "TIMEOUT_EXCEEDED"}
        files = {name.removesuffix("_id"): shown.pop(name, None) for name in ("output_file_id", "error_file_id")}
        errors = (shown.pop("errors", None) or {"data": []})["data"]
        return shown | files | {"status": status[shown["status"]], "errors": errors, "completed_requests": 1}


class AnthropicProvider(Provider):
    dialect = Anthropic

    def handle(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path.split("/")[2:]:
            case "POST", ["batches"]:
                requests = json.loads(request.content)["requests"]
                id = self.made(created_at=datetime.now(UTC).isoformat())
                assert all(len(one["custom_id"]) <= 64 and "." not in one["custom_id"] for one in requests)
                self.carry_out(id, [(one["custom_id"], one["params"]["messages"]) for one in requests])
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["batches"]:
                newest_first = [self.shown(id) for id in reversed(self.batches)]
                return httpx2.Response(200, json={"data": newest_first, "has_more": False})
            case "GET", ["batches", id]:
                self.batches[id]["looks"] += 1
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["batches", id, "results"]:
                lines = [{"custom_id": name, "result": self.result(said)} for name, said in self.batches[id]["results"]]
                return httpx2.Response(200, content="".join(json.dumps(one) + "\n" for one in lines).encode())
        raise AssertionError(f"{request.method} {path}")

    def shown(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        shown = {"id": id, "created_at": batch["created_at"], "request_counts": {"processing": 3}}
        if self.over(id):
            archived = {"archived_at": batch["created_at"]} if self.gone else {}
            return shown | {"processing_status": "ended", "results_url": "https://elsewhere.example/x"} | archived
        return shown | {"processing_status": "in_progress", "results_url": None}

    def result(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, Failed):
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": str(answer)}}
            return {"type": "errored", "error": error}
        if answer == LATE:
            return {"type": "expired"}
        message = {
            "id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": json.dumps({"value": answer})}],
            "usage": {"input_tokens": 100, "output_tokens": 10},
        }  # fmt: skip
        return {"type": "succeeded", "message": message}


class GeminiProvider(Provider):
    dialect = Gemini

    def handle(self, request: httpx2.Request, path: str) -> httpx2.Response:
        match request.method, path.split("/")[1:]:
            case "POST", ["models", "m:batchGenerateContent"]:
                batch = json.loads(request.content)["batch"]
                requests = batch["inputConfig"]["requests"]["requests"]
                id = self.made(displayName=batch["displayName"])
                self.carry_out(id, [(one["metadata"]["key"], one["request"]["contents"]) for one in requests])
                return httpx2.Response(200, json=self.shown(id))
            case "GET", ["batches"]:
                return httpx2.Response(200, json={"operations": [self.shown(id) for id in self.batches]})
            case "GET", ["batches", id]:
                if self.gone:
                    return httpx2.Response(404, json={"error": {"code": 404, "message": "Not found."}})
                self.batches[id]["looks"] += 1
                return httpx2.Response(200, json=self.shown(id))
        raise AssertionError(f"{request.method} {path}")

    def shown(self, id: str) -> dict[str, Any]:
        batch = self.batches[id]
        about = {"displayName": batch["displayName"], "state": "BATCH_STATE_RUNNING", "model": "models/m"}
        shown = {"name": f"batches/{id}", "metadata": about}
        if not self.over(id):
            return shown
        if self.refuses:
            about["state"] = "BATCH_STATE_FAILED"
            return shown | {"done": True, "error": {"code": 3, "message": "Line 1 is odd."}}
        about["state"] = "BATCH_STATE_SUCCEEDED"
        lines = [self.result(answer) | {"metadata": {"key": name}} for name, answer in batch["results"]]
        return shown | {"done": True, "response": {"inlinedResponses": {"inlinedResponses": lines}}}

    def result(self, answer: Any) -> dict[str, Any]:
        if isinstance(answer, Failed) or answer == LATE:
            return {"error": {"code": 3, "message": str(answer)}}
        candidate = {"content": {"parts": [{"text": json.dumps({"value": answer})}]}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 10}
        return {"response": {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}}


PROVIDERS: Mapping[str, type[Provider]] = {
    "openai": Provider, "mistral": MistralProvider, "anthropic": AnthropicProvider, "gemini": GeminiProvider,
}  # fmt: skip
