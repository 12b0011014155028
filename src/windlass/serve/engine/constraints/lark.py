"""Pieces of Lark grammars, as llguidance reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from windlass.serve.engine.constraints.keywords import Schema

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

WRITING: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ",",
    "key_separator": ":",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""How JSON is written: compact, and each text in one way. Were `\\u0061` allowed for `a`, a key could be written a
second time under another spelling and slip by the schema of its first."""

TAUGHT: JsonCompileOptions = {**WRITING, "item_separator": ", ", "key_separator": ": "}
"""How chat templates write the arguments of calls, and so how models learned to: with spaces, as Python's `json.dumps`
and Jinja's `tojson` do. Held to the compact form, a model has to go on from tokens that it has never seen in a call."""


def in_lark(prepared: Schema, writing: JsonCompileOptions = WRITING) -> str:
    """A schema, as `json_schema.prepare` returns it, as a term of a Lark grammar."""
    return f"%json {json.dumps({'x-guidance': writing, **prepared}, ensure_ascii=False)}"


def quoted(text: str) -> str:
    """A text as a literal of a Lark grammar."""
    return json.dumps(text, ensure_ascii=False)
