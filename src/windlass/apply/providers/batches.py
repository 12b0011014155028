"""The batch API of OpenAI's shape: a file of requests goes up, answers come down within a day, often at half the price.

    POST /files, POST /batches, GET /batches/{id}, GET /files/{id}/content

Nothing is asked twice: a batch is made with a mark of its maker's in its metadata, by which it is found again when the
answer to its making was lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.apply.providers.dialect import Call
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ProviderError, Unsupported
from windlass.core.values import ChatRequest, ChatResponse

MARK = "windlass_mark"
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True, slots=True)
class Batch:
    id: str
    status: str
    """`completed`, `expired`, `cancelled`, `failed`, or on its way."""
    files: tuple[str, ...]
    """Of answers and of errors, where there are any yet."""
    done: int
    """Requests that have an answer or an error."""
    problem: str
    """Why the whole of it failed."""

    @property
    def open(self) -> bool:
        return self.status in _OPEN


class Batches:
    """Of one model. Raises `Unsupported` for a provider whose batches are of another shape, or that has none."""

    def __init__(self, remote: RemoteChat) -> None:
        self.remote = remote
        self._endpoint = remote.endpoint
        if not getattr(remote.dialect, "batches", False):
            raise Unsupported(
                f"{remote.dialect.api} has no batches that windlass can make.", "Leave out batch=True, or ask by /v1."
            )

    def line(self, custom_id: str, request: ChatRequest) -> bytes:
        """A request as a line of the file."""
        call = self.remote.called(request)
        line = {"custom_id": custom_id, "method": "POST", "url": f"/v1{call.path}", "body": call.body}
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    async def submit(self, lines: Iterable[bytes], mark: str) -> Batch:
        """A new batch of these lines, which all have one `url`. `mark`: by which `find` knows it."""
        content = b"".join(lines)
        url = json.loads(content[: content.index(b"\n")])["url"]
        uploaded = await self._endpoint.apost(_upload(content))
        wanted = {
            "input_file_id": uploaded["id"], "endpoint": url, "completion_window": "24h", "metadata": {MARK: mark}
        }  # fmt: skip
        try:
            made = await self._endpoint.apost(Call("/batches", wanted), again=False)
        except ProviderError as error:
            if error.status is not None:
                raise
            found = await self.find(mark)  # the connection broke: was it made?
            if found is None:
                raise
            return found
        return _batch(made)

    async def look(self, id: str) -> Batch:
        """How it stands."""
        return _batch(await self._endpoint.apost(Call(f"/batches/{id}", None)))

    async def find(self, mark: str) -> Batch | None:
        """The batch that was made with this mark, among the newest thousands."""
        after = ""
        for _ in range(100):
            page = await self._endpoint.apost(Call(f"/batches?limit=100{after}", None))
            for one in page["data"]:
                if (one.get("metadata") or {}).get(MARK) == mark:
                    return _batch(one)
            if not page.get("has_more") or not page["data"]:
                break
            after = f"&after={page['data'][-1]['id']}"
        return None

    async def results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each `custom_id` with its line."""
        contents = [await self._endpoint.abytes(Call(f"/files/{file}/content", None)) for file in batch.files]
        return ((line["custom_id"], line) for content in contents for line in map(json.loads, content.splitlines()))

    def answer(self, line: Mapping[str, Any], request: ChatRequest) -> ChatResponse:
        """What a line answers, at the price of batches. Raises `ProviderError` for a line that is an error."""
        response, error = line.get("response") or {}, line.get("error")
        status, body = response.get("status_code"), response.get("body") or {}
        if error or status != 200:
            told = error or (body.get("error") if isinstance(body, Mapping) else None) or {}
            message = told.get("message") if isinstance(told, Mapping) else told
            raise ProviderError(f"In its batch the request failed: {message or line}", status=status)
        return self.remote.batched(body, request)


def _batch(value: Mapping[str, Any]) -> Batch:
    files = tuple(value[name] for name in ("output_file_id", "error_file_id") if value.get(name))
    counts = value.get("request_counts") or {}
    problems = ((value.get("errors") or {}).get("data") or [{}])[0]
    done = int(counts.get("completed") or 0) + int(counts.get("failed") or 0)
    return Batch(value["id"], value["status"], files, done, str(problems.get("message") or ""))


def _upload(content: bytes) -> Call:
    """A multipart form. What separates its parts follows from the content: the same file is the same request."""
    boundary = f"windlass-{hashlib.sha256(content).hexdigest()[:32]}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    form = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Call("/files", None, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, content=form)
