"""Lists in pages, as OpenAI's clients ask for them: `limit`, and `after` the id that came last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from windlass.serve.api.fields import Json, integer
from windlass.serve.api.operation import TEXT_, Caller, list_of
from windlass.serve.errors import BadField

MOST = 10_000
T = TypeVar("T")

PARAMETERS: tuple[Json, ...] = (
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MOST}},
    {"name": "after", "in": "query", "schema": TEXT_},
)


def page_of(item: Json) -> Json:
    """JSON schema of a page."""
    schema = list_of(item)
    schema["properties"] |= {"has_more": {"type": "boolean"}}
    return schema


def page(caller: Caller, items: Sequence[T], id_of: Callable[[T], str], show: Callable[[T], Json]) -> Json:
    """The page that the caller asks for of all `items`. An `after` that is not among them gives an empty page."""
    assert caller.request is not None
    asked = caller.request.query_params
    limit = _number("limit", asked["limit"]) if "limit" in asked else 100
    if "after" in asked:
        at = next((i for i, item in enumerate(items) if id_of(item) == asked["after"]), len(items))
        items = items[at + 1 :]
    data = [show(item) for item in items[:limit]]
    return {"object": "list", "data": data, "has_more": len(items) > limit}


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or len(value) > 9:
        raise BadField(name, f"'{name}' is '{value[:50]}', but must be a whole number.")
    return int(integer(1, MOST)(name, int(value)))
