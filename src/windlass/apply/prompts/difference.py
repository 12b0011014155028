"""What changed from one prompt to another, as a terminal shows it."""

from __future__ import annotations

import difflib

from windlass.apply.prompts.file import EXAMPLES, PROMPT, parts_of
from windlass.apply.prompts.value import Prompt


def diff(before: Prompt, after: Prompt, names: tuple[str, str] = ("before", "after"), *, context: int = 3) -> str:
    """A unified diff, file by file: `patch` understands it. Empty when the two are the same."""
    old, new = parts_of(before), parts_of(after)
    lines: list[str] = []
    for file in (PROMPT, EXAMPLES):
        a, b = (parts.get(file, b"").decode().split("\n")[:-1] for parts in (old, new))
        left, right = (f"{name}/{file}" if file in parts else "/dev/null" for name, parts in zip(names, (old, new)))
        lines += difflib.unified_diff(a, b, left, right, n=context, lineterm="")
    return "\n".join(lines)
