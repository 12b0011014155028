"""Gemini's batch mode: the requests stand in the body, and the answers in the operation that it begins.

POST /models/{name}:batchGenerateContent, GET /batches/{id}, GET /batches
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from windlass.apply.providers.batches.batch import JSON, Batch, Batches, Fault, compact, told
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.values import ChatRequest

_OVER = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class GeminiBatches(Batches):
    largest = 19_000_000  # 20 MB, less what stands around the requests

    def line(self, mark: str, name: str, request: ChatRequest) -> bytes:
        return compact({"request": self.remote.called(request).body, "metadata": {"key": name}})

    async def _making(self, lines: Sequence[bytes], mark: str) -> Call:
        head = b'{"batch":{"displayName":%b,"inputConfig":{"requests":{"requests":[' % compact(mark)
        path = f"/models/{self.remote.name}:batchGenerateContent"
        return Call(path, None, JSON, content=head + b",".join(lines) + b"]}}}}")

    def _read(self, told_: Mapping[str, Any]) -> Batch:
        about = told_.get("metadata") or {}
        status = str(about.get("state") or "").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        counts = about.get("batchStats") or {}
        done = sum(int(counts.get(f"{kind}RequestCount") or 0) for kind in ("successful", "failed"))
        open = status not in _OVER and not told_.get("done")
        refused = told(told_.get("error")) if status == "FAILED" else ""
        return Batch(told_["name"], status, open, done, refused, told_)

    def _place(self, id: str) -> str:
        return f"/{id}"

    async def _looked(self, id: str) -> Batch:
        # A batch that failed is shown with its error, which in any other answer would be that call's own.
        return self._read(await self._endpoint.apost(Call(self._place(id), None), refuse_errors=False))

    async def _find(self, mark: str, others: Collection[str]) -> Batch | None:
        """Among the newest thousands."""
        after = ""
        for _ in range(100):
            page = await self._endpoint.apost(Call(f"/batches?pageSize=100{after}", None))
            for one in page.get("operations") or ():
                if (one.get("metadata") or {}).get("displayName") == mark:
                    return self._read(one)
            if not (token := page.get("nextPageToken")):
                break
            after = f"&pageToken={quote(token, safe='')}"
        return None

    async def _results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        output = batch.told.get("response") or (batch.told.get("metadata") or {}).get("output") or {}
        lines = (output.get("inlinedResponses") or {}).get("inlinedResponses") or ()
        return ((line["metadata"]["key"], line) for line in lines)

    def _said(self, line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        if error := line.get("error"):
            return Fault(told(error))
        answer: Mapping[str, Any] = line["response"]
        return answer
