"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: adapters come and go while requests run.

A loaded adapter is a model of its own, listed with its base as `parent` and asked for by its name in `model`. Loading
needs the scope admin, and finds only what the server's owner allowed (`serve.adapter_folders`).
"""

from __future__ import annotations

import asyncio

from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json, Table, text
from windlass.serve.api.models import CARD, card
from windlass.serve.api.operation import TEXT_, Caller, Operation, obj
from windlass.serve.errors import BadField, HttpError

LONGEST_NAME = 200


def operations(context: Context) -> list[Operation]:
    changing = asyncio.Lock()
    """One at a time, so that a name which was free stays free until its adapter has it."""
    bases = context.models.adaptable

    async def load(caller: Caller, fields: Json) -> Json:
        name, base = fields["lora_name"], context.chosen(fields, bases, bases, "that take adapters")

        def find_and_load() -> None:
            base.load_adapter(name, context.adapter_folders.find(fields["lora_path"]))

        async with changing:
            if name in context.names():
                raise BadField(
                    "lora_name", f"There is a model '{name}' already.", "Unload it, or choose another name.",
                    code="name_taken",
                )  # fmt: skip
            await context.blocking(find_and_load, caller)
        # Those that have gone are counted until the next one comes, so that whoever reads the metrics sees their end.
        context.metrics.keep("model", context.names())
        return card(context, name)

    async def unload(caller: Caller, fields: Json) -> Json:
        name = fields["lora_name"]
        async with changing:
            parent = context.models.parents.get(name)
            if parent is None:
                known = ", ".join(f"'{one}'" for one in context.models.parents) or "none"
                raise HttpError(
                    404, f"There is no adapter '{name}'.", f"Loaded: {known}.", code="model_not_found",
                    param="lora_name",
                )  # fmt: skip
            await context.blocking(lambda: bases[parent].unload_adapter(name), caller)
        return {"id": name, "object": "model", "deleted": True}

    name: Table = {"lora_name": text(empty=False, longest=LONGEST_NAME)}
    place: Table = {"lora_path": text(empty=False), "model": context.model_field(bases)}
    return [
        Operation(
            method="POST", path="/v1/load_lora_adapter", summary="Loads an adapter, which then is a model of its own",
            scope="admin", table={**name, **place}, required=("lora_name", "lora_path"), answer=CARD, handle=load,
            errors=(403, 404),
        ),
        Operation(
            method="POST", path="/v1/unload_lora_adapter",
            summary="Forgets an adapter; requests that were accepted with it finish with it",
            scope="admin", table=name, required=("lora_name",), answer=GONE, handle=unload, errors=(404,),
        ),
    ]  # fmt: skip


GONE = obj({"id": TEXT_, "object": {"const": "model"}, "deleted": {"const": True}})
