"""All operations, and the way of every request to one of them: key, body, answer, and every failure as an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serve.api import (
    adapters,
    chat,
    classify,
    completions,
    embeddings,
    feedback,
    models,
    rerank,
    responses,
    tokens,
)
from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json, Table, parse_json, read_body
from windlass.serve.api.operation import Caller, Operation
from windlass.serve.errors import BadField, HttpError, error_response, json_response
from windlass.serve.gate import admit, key_of, scope_error
from windlass.serve.work import ClientGone

Endpoint = Callable[[Request], Awaitable[Response]]


def operations(context: Context) -> list[Operation]:
    return [
        *models.operations(context),
        chat.operation(context),
        completions.operation(context),
        responses.operation(context),
        embeddings.operation(context),
        *rerank.operations(context),
        *classify.operations(context),
        *tokens.operations(context),
        *adapters.operations(context),
        feedback.operation(context),
    ]


def routes(context: Context, known: Sequence[Operation]) -> list[Route]:
    made = [Route(_path(one.path), guarded(_endpoint(context, one)), methods=[one.method]) for one in known]
    # Starlette answers a wrong method or an unknown path in plain text, which OpenAI's clients cannot read.
    allowed: dict[str, list[str]] = {}
    for one in known:
        allowed.setdefault(one.path, []).append(one.method)
    other = [Route(_path(path), guarded(_only(methods)), methods=_METHODS) for path, methods in allowed.items()]
    return [*made, *other, Route("/v1/{rest:path}", guarded(_unknown(sorted(allowed))), methods=_METHODS)]


_LARGE = 1 << 16
"""Bytes."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"]


def _path(path: str) -> str:
    # a model's name may hold slashes
    return path.replace("{model}", "{model:path}")


def _endpoint(context: Context, operation: Operation) -> Endpoint:
    async def answer(request: Request) -> Response:
        key = key_of(request.scope)
        if key is not None and operation.scope is not None and operation.scope not in key.scopes:
            raise scope_error(key, operation.scope)
        known = [parameter["name"] for parameter in operation.parameters if parameter["in"] == "query"]
        for name in request.query_params:
            if name not in known:
                raise BadField(name[:200], f"'{name[:200]}' is not a parameter of {operation.path}.", "Leave it out.")
        fields = {}
        if operation.table is not None:
            fields = await _fields(operation.table, operation.required, await _body(request, context))
        if key is not None and context.keys is not None and operation.method == "POST":
            await admit(context.keys, key)
        made = await operation.handle(Caller(request.receive, key, request), fields)
        return made if isinstance(made, Response) else json_response(made)

    return answer


async def _fields(table: Table, required: Collection[str], body: bytes) -> Json:
    """Large bodies are read beside the loop: hundreds of thousands of tokens would hold up everybody's answers."""
    if len(body) < _LARGE:
        return read_body(table, required, parse_json(body))
    return await asyncio.to_thread(lambda: read_body(table, required, parse_json(body)))


async def _body(request: Request, context: Context) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HttpError(
            415, f"The body is of type '{kind[:100]}'.", "Send the header 'Content-Type: application/json'."
        )
    limits = context.limits
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise HttpError(
                        413, f"The body is larger than {limits.body_bytes} bytes.", headers={"Connection": "close"}
                    )
    except TimeoutError:
        raise HttpError(
            408, f"The body did not arrive within {limits.body_seconds:g} s.", headers={"Connection": "close"}
        ) from None
    return bytes(body)


def guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint with every failure turned into an error in OpenAI's shape."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGone:
            return Response(status_code=499)  # nobody will read it; the number is for the metrics
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a well-formed answer
            return error_response(error)

    return answer


def _only(methods: Sequence[str]) -> Endpoint:
    async def refuse(request: Request) -> Response:
        raise HttpError(
            405, f"{request.url.path} takes {' and '.join(methods)} only.", headers={"Allow": ", ".join(methods)}
        )

    return refuse


def _unknown(paths: Sequence[str]) -> Endpoint:
    async def refuse(request: Request) -> Response:
        raise HttpError(
            404, f"There is no {request.url.path[:200]} on this server.", f"It has {', '.join(paths)}.",
            code="unknown_path",
        )  # fmt: skip

    return refuse
