"""The OpenAPI document, made from the same operations as the routes."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core.version import __version__
from windlass.serve.api.fields import Json, body_schema
from windlass.serve.api.operation import Operation, obj

ERROR = obj(
    {
        "error": obj(
            {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            }
        )
    }
)
_MEANING = {
    200: "The answer",
    400: "A field is wrong or not supported; `param` names it",
    401: "The API key is missing or wrong",
    403: "The key lacks the scope",
    404: "There is no such model or object",
    408: "The body took too long to arrive",
    409: "The object is not in a state that allows this",
    413: "The body is too large",
    415: "The body is of another type",
    421: "The server does not answer to this host name",
    429: "A limit is reached, or the server is busy; `Retry-After` says when to come back",
    500: "The server failed",
    501: "This server was started without what this needs",
    502: "The provider behind the model failed",
    503: "The server is stopping, or its workspace is busy",
    504: "The answer took longer than allowed",
    507: "The disk is full",
}
_ALWAYS = (421, 500, 503)
_WITH_BODY = (400, 408, 413, 415, 429, 502, 504, 507)


def document(operations: Sequence[Operation], *, keyed: bool) -> Json:
    """OpenAPI 3.1. `keyed`: requests need an API key."""
    paths: Json = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, keyed)
    body: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "windlass",
            "version": __version__,
            "description": "An OpenAI-compatible server. A field that it does not know or cannot honour is refused by"
            " name, never ignored; null means absent.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }
    if keyed:
        body["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        body["security"] = [{"key": []}]
    return body


def _operation(operation: Operation, keyed: bool) -> Json:
    content: Json = {operation.media_type: {"schema": operation.answer}}
    if operation.streams:
        # No type: some readers check the whole stream as a string, others each event as an object of its fields.
        content["text/event-stream"] = {"schema": {"description": "Server-sent events; the data of each is JSON."}}
    errors = {*_ALWAYS, *operation.errors, *((401, 403, 429) if keyed else ())}
    if any(parameter["in"] == "query" for parameter in operation.parameters):
        errors.add(400)
    reads = operation.table is not None or operation.form is not None
    if reads:
        errors |= set(_WITH_BODY)
    made: Json = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "responses": {"200": {"description": _MEANING[200], "content": content}}
        | {
            str(status): {
                "description": _MEANING[status],
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
            for status in sorted(errors)
        },
    }
    if operation.parameters:
        made["parameters"] = list(operation.parameters)
    if operation.table is not None:
        schema = body_schema(operation.table, operation.required)
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif operation.form is not None:
        made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": operation.form}}}
    return made


def _identifier(operation: Operation) -> str:
    return operation.method.lower() + operation.path.translate(str.maketrans("/", "_", "{}"))
