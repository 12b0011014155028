"""Anthropic's Message Batches: the requests are the body, the answers one file of lines.

    POST /messages/batches, GET /messages/batches/{id}, GET /messages/batches/{id}/results

A batch has no room for a mark, so its requests carry it in their names. Names are shown only with the answers: whoever
looks for a lost batch waits for the end of each that was made in those minutes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from windlass.apply.providers.batches.batch import JSON, Batch, Batches, Fault, compact, json_lines, made_at, told
from windlass.apply.providers.dialects.dialect import Call
from windlass.core.errors import ProviderError
from windlass.core.values import ChatRequest

_BEFORE, _AFTER = 600.0, 3600.0
"""Seconds around a mark in which its batch was made: clocks differ, and sending takes its time."""


class AnthropicBatches(Batches):
    largest = 240 << 20

    def line(self, mark: str, name: str, request: ChatRequest) -> bytes:
        return compact({"custom_id": f"{mark}-{name}", "params": self.remote.called(request).body})

    async def _making(self, lines: Sequence[bytes], mark: str) -> Call:
        return Call("/messages/batches", None, JSON, content=b'{"requests":[' + b",".join(lines) + b"]}")

    def _read(self, told: Mapping[str, Any]) -> Batch:
        status = told["processing_status"]
        counts = told.get("request_counts") or {}
        done = sum(int(counts.get(name) or 0) for name in ("succeeded", "errored", "canceled", "expired"))
        return Batch(told["id"], status, status != "ended", done, told=told)

    def _place(self, id: str) -> str:
        return f"/messages/batches/{id}"

    async def _find(self, mark: str, others: Collection[str]) -> Batch | None:
        begin, after = made_at(mark) - _BEFORE, ""
        while True:
            page = await self._endpoint.apost(Call(f"/messages/batches?limit=100{after}", None))
            for one in page["data"]:  # newest first
                made = datetime.fromisoformat(one["created_at"]).timestamp()
                if made < begin:
                    return None
                if made > begin + _BEFORE + _AFTER or one["id"] in others or one.get("archived_at"):
                    continue
                batch = await self.ended(self._read(one))
                name, _ = next(await self._lines(batch), ("", None))
                if name.startswith(f"{mark}-"):
                    return batch
            if not page.get("has_more") or not page["data"]:
                return None
            after = f"&after_id={page['data'][-1]['id']}"

    async def _results(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        return ((name.partition("-")[2], line) for name, line in await self._lines(batch))

    async def _lines(self, batch: Batch) -> Iterator[tuple[str, Mapping[str, Any]]]:
        if batch.told.get("archived_at"):
            raise ProviderError(f"The answers of the batch {batch.id} are kept no longer.", status=410)
        return json_lines([await self._endpoint.abytes(Call(f"{self._place(batch.id)}/results", None))])

    def _said(self, line: Mapping[str, Any]) -> Mapping[str, Any] | Fault:
        result = line["result"]
        match result["type"]:
            case "succeeded":
                message: Mapping[str, Any] = result["message"]
                return message
            case "expired":
                return Fault("it expired before its turn came")
            case "errored":
                return Fault(told(result.get("error")))
        return Fault(str(result["type"]))
