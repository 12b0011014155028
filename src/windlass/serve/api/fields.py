"""Reading JSON objects strictly, by tables that also describe them.

An endpoint declares its fields once, as a table of checks. `record` reads an object by that table and refuses what
the table does not name; the same table gives the JSON schema in the OpenAPI document. So the document cannot promise
what the server refuses, nor the server take what the document does not name. `null` means absent, as in OpenAI's own
service.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.serve.errors import BadField

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """Reads one value: `check(where, value)` gives it as the server uses it, or raises `BadField`."""

    schema: Mapping[str, Any]
    read: Callable[[str, Any], Any]

    def __call__(self, at: str, value: Any) -> Any:
        return self.read(at, value)

    def then(self, read: Callable[[str, Any], Any]) -> Check:
        """This check, and `read` on what it gave."""
        return Check(self.schema, lambda at, value: read(at, self.read(at, value)))


Table = Mapping[str, Check]


# the body ------------------------------------------------------------------------------------------------------------


def parse_json(body: bytes) -> Json:
    """The JSON object in a request's body. NaN, repeated keys and half characters, which Python reads, are refused."""
    try:
        # Decoded here, because `json.loads` would guess at UTF-16 and let halves of characters pass.
        value = json.loads(body.decode(), parse_constant=_no_constant, object_pairs_hook=_unique)
        if b"\\u" in body:  # an escape can smuggle half a character in, which nothing after this could write out
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise BadField(None, "The body is nested too deeply.") from None
    except UnicodeEncodeError:
        raise BadField(None, "A text holds half a character (a lone surrogate).", "Check how it was cut.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadField(None, f"The body is not valid JSON: {error}.", "Send one JSON object, in UTF-8.") from None
    except ValueError:
        raise BadField(None, "The body holds a number of thousands of digits.") from None
    if not isinstance(value, dict):
        raise BadField(None, f"The body is {kind(value)}, but must be a JSON object.")
    return value


def read_body(table: Table, required: Collection[str], fields: Json) -> Json:
    """The fields of a request's body by `table`."""
    return _read_object(table, required, "", fields)


def body_schema(table: Table, required: Collection[str]) -> Json:
    """JSON schema of a body that `read_body` takes."""
    optional = {name: {"anyOf": [check.schema, {"type": "null"}]} for name, check in table.items()}
    return {
        "type": "object",
        "properties": optional | {name: table[name].schema for name in required},
        "required": list(required),
        "additionalProperties": False,
    }


def record(table: Table, required: Collection[str] = ()) -> Check:
    """An object with these fields and no others; absent and null ones are left out of what it gives."""

    def read(at: str, value: Any) -> Json:
        if not isinstance(value, dict):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be an object.")
        return _read_object(table, required, f"{at}.", value)

    return Check(body_schema(table, required), read)


def _read_object(table: Table, required: Collection[str], prefix: str, value: Json) -> Json:
    for name in required:
        if value.get(name) is None:
            raise BadField(f"{prefix}{name}", f"'{prefix}{name}' is missing.", code="missing")
    found = {}
    for name, one in value.items():
        if name not in table:
            near = difflib.get_close_matches(name, table, n=1)
            shown = f"{prefix}{name}"[:200]
            hint = f"Did you mean '{prefix}{near[0]}'?" if near else "Leave it out."
            raise BadField(shown, f"'{shown}' is not a field this server knows.", hint, code="unknown_field")
        if one is not None:
            found[name] = table[name](f"{prefix}{name}", one)
    return found


def by_type(tables: Mapping[str, Check], *, key: str = "type", default: str | None = None) -> Check:
    """Objects of several kinds, told apart by their field `key`."""

    def read(at: str, value: Any) -> Any:
        if not isinstance(value, dict):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be an object.")
        name = value.get(key) or default
        if name is None:
            raise BadField(f"{at}.{key}", f"'{at}.{key}' is missing.", code="missing")
        if not isinstance(name, str) or name not in tables:
            allowed = ", ".join(tables)
            raise BadField(f"{at}.{key}", f"'{at}.{key}' is {short(name)}, but must be one of: {allowed}.")
        return tables[name](at, value)

    return Check({"anyOf": [check.schema for check in tables.values()]}, read)


# values --------------------------------------------------------------------------------------------------------------

anything = Check({}, lambda at, value: value)


def _flag(at: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadField(at, f"'{at}' is {kind(value)}, but must be true or false.")
    return value


flag = Check({"type": "boolean"}, _flag)


def text(*, empty: bool = True, longest: int | None = None) -> Check:
    def read(at: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a text.")
        if not value and not empty:
            raise BadField(at, f"'{at}' is empty.")
        if longest is not None and len(value) > longest:
            raise BadField(at, f"'{at}' has {len(value)} characters; at most {longest} are allowed.")
        return value

    schema: Json = {"type": "string"}
    schema |= {} if empty else {"minLength": 1}
    schema |= {} if longest is None else {"maxLength": longest}
    return Check(schema, read)


def integer(low: int, high: int) -> Check:
    def read(at: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():  # 5.0 is a whole number in JSON schema too
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a whole number.")
        if not low <= value <= high:
            raise BadField(at, f"'{at}' is {short(value)}, but must be between {low} and {high}.")
        return value

    return Check({"type": "integer", "minimum": low, "maximum": high}, read)


def number(low: float, high: float, *, above: bool = False, hint: str = "") -> Check:
    """A number from `low` to `high`; `above`: `low` itself is not allowed."""

    def read(at: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a number.")
        if above and value == low:
            raise BadField(at, f"'{at}' is {short(value)}, but must be above {low:g}.", hint)
        if not low <= value <= high or not math.isfinite(value):
            raise BadField(at, f"'{at}' is {short(value)}, but must be between {low:g} and {high:g}.", hint)
        return float(value)

    return Check({"type": "number", "exclusiveMinimum" if above else "minimum": low, "maximum": high}, read)


def one_of(*allowed: str) -> Check:
    def read(at: str, value: Any) -> str:
        if value not in allowed or not isinstance(value, str):
            raise BadField(at, f"'{at}' is {short(value)}, but must be one of: {', '.join(allowed)}.")
        return value

    return Check({"type": "string", "enum": list(allowed)}, read)


def only(*allowed: Any, hint: str = "Leave it out.") -> Check:
    """A field of the API that this server supports with these values only, which ask for nothing out of the usual."""

    def read(at: str, value: Any) -> Any:
        for one in allowed:
            # true is not 1 here: a flag in place of a number is a mistake that must not pass
            if isinstance(value, bool) == isinstance(one, bool) and value == one:
                return value
        shown = f" with {short(value)}" if allowed else ""
        raise BadField(at, f"'{at}' is not supported by this server{shown}.", hint, code="unsupported")

    return Check({"enum": list(allowed)} if allowed else {"type": "null"}, read)


def array(check: Check, *, least: int = 0, most: int) -> Check:
    def read(at: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a list.")
        if len(value) < least:
            raise BadField(at, f"'{at}' must hold at least {least}.")
        if len(value) > most:
            raise BadField(at, f"'{at}' holds {len(value)}; this server takes {most}.")
        return [check(f"{at}[{i}]", one) for i, one in enumerate(value)]

    return Check({"type": "array", "items": check.schema, "minItems": least, "maxItems": most}, read)


def text_or(other: Check, *, empty: bool = True) -> Check:
    """A text, or what `other` reads."""
    plain = text(empty=empty)

    def read(at: str, value: Any) -> Any:
        return plain(at, value) if isinstance(value, str) else other(at, value)

    return Check({"anyOf": [plain.schema, other.schema]}, read)


def _mapping(at: str, value: Any) -> Json:
    if not isinstance(value, dict):
        raise BadField(at, f"'{at}' is {kind(value)}, but must be an object.")
    return value


mapping = Check({"type": "object"}, _mapping)


# how values are called in messages -----------------------------------------------------------------------------------


def kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def short(value: Any) -> str:
    """A value as it may stand in an error message: huge ones are cut."""
    shown = json.dumps(value, ensure_ascii=True)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _no_constant(name: str) -> Any:
    raise BadField(None, f"The body holds {name}, which is not JSON.")


def _unique(pairs: Iterable[tuple[str, Any]]) -> Json:
    found: Json = {}
    for name, value in pairs:
        if name in found:
            raise BadField(name[:200], f"The field '{name[:200]}' is given twice.")
        found[name] = value
    return found
