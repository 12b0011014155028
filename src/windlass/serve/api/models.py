"""GET /v1/models, and one of them."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.core.protocols import ChatModel, Embedder, Reranker, Tokenizing
from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, list_of, obj


def operations(context: Context) -> list[Operation]:
    by_kind: dict[str, Mapping[str, ChatModel | Embedder | Reranker]] = {
        "chat": context.models,
        "embeddings": context.embedders,
        "rerank": context.rerankers,
    }
    names = list(dict.fromkeys(name for known in by_kind.values() for name in known))

    def card(name: str) -> Json:
        kinds = [kind for kind, known in by_kind.items() if name in known]
        model = by_kind[kinds[0]][name]
        about: Json = {"kinds": kinds, "digest": model.digest}
        if isinstance(model, Tokenizing):
            about["context"] = model.context
        return {"id": name, "object": "model", "created": context.started, "owned_by": "windlass", "windlass": about}

    async def list_models(caller: Caller, fields: Json) -> Json:
        return {"object": "list", "data": [card(name) for name in names]}

    async def show_model(caller: Caller, fields: Json) -> Json:
        assert caller.request is not None
        name = caller.request.path_params["model"]
        if name not in names:
            context.no_model(name, names)
        return card(name)

    which = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": names}}
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


CARD = obj(
    {
        "id": TEXT_,
        "object": {"const": "model"},
        "created": COUNT,
        "owned_by": TEXT_,
        "windlass": obj({"kinds": {"type": "array", "items": TEXT_}, "digest": {"type": ["string", "null"]}}),
    }
)
