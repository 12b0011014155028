"""The prompts of windlass, one visible file each. Their digests stand on the traces of the calls that used them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources


@cache
def prompt(name: str) -> tuple[str, str]:
    """The text of `NAME.md` in this folder, and its SHA-256."""
    text = resources.files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()
