"""Tools whose arguments are written one by one under their names, and not as one JSON object.

Such a format can only write what the schema names. Where it quotes no texts (`tagged_calls`), a value stands there as
it is, up to a mark that ends it, and only the schema tells whether `5` is a number or a text: `reading` and `writing`
go by the same rule. Where a text is allowed beside other types, what looks like one of those is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from windlass.core.errors import Unsupported
from windlass.serve.engine.constraints.keywords import NUMBERS, TYPES, Schema
from windlass.serve.engine.constraints.lark import TAUGHT, in_lark, quoted
from windlass.serve.engine.dialect.calls import Incoming, Malformed, Reading, Signature, silently, text_of, value_of

_DEEPEST = 16
_TEXT = frozenset(["minLength", "maxLength", "pattern"])
_OF_PYTHON = {"True": "true", "False": "false", "None": "null"}
"""Templates that print values without a filter have taught models these."""


def properties_of(tool: Signature) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool.parameters.get("properties", {})
    return found


def check_named(tool: Signature) -> None:
    """Raises `Unsupported` for a tool whose arguments cannot be written one by one."""
    known = {"type", "properties", "required", "additionalProperties", "$defs"}
    missing = set(tool.parameters.get("required", ())) - set(properties_of(tool))
    if set(tool.parameters) - known or missing:
        raise Unsupported(
            f"The parameters of the tool '{tool.name}' cannot be written one by one, as this model writes them.",
            "Describe them as an object of named properties.",
        )


# which types a value may have ----------------------------------------------------------------------------------------


def _branches(schema: Any, shared: Mapping[str, Any], depth: int = 0) -> list[Schema]:
    """The schemas of which one must hold: references that stand alone are followed, and unions taken apart."""
    if not isinstance(schema, dict):
        return [{}] if schema else []
    if set(schema) == {"$ref"} and depth < _DEEPEST:
        return _branches(shared.get(schema["$ref"].removeprefix("#/$defs/"), True), shared, depth + 1)
    if set(schema) == {"anyOf"} and depth < _DEEPEST:
        return [found for part in schema["anyOf"] for found in _branches(part, shared, depth + 1)]
    if set(schema) == {"allOf"} and len(schema["allOf"]) == 1 and depth < _DEEPEST:
        return _branches(schema["allOf"][0], shared, depth + 1)
    if "enum" in schema:
        return [{"const": value} for value in schema["enum"]] if set(schema) <= {"enum", "type"} else [schema]
    return [schema]


def _types(schema: Schema) -> list[str]:
    if "const" in schema:
        return [_type(schema["const"])]
    named = schema.get("type", TYPES)
    return [named] if isinstance(named, str) else list(named)


def _type(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", type(None): "null"}
    return kinds.get(type(value), "number")


# reading -------------------------------------------------------------------------------------------------------------


def reading(source: Incoming, tool: Schema, key: str, end: str, *, before: str = "") -> Reading[None]:
    """Follows a value up to `end`, which is stepped over as a `before` right before it is, and yields it as JSON: at
    once where it can only be a text."""
    schema = tool.get("properties", {}).get(key, True)
    types = {kind for branch in _branches(schema, tool.get("$defs", {})) for kind in _types(branch)}
    if types == {"string"}:
        yield '"'
        for event in source.until(end, before=before):
            yield text_of(event)[1:-1] if isinstance(event, str) else None
        yield '"'
        return
    first = source.rest.lstrip()[:1]
    while not first and not source.closed:
        yield None
        first = source.rest.lstrip()[:1]
    if (first == "{" and "object" in types) or (first == "[" and "array" in types):
        yield from source.json()  # the mark may stand inside of it
        yield from source.which(end)
    else:
        yield _as_json((yield from silently(source.until(end, before=before))), types)


def _as_json(written: str, types: set[str]) -> str:
    """What has no type that is allowed is passed on as a text, for the tool to say so."""
    bare = written.strip()
    bare = _OF_PYTHON.get(bare, bare)
    try:
        kind = _type(value_of(bare))
    except Malformed:
        return text_of(written)
    if kind in types or (kind in ("integer", "number") and types & {"integer", "number"}) or "string" not in types:
        return bare
    return text_of(written)


# writing -------------------------------------------------------------------------------------------------------------

_LOOKS = {"null": "null|None", "boolean": "true|false|True|False"}
_STARTS = {"integer": "[-0-9]", "number": "[-0-9]", "array": r"\[", "object": r"\{"}
_NOT_OF_TEXTS = NUMBERS | {"items", "prefixItems", "minItems", "maxItems", "properties", "patternProperties"} | {
    "additionalProperties", "required", "minProperties", "maxProperties"
}  # fmt: skip
"""Keywords that say nothing of texts."""


def writing(tool: Signature, key: str, end: str, rule: str) -> list[str]:
    """Lark rules of the values of a parameter, each with `end` behind it: `rule`, and the lexemes it is made of.

    A text is one lexeme with its end: a shorter one could not stop before a mark that looks like more text. Raises
    `Unsupported` for texts whose rule cannot be said of a text that is not quoted.
    """
    shared = tool.parameters.get("$defs", {})
    at = f"{tool.name}.{key}"
    branches = [(branch, _types(branch)) for branch in _branches(properties_of(tool)[key], shared)]
    others = {kind for _, types in branches for kind in types if kind != "string"}
    said, lexemes = [], []
    for place, (branch, types) in enumerate(branches):
        if "const" in branch and not isinstance(branch["const"], list | dict):
            said.append(quoted(_bare(branch["const"], others, end, at) + end))
            continue
        if "string" in types:
            said.append(f"{rule.upper()}_{place}")
            lexemes.append(f"{said[-1]}: {_lexeme(branch, others, end, at)}")
            branch = {name: value for name, value in branch.items() if name not in _TEXT}
        if rest := [kind for kind in types if kind not in ("string", "null")]:
            said.append(_json(branch if "const" in branch else branch | {"type": rest}, shared, end))
        if "null" in types:
            said.append(quoted(f"null{end}"))
    return [f"{rule}: {' | '.join(said)}", *lexemes]


def _bare(value: Any, others: set[str], end: str, at: str) -> str:
    """A value that is listed, as it stands there."""
    if not isinstance(value, str):
        return text_of(value)
    if end.lstrip() in value or _as_json(value, others | {"string"}) != text_of(value):
        raise Unsupported(f"'{at}': this model cannot write the text {value[:40]!r}.", "Leave it out.")
    return value


def _json(schema: Schema, shared: Mapping[str, Any], end: str) -> str:
    return f"{in_lark(schema | ({'$defs': shared} if shared else {}), TAUGHT)} {quoted(end)}"


def _lexeme(schema: Schema, others: set[str], end: str, at: str) -> str:
    """Texts of which none would be read as one of the `others`."""
    if rest := set(schema) - _TEXT - _NOT_OF_TEXTS - {"type", "allOf"}:
        raise Unsupported(f"'{at}': '{min(rest)}' cannot be enforced for texts, as this model writes them.")
    patterns = [schema["pattern"]] if "pattern" in schema else []
    for part in schema.get("allOf", ()):
        if not isinstance(part, dict) or set(part) != {"pattern"}:
            raise Unsupported(f"'{at}': 'allOf' cannot be enforced for texts, as this model writes them.")
        patterns.append(part["pattern"])
    mark, behind = _regex(end.lstrip()), _regex(end)
    rules = [f"/(?s:.{{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}){behind}/"]
    rules += [f"~/(?s:.*){mark}(?s:.+)/"]
    rules += [f"/{_everywhere(pattern, at)}{behind}/" for pattern in patterns]
    rules += [f"~/\\s*({looks})\\s*{behind}/" for kind, looks in _LOOKS.items() if kind in others]
    rules += [f"~/\\s*{starts}(?s:.*)/" for kind, starts in _STARTS.items() if kind in others]
    return " & ".join(rules)


def _regex(text: str) -> str:
    return re.escape(text).replace("/", "\\/").replace("\n", "n")


def _everywhere(pattern: str, at: str) -> str:
    """An expression that a text must hold somewhere, as one that the whole text matches."""
    start, end = pattern.startswith("^"), bool(re.search(r"(?<!\\)(\\\\)*\$$", pattern))
    inner = pattern[start : len(pattern) - end]
    bare = re.sub(r"\\.|\[(\\.|[^\]\\])*\]", "", inner)
    if "^" in bare or "$" in bare or re.search(r"\\[bB]", inner) or (bare.count("|") and (start or end)):
        raise Unsupported(f"'{at}': this pattern cannot be enforced for texts, as this model writes them.")
    inner = re.sub(r"(?<!\\)/", r"\\/", inner)
    return f"{'' if start else '(?s:.*)'}(?:{inner}){'' if end else '(?s:.*)'}"
