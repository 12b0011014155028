"""Mistral's batch jobs: a file as OpenAI's, lines without a model, and a job that names it once for all.

POST /files, POST /batch/jobs, GET /batch/jobs/{id}, GET /files/{id}/content
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from windlass.apply.providers.batches.batch import Batch, Batches, Fault, compact, json_lines, told, upload
from windlass.apply.providers.batches.openai import MARK, said
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.values import ChatRequest

_OPEN = ("QUEUED", "RUNNING", "CANCELLATION_REQUESTED")


class MistralBatches(Batches):
    def line(self, mark: str, name: str, request: ChatRequest) -> bytes:
        body = dict(self.remote.called(request).body or {})
        del body["model"]
        return compact({"custom_id": name, "body": body})

    async def _making(self, lines: Sequence[bytes], mark: str) -> Call:
        file = await self._endpoint.apost(upload(lines))
        wanted = {
            "endpoint": "/v1/chat/completions", "input_files": [file["id"]], "model": self.remote.name,
            "metadata": {MARK: mark}, "timeout_hours": 24,
        }  # fmt: skip
        return Call("/batch/jobs", wanted)

    def _read(self, told_: Mapping[str, Any]) -> Batch:
        status = told_["status"]
        refused = ""
        if status == "FAILED" and not _files(told_):
            refused = "; ".join(told(error) for error in told_.get("errors") or ()) or "it is not said why"
        return Batch(told_["id"], status, status in _OPEN, int(told_.get("completed_requests") or 0), refused, told_)

    def _place(self, id: str) -> str:
        return f"/batch/jobs/{id}"

    async def _find(self, mark: str, others: Collection[str]) -> Batch | None:
        """Among the newest thousands."""
        for page in range(100):
            listed = (await self._endpoint.apost(Call(f"/batch/jobs?page={page}&page_size=100", None))).get("data")
            for one in listed or ():
                if (one.get("metadata") or {}).get(MARK) == mark:
                    return self._read(one)
            if not listed or len(listed) < 100:
                break
        return None

    async def _results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        files = _files(batch.told)
        return json_lines([await self._endpoint.abytes(Call(f"/files/{id}/content", None)) for id in files])

    def _said(self, line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        return said(line)


def _files(told: Mapping[str, Any]) -> list[str]:
    return [id for name in ("output_file", "error_file") if (id := told.get(name))]
