"""One endpoint as a value: what it reads, what it answers, and the function between.

Routes and the OpenAPI document are both made from it, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from windlass.serve.api.fields import Json, Table
from windlass.serve.keys import Key, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `receive` tells when they have left, `key` what they may do and use."""

    receive: Receive
    key: Key | None = None
    request: Request | None = None
    """None for a line of a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    method: str
    path: str
    """As OpenAPI writes it: `/v1/models/{model}`."""
    summary: str
    scope: Scope | None
    """What a key must be allowed; None: any key will do."""
    answer: Json
    """JSON schema of the body of a 200."""
    handle: Callable[[Caller, Json], Awaitable[Json | Response]]
    """Gets the fields of the body, as `table` reads them; an empty object where there is no table."""
    table: Table | None = None
    """The JSON body's fields. None: no JSON body."""
    required: Collection[str] = ()
    streams: bool = False
    """May answer with server-sent events."""
    media_type: str = "application/json"
    errors: Sequence[int] = ()
    """Statuses besides those that any operation may answer with."""
    form: Json | None = None
    """JSON schema of a multipart body, where there is one."""
    parameters: Sequence[Json] = field(default=())
    """OpenAPI's parameter objects, for path and query."""


async def forever() -> Message:
    """The `receive` of a caller that never leaves."""
    import asyncio

    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


def obj(properties: Json, required: Collection[str] | None = None) -> Json:
    """JSON schema of an answer's object; all of its properties are there unless `required` says which."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }


def list_of(item: Json) -> Json:
    return obj({"object": {"const": "list"}, "data": {"type": "array", "items": item}})


TEXT_: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
"""Schemas that many answers use."""
