"""An example: what was asked, and the answer that is right for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """Inputs by name, and the answer that is right for them."""

    inputs: Mapping[str, Any]
    answer: Any
    reasoning: str = ""
    """How the answer is found: shown by tasks that think, by no others."""
