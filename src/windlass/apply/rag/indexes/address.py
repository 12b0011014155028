"""Where an index is: a folder, or the address of a server."""

from __future__ import annotations

from pathlib import Path


def is_address(where: str | Path) -> bool:
    """Whether it names a server, and not a folder."""
    return isinstance(where, str) and "://" in where


def shown(where: str | Path) -> str:
    """For messages and files: without passwords, whatever characters they may have. It can be opened again by who has
    them in the environment."""
    if not is_address(where):
        return str(where)
    scheme, _, rest = str(where).partition("://")
    user, at, address = rest.rpartition("@")
    place, mark, name = address.partition("#")
    place, _, options = place.partition("?")
    kept = "&".join(option for option in options.split("&") if "pass" not in option.partition("=")[0].lower())
    return f"{scheme}://{user.partition(':')[0]}{at}{place}{'?' if kept else ''}{kept}{mark}{name}"
