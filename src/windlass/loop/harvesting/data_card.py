"""The README of a dataset that was made of traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def data_card(title: str, card: Mapping[str, Any], counted: Mapping[str, Mapping[str, int]], use: str) -> str:
    """`counted`: under a line that says what of, how many there are of each kind. `use`: what the rows are meant for,
    and what they hold."""
    parts = [f"# {title}", str(card["description"])]
    for what, counts in counted.items():
        listed = "\n".join(f"- {count:,} {kind}" for kind, count in counts.items())
        parts += [what, listed or "- nothing"]
    return "\n\n".join([*parts, f"Intended use: {use}"]) + "\n"
