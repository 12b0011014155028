"""/v1/batches: files of requests, answered in the background (`serve.batches` does the work)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from windlass.serve.api.context import Context
from windlass.serve.api.fields import Check, Json, Table, kind, one_of, read_body, text
from windlass.serve.api.files import find_file, sees
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, forever, obj
from windlass.serve.api.paging import PARAMETERS, page, page_of
from windlass.serve.batches import Batch, Batches
from windlass.serve.errors import BadField, HttpError, error_json, status_of
from windlass.serve.filestore import FileStore
from windlass.serve.gate import admit

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
PATIENCE = 120.0
"""A line waits for a limit that is over within so many seconds; a longer one is the line's error."""


class BatchAnswers:
    """Carries the lines of batches out, as requests of the key that made the batch."""

    def __init__(self, context: Context, operations: Mapping[str, Operation]) -> None:
        self._context = context
        self._operations = operations

    async def __call__(self, batch: Batch, body: Json) -> tuple[int, Json]:
        while True:
            try:
                return 200, await self._once(batch, body)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the line's answer
                status = status_of(error)
                wait = float(getattr(error, "headers", {}).get("Retry-After", 1))
                if status != 429 or wait > PATIENCE:
                    return status, error_json(error)
                await asyncio.sleep(wait)

    async def _once(self, batch: Batch, body: Json) -> Json:
        keys, key = self._context.keys, None
        if keys is not None and batch.owner is not None:
            key = next((one for one in keys.all() if one.id == batch.owner), None)
            if key is None or not key.usable(time.time()):
                raise HttpError(401, "The key that made this batch opens nothing any more.", code="invalid_api_key")
            await admit(keys, key)
        operation = self._operations[batch.endpoint]
        assert operation.table is not None
        made = await operation.handle(Caller(forever, key), read_body(operation.table, operation.required, body))
        assert isinstance(made, dict), "a batch's line is not streamed"
        return made


def operations(context: Context, files: FileStore, batches: Batches) -> list[Operation]:
    async def create(caller: Caller, fields: Json) -> Json:
        source = find_file(files, caller, fields["input_file_id"], param="input_file_id")
        if source.purpose != "batch":
            raise BadField("input_file_id", f"{source.id} is for '{source.purpose}', not for a batch.")
        owner = None if caller.key is None else caller.key.id
        metadata = fields.get("metadata", {})
        batch = await asyncio.to_thread(batches.add, fields["endpoint"], source, owner, metadata)
        batches.look()
        return batch_json(batch)

    async def list_batches(caller: Caller, fields: Json) -> Json:
        found = [one for one in await asyncio.to_thread(batches.all) if sees(caller, one.owner)]
        return page(caller, found, lambda one: one.id, batch_json)

    def find(caller: Caller) -> Batch:
        assert caller.request is not None
        id = str(caller.request.path_params["batch"])
        found = batches.get(id)
        if found is None or not sees(caller, found.owner):
            raise HttpError(404, f"There is no batch '{id[:100]}'.", code="not_found", param="batch")
        return found

    async def show(caller: Caller, fields: Json) -> Json:
        return batch_json(find(caller))

    async def cancel(caller: Caller, fields: Json) -> Json:
        found = find(caller)
        if not found.open:
            raise HttpError(409, f"{found.id} is {found.status} already.", code="not_open")
        return batch_json(batches.cancel(found))

    table: Table = {
        "input_file_id": text(empty=False),
        "endpoint": one_of(*ENDPOINTS),
        "completion_window": one_of("24h"),
        "metadata": METADATA,
    }
    which = {"name": "batch", "in": "path", "required": True, "schema": TEXT_}
    return [
        Operation(
            method="POST", path="/v1/batches", summary="Answers a file of requests in the background", scope="batch",
            table=table, required=("input_file_id", "endpoint", "completion_window"), answer=BATCH, handle=create,
            errors=(404,),
        ),
        Operation(
            method="GET", path="/v1/batches", summary="Lists batches", scope="batch", answer=page_of(BATCH),
            handle=list_batches, parameters=PARAMETERS,
        ),
        Operation(
            method="GET", path="/v1/batches/{batch}", summary="How a batch stands", scope="batch", answer=BATCH,
            handle=show, parameters=[which], errors=(404,),
        ),
        Operation(
            method="POST", path="/v1/batches/{batch}/cancel", summary="Ends a batch; what was answered is kept",
            scope="batch", answer=BATCH, handle=cancel, parameters=[which], errors=(404, 409),
        ),
    ]  # fmt: skip


def _metadata(at: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise BadField(at, f"'{at}' is {kind(value)}, but must be an object of texts.")
    return value


METADATA = Check({"type": "object", "additionalProperties": {"type": "string"}}, _metadata)


def batch_json(batch: Batch) -> Json:
    ended = None if batch.ended is None else int(batch.ended)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": None,
        "input_file_id": batch.input,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output if not batch.open and batch.completed else None,
        "error_file_id": batch.errors if not batch.open and batch.failed else None,
        "created_at": int(batch.created),
        "expires_at": int(batch.expires),
        "in_progress_at": int(batch.created),
        "completed_at": ended if batch.status == "completed" else None,
        "cancelled_at": ended if batch.status == "cancelled" else None,
        "expired_at": ended if batch.status == "expired" else None,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


BATCH = obj(
    {
        "id": TEXT_,
        "object": {"const": "batch"},
        "endpoint": TEXT_,
        "input_file_id": TEXT_,
        "status": {"enum": ["in_progress", "cancelling", "completed", "cancelled", "expired"]},
        "created_at": COUNT,
        "request_counts": obj({"total": COUNT, "completed": COUNT, "failed": COUNT}),
    }
)
