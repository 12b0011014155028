"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: adapters come and go while requests run.

A request asks for one by its field `adapter`. The folder lies on the server's machine; a key needs the scope admin.
"""

from __future__ import annotations

from pathlib import Path

from windlass.core.protocols import Adaptable
from windlass.serve.api.context import Context
from windlass.serve.api.fields import BadField, Json, Table, text
from windlass.serve.api.operation import TEXT_, Caller, Operation, obj


def operations(context: Context) -> list[Operation]:
    known = {name: model for name, model in context.models.items() if isinstance(model, Adaptable)}
    model = context.model_field(known)

    def of(fields: Json) -> str:
        """The base asked for; it may be left out where there is one only."""
        if "model" in fields:
            context.named(known, fields["model"])
            return str(fields["model"])
        if len(known) == 1:
            return next(iter(known))
        raise BadField("model", "'model' is missing.", f"Models that take adapters: {', '.join(known) or 'none'}.")

    async def load(caller: Caller, fields: Json) -> Json:
        base, name, folder = of(fields), fields["lora_name"], Path(fields["lora_path"])
        await context.blocking(lambda: known[base].load_adapter(name, folder), caller)
        return {"model": base, "adapters": dict(known[base].adapters)}

    async def unload(caller: Caller, fields: Json) -> Json:
        base, name = of(fields), fields["lora_name"]
        await context.blocking(lambda: known[base].unload_adapter(name), caller)
        return {"model": base, "adapters": dict(known[base].adapters)}

    name: Table = {"model": model, "lora_name": text(empty=False)}
    return [
        Operation(
            method="POST", path="/v1/load_lora_adapter", summary="Loads an adapter from a folder of PEFT",
            scope="admin", table={**name, "lora_path": text(empty=False)}, required=("lora_name", "lora_path"),
            answer=ANSWER, handle=load, errors=(404,),
        ),
        Operation(
            method="POST", path="/v1/unload_lora_adapter",
            summary="Forgets an adapter; requests that were accepted with it finish with it",
            scope="admin", table=name, required=("lora_name",), answer=ANSWER, handle=unload, errors=(404,),
        ),
    ]  # fmt: skip


ANSWER = obj({"model": TEXT_, "adapters": {"type": "object", "additionalProperties": TEXT_}})
"""Name and digest of every adapter that is loaded now."""
