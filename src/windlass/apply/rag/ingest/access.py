"""Who may find a document: labels by path patterns, written down in a small TOML file.

    "hr/**" = ["hr"]
    "finance/*.xlsx" = ["finance", "board"]
    "**/public/*" = []

The first pattern that fits a document's source decides; `[]` makes it public, and so does no pattern at all, unless the
file ends with one that fits all (`"**" = ["staff"]`). A document with labels is found by those who hold one of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Patterns and their labels, in the order in which they are tried."""

    rules: Sequence[tuple[str, Sequence[str]]] = ()

    @classmethod
    def read(cls, path: Path) -> AccessRules:
        """Raises `InputError` naming the file, and the pattern whose labels are none."""
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not valid TOML: {error}.", 'Write lines such as "hr/**" = ["hr"].') from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        return cls.of(found, str(path))

    @classmethod
    def of(cls, found: Mapping[str, Any], where: str) -> AccessRules:
        if not found:
            raise InputError(f"{where} has no pattern, so that it would make all public.", "Leave it out for that.")
        return cls(tuple((pattern, _labels(value, f"{where}: '{pattern}'")) for pattern, value in found.items()))

    def decide(self, source: str) -> tuple[str, Sequence[str]] | None:
        """The rule for a document with this source: its pattern and its labels. None when no pattern fits."""
        return next((rule for rule in self.rules if fits(rule[0], source)), None)


def _labels(value: Any, where: str) -> tuple[str, ...]:
    labels = [value] if isinstance(value, str) else value
    if not isinstance(labels, list) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise InputError(f"{where} is {value!r}, but must be a list of labels.", 'Write ["hr"], or [] for public.')
    return tuple(sorted(set(labels)))


def fits(pattern: str, source: str) -> bool:
    """Whether a path pattern fits a source: `*` and `?` stand for what has no slash, `**` for any number of folders.

    A pattern may begin at any folder of the path, unless it begins with a slash; one that names a folder fits all that
    is below it.
    """
    return _expression(pattern).fullmatch(source) is not None


@lru_cache(maxsize=1000)
def _expression(pattern: str) -> re.Pattern[str]:
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/"))
    path = "".join(known.get(part, re.escape(part)) for part in parts)
    return re.compile(("/" if pattern.startswith("/") else "(?:.*/)?") + path + "(?:/.*)?", re.DOTALL)
