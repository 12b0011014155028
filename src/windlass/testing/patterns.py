"""A random text that a regular expression matches."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from windlass.core.errors import Unsupported

# How Python itself reads patterns: where a version has no such modules, the tests say so.
parser: Any = importlib.import_module("re._parser")
op: Any = importlib.import_module("re._constants")

_ANY = [chr(code) for code in range(32, 127)] + list("éßλ中🙂")
_CLASSES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_MORE = 4
"""How often beyond its least number something is repeated that may be repeated without end."""


def matching(pattern: str, chance: random.Random) -> str:
    """Raises `Unsupported` for a pattern whose texts cannot be found: it looks around, or excludes nearly all."""
    for _ in range(100):
        text = "".join(_drawn(_parsed(pattern), chance, {}))
        if re.search(pattern, text):  # what is drawn does not look around; what matches is kept
            return text
    raise Unsupported(f"The random model finds no text for the pattern '{pattern}'.")


@cache
def _parsed(pattern: str) -> Any:
    return parser.parse(pattern)


def _drawn(pieces: Iterable[tuple[Any, Any]], chance: random.Random, groups: dict[int, str]) -> list[str]:
    return [_piece(kind, what, chance, groups) for kind, what in pieces]


def _piece(kind: Any, what: Any, chance: random.Random, groups: dict[int, str]) -> str:
    if kind is op.LITERAL:
        return chr(what)
    if kind is op.NOT_LITERAL:
        return chance.choice([c for c in _ANY if c != chr(what)])
    if kind is op.ANY:
        return chance.choice(_ANY)
    if kind is op.IN:
        return chance.choice(_members(tuple(what)))
    if kind is op.BRANCH:
        return "".join(_drawn(chance.choice(what[1]), chance, groups))
    if kind is op.SUBPATTERN:
        number, _, _, inner = what
        groups[number or 0] = text = "".join(_drawn(inner, chance, groups))
        return text
    if kind is op.GROUPREF:
        return groups.get(what, "")
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT):
        least, most, inner = what
        times = chance.randint(least, min(int(most), least + _MORE))
        return "".join("".join(_drawn(inner, chance, groups)) for _ in range(times))
    if kind is op.ATOMIC_GROUP:
        return "".join(_drawn(what, chance, groups))
    if kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
        return ""  # whether it holds is seen afterwards
    raise Unsupported(f"The random model does not know {kind} in patterns.")


@cache
def _members(what: tuple[Any, ...]) -> list[str]:
    """The characters of a set."""
    found: set[str] = set()
    inverted = bool(what) and what[0][0] is op.NEGATE
    for kind, value in what[inverted:]:
        if kind is op.LITERAL:
            found.add(chr(value))
        elif kind is op.RANGE:
            low, high = value
            found.update(map(chr, range(low, min(high, low + 500) + 1)))
        else:
            found.update(c for c in [*_ANY, "\t", "\n"] if re.match(_CLASSES[value], c))
    members = sorted(set(_ANY) - found) if inverted else sorted(found)
    if not members:
        raise Unsupported("The random model finds no character for a set of a pattern.")
    return members
