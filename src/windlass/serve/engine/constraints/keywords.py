"""The words of JSON schemas: which are enforced, which say nothing about values, and which are refused, with what to
say instead."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_TOLD = "title description default examples example deprecated readOnly writeOnly"
_FILED = "$schema $comment $defs definitions contentMediaType contentEncoding contentSchema"
ANNOTATIONS = frozenset(f"{_TOLD} {_FILED}".split())
"""What says nothing about which values are valid."""
COUNTS = frozenset(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"])
NUMBERS = frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
REFUSED = {
    "not": "Say what is allowed instead.",
    "if": "Use anyOf with one branch for each case.",
    "then": "Use anyOf with one branch for each case.",
    "else": "Use anyOf with one branch for each case.",
    "dependentRequired": "Use anyOf with one branch for each case.",
    "dependentSchemas": "Use anyOf with one branch for each case.",
    "dependencies": "Use anyOf with one branch for each case.",
    "uniqueItems": "Leave it out, and check the answer for items that appear twice.",
    "contains": "Leave it out, or describe the items by position with prefixItems.",
    "minContains": "Leave it out.",
    "maxContains": "Leave it out.",
    "propertyNames": "Use patternProperties with additionalProperties: false.",
    "additionalItems": "Leave it out: it means something only beside items as a list.",
    "unevaluatedProperties": "Use additionalProperties: false in a schema that lists all properties.",
    "unevaluatedItems": "Use items: false.",
    "nullable": 'Use "type": ["string", "null"].',
    "$id": "Leave it out, and refer by #/$defs/NAME.",
    "$anchor": "Refer by #/$defs/NAME.",
    "$dynamicRef": "Refer by #/$defs/NAME.",
    "$dynamicAnchor": "Refer by #/$defs/NAME.",
    "$recursiveRef": "Refer by #/$defs/NAME.",
    "$recursiveAnchor": "Refer by #/$defs/NAME.",
    "$vocabulary": "Leave it out.",
}
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
