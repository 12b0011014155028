"""GET /v1/models, and one of them."""

from __future__ import annotations

from windlass.core.protocols import Tokenizing
from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, list_of, obj


def operations(context: Context) -> list[Operation]:
    async def list_models(caller: Caller, fields: Json) -> Json:
        return {"object": "list", "data": [card(context, name) for name in context.names()]}

    async def show_model(caller: Caller, fields: Json) -> Json:
        assert caller.request is not None
        return card(context, caller.request.path_params["model"])

    names = {"type": "string", "enum": context.names()}
    which = {"name": "model", "in": "path", "required": True, "schema": names}
    return [
        Operation(
            method="GET", path="/v1/models", summary="Lists the models", scope=None, answer=list_of(CARD),
            handle=list_models,
        ),
        Operation(
            method="GET", path="/v1/models/{model}", summary="Shows one model", scope=None, answer=CARD,
            handle=show_model, errors=(404,), parameters=[which],
        ),
    ]  # fmt: skip


def card(context: Context, name: str) -> Json:
    """What is said of a model; an adapter's `parent` and `root` are the model that it was loaded on. Raises `HttpError`
    (404)."""
    found = {kind: known[name] for kind, known in context.kinds().items() if name in known}
    if not found:
        context.no_model(name, context.names())
    model = next(iter(found.values()))
    about: Json = {"kinds": list(found), "digest": model.digest}
    if isinstance(model, Tokenizing):
        about["context"] = model.context
    if (caveat := getattr(model, "caveat", None)) is not None:
        about["caveat"] = caveat
    parent = context.models.parents.get(name)
    return {
        "id": name,
        "object": "model",
        "created": context.started,
        "owned_by": "windlass",
        "root": parent or name,
        "parent": parent,
        "windlass": about,
    }


CARD = obj(
    {
        "id": TEXT_,
        "object": {"const": "model"},
        "created": COUNT,
        "owned_by": TEXT_,
        "root": TEXT_,
        "parent": {"type": ["string", "null"]},
        "windlass": obj(
            {
                "kinds": {"type": "array", "items": TEXT_},
                "digest": {"type": ["string", "null"]},
                "context": COUNT,
                "caveat": {**TEXT_, "description": "Why an adapter's answers may be worse here, and what to do."},
            },
            required=["kinds", "digest"],
        ),
    }
)
