"""Files of texts beside their references, to be measured: lines of

    {"found": "the cat sat", "right": ["the cat sat down", "a cat sat"], "cluster": "cats"}

`right` may be one text. Lines of one cluster, as of one document, are not independent; where a line has one, all do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError

_FORM = '{"found": "...", "right": ["...", ...], "cluster": "..."}'


@dataclass(frozen=True, slots=True)
class Pairs:
    found: Sequence[str]
    right: Sequence[Sequence[str]]
    clusters: Sequence[str] | None

    def same_items(self, other: Pairs) -> None:
        """Raises `InputError` unless both are of the same items in the same order: of the same references."""
        if len(self.right) != len(other.right):
            raise InputError(f"One file has {len(self.right)} lines, the other {len(other.right)}.")
        for number, (one, two) in enumerate(zip(self.right, other.right), start=1):
            if list(one) != list(two):
                raise InputError(f"Item {number} is not the same in both files.", "Compare outputs for the same items.")


def read_pairs(path: Path) -> Pairs:
    """All lines but empty ones. Raises `InputError` naming the line."""
    rows = [(*_texts(row, where), row.get("cluster")) for where, row in read_objects(path)]
    return Pairs(
        [found for found, *_ in rows], [right for _, right, _ in rows], clusters_of(path, [c for *_, c in rows])
    )


def read_objects(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Lines of a file with `found`, `right` and perhaps `cluster`, each with its place in words. Raises `InputError`
    naming the line that is none, and for a file without lines."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{path} cannot be read: {said}.", f"Give a file with lines of {_FORM}.") from error
    rows = [
        (where, _object(line, where))
        for number, line in enumerate(lines, start=1)
        if line.strip()
        for where in [f"{path}, line {number}"]
    ]
    if not rows:
        raise InputError(f"{path} has no lines.", f"Give lines of {_FORM}.")
    return rows


def clusters_of(path: Path, named: Sequence[object]) -> list[str] | None:
    """As texts; None where no line has one. Raises `InputError` where some have."""
    clusters = [str(one) for one in named if one is not None]
    if clusters and len(clusters) < len(named):
        raise InputError(
            f"{path}: {len(clusters)} of {len(named)} lines have a cluster.", "Give all of them one, or none."
        )
    return clusters or None


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}.", f"Give lines of {_FORM}.") from error
    if not isinstance(said, dict):
        raise InputError(f"{where} is not {_FORM}.")
    if other := sorted(said.keys() - {"found", "right", "cluster"}):
        lacks = " and ".join(f"`{name}`" for name in ("found", "right") if name not in said)
        raise InputError(
            f"{where} has `{other[0]}`" + (f" and no {lacks}." if lacks else ", which is not known."),
            f"Give lines of {_FORM}.",
        )
    return said


def _texts(said: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    right = [said["right"]] if isinstance(said.get("right"), str) else said.get("right")
    if not isinstance(said.get("found"), str):
        raise InputError(f"{where} has no text `found`.", f"Give lines of {_FORM}.")
    if not isinstance(right, list) or not all(isinstance(text, str) for text in right):
        raise InputError(f"{where} has no texts `right`.", f"Give lines of {_FORM}.")
    if not right:
        raise InputError(f"{where} has no reference.", "Give what is right, or leave the line out.")
    return said["found"], right
