"""The batch API of OpenAI's shape, which our own server speaks too.

POST /files, POST /batches, GET /batches/{id}, GET /files/{id}/content
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from windlass.apply.providers.batches.batch import Batch, Batches, Fault, compact, json_lines, told, upload
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.values import ChatRequest

MARK = "windlass_mark"
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")


class OpenAIBatches(Batches):
    def line(self, mark: str, name: str, request: ChatRequest) -> bytes:
        call = self.remote.called(request)
        return compact({"custom_id": name, "method": "POST", "url": f"/v1{call.path}", "body": call.body})

    async def _making(self, lines: Sequence[bytes], mark: str) -> Call:
        file = await self._endpoint.apost(upload(lines))
        wanted = {
            "input_file_id": file["id"], "endpoint": json.loads(lines[0])["url"], "completion_window": "24h",
            "metadata": {MARK: mark},
        }  # fmt: skip
        return Call("/batches", wanted)

    def _read(self, told: Mapping[str, Any]) -> Batch:
        counts = told.get("request_counts") or {}
        problems = ((told.get("errors") or {}).get("data") or [{}])[0]
        status = told["status"]
        refused = str(problems.get("message") or "it is not said why") if status == "failed" else ""
        done = int(counts.get("completed") or 0) + int(counts.get("failed") or 0)
        return Batch(told["id"], status, status in _OPEN, done, refused, told)

    def _place(self, id: str) -> str:
        return f"/batches/{id}"

    async def _find(self, mark: str, others: Collection[str]) -> Batch | None:
        """Among the newest thousands."""
        after = ""
        for _ in range(100):
            page = await self._endpoint.apost(Call(f"/batches?limit=100{after}", None))
            for one in page["data"]:
                if (one.get("metadata") or {}).get(MARK) == mark:
                    return self._read(one)
            if not page.get("has_more") or not page["data"]:
                break
            after = f"&after={page['data'][-1]['id']}"
        return None

    async def _results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        files = [id for name in ("output_file_id", "error_file_id") if (id := batch.told.get(name))]
        return json_lines([await self._endpoint.abytes(Call(f"/files/{id}/content", None)) for id in files])

    def _said(self, line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        return said(line)


def said(line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
    """A line of OpenAI's shape: a status with a body, or an error."""
    response, error = line.get("response") or {}, line.get("error")
    status, body = response.get("status_code"), response.get("body") or {}
    if error or status != 200 or not isinstance(body, Mapping):
        return Fault(told(error or body or line), status)
    return body
