"""POST /v1/feedback, a door of windlass' own: what an end user thinks of an answer becomes a score on its trace."""

from __future__ import annotations

import time
import uuid

from windlass.core.records import ScoreRecord
from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json, Table, number, text
from windlass.serve.api.operation import TEXT_, Caller, Operation, obj
from windlass.serve.errors import HttpError

TABLE: Table = {
    "trace_id": text(empty=False),
    "value": number(0, 1),
    "comment": text(),
    "correct_document": text(empty=False),
    "user": text(empty=False),
}


def operation(context: Context) -> Operation:
    async def handle(caller: Caller, fields: Json) -> Json:
        store = context.store
        if store is None:
            raise HttpError(501, "This server keeps no traces, so it takes no feedback.")
        trace: str = fields["trace_id"]
        metadata = {name: fields[name] for name in ("correct_document",) if name in fields}
        score = ScoreRecord(
            uuid.uuid4().hex, trace, "feedback", fields["value"], "user", fields.get("user", "user"), time.time(),
            fields.get("comment", ""), metadata=metadata,
        )  # fmt: skip

        def save() -> None:
            context.recorder.flush()  # the answer may be younger than the recorder's last write
            if not (spans := store.trace(trace)) or spans[0].trace_id != trace:
                raise HttpError(404, f"There is no trace '{trace[:64]}'.", param="trace_id", code="not_found")
            store.add_score(score)

        await context.blocking(save, caller)
        return {"object": "feedback", "id": score.id, "trace_id": trace, "value": fields["value"]}

    return Operation(
        method="POST",
        path="/v1/feedback",
        summary="Scores an answer",
        scope="generate",
        table=TABLE,
        required=("trace_id", "value"),
        answer=obj({"object": {"const": "feedback"}, "id": TEXT_, "trace_id": TEXT_, "value": {"type": "number"}}),
        handle=handle,
        errors=(404, 501),
    )
