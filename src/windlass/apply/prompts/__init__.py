"""Prompts: windlass's own, one visible file each in this folder, and those of tasks, as files and artifacts.

The digests of both stand on the traces of the calls that used them.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from windlass.apply.prompts.difference import diff
from windlass.apply.prompts.example import Example
from windlass.apply.prompts.file import read_prompt, write_prompt
from windlass.apply.prompts.value import Prompt

__all__ = ["Example", "Prompt", "diff", "prompt", "read_prompt", "write_prompt"]


@cache
def prompt(name: str) -> tuple[str, str]:
    """The text of `NAME.md` in this folder, and its SHA-256."""
    text = resources.files(__name__).joinpath(f"{name}.md").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()
