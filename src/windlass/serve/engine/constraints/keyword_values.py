"""The values that stand behind keywords: checked, and refused where the grammar engine could not spell or count them
exactly. `at` is what errors call the place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.constraints.keywords import Schema

EXACT = 1 << 53
"""From there on not every whole number is a number of the engine's own."""


def literal(value: Any, at: str) -> None:
    """Refuses values that the engine cannot spell exactly."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            spelt(name, at)
            literal(inner, f"{at}.{name}")
    elif isinstance(value, list):
        for inner in value:
            literal(inner, at)
    elif isinstance(value, str):
        spelt(value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number(value, at)


def spelt(text: str, at: str) -> None:
    """Control characters have no spelling in the strings that are written here, but for those with a short escape."""
    if any(ord(letter) < 0x20 and letter not in "\n\r\t\b\f" for letter in text):
        raise Unsupported(f"'{at}' holds a control character.", "Leave it out.")


def number(value: Any, at: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"'{at}' must be a number.")
    if abs(value) > EXACT:
        raise Unsupported(f"'{at}' is beyond 2**53, where numbers would be rounded.", "Use a string with a pattern.")
    return value


def bound(name: str, value: Any, at: str) -> Schema:
    """A keyword about numbers.

    The engine lets a whole number through that is excluded, where the other bound is less than 1 away from it (0 by
    `exclusiveMinimum: 0, maximum: 0.5`). A bound right behind it, which is included, it keeps.
    """
    if abs(number(value, at)) == EXACT:
        raise Unsupported(f"'{at}' is 2**53, where numbers would be rounded.", "Use a smaller number.")
    if not name.startswith("exclusive") or value != int(value):
        return {name: value}
    step = max(1e-9, math.ulp(value))
    # Beside, not instead: so that the bound of whole numbers stays what it is.
    return {
        name: value,
        "allOf": [{"minimum": value + step} if name == "exclusiveMinimum" else {"maximum": value - step}],
    }


def count(value: Any, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"'{at}' must be a whole number from 0 on.")
    return value


def text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"'{at}' must be a text.")
    return value


def object_(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"'{at}' must be an object.")
    return value
