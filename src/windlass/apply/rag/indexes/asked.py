"""What every search checks before it begins."""

from __future__ import annotations

from windlass.core.errors import InputError


def check_wanted(k: int) -> None:
    """Raises `InputError` for a search that is to find nothing."""
    if k < 1:
        raise InputError(f"A search for {k} passages finds nothing.", "Ask for at least one.")


def asked(query: str, k: int) -> str:
    """The question as servers take it: valid UTF-8. Raises `InputError` for an empty one, and as `check_wanted`."""
    check_wanted(k)
    if not query.strip():
        raise InputError("The question is empty.", "Write what you want to find.")
    return query.encode("utf-8", "replace").decode()
