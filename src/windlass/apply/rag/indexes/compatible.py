"""Whether an index that is there can be opened here: with this windlass, and with this embedder."""

from __future__ import annotations

from typing import Protocol

from windlass.core.errors import InputError
from windlass.core.protocols import Embedder


class Made(Protocol):
    """What an index tells of its vectors."""

    @property
    def embedder(self) -> str:
        """Digest."""
        ...

    @property
    def embedder_name(self) -> str: ...

    @property
    def dimension(self) -> int: ...


def check_format(index: str, found: int, known: int) -> None:
    """`index`: what messages call it. Raises `InputError` for a format that this windlass does not read."""
    if found != known:
        raise InputError(
            f"{index} has format {found}, this windlass reads format {known}.",
            "Make it again under another name, or use the windlass that made it.",
        )


def check_vectors(
    index: str, made: Made, embedder: Embedder, otherwise: str = "make one of another name with this one"
) -> None:
    """Raises `InputError` for vectors of another embedder. `otherwise`: what to do but open it with its own."""
    if made.embedder != embedder.digest or made.dimension != embedder.dimension:
        raise InputError(
            f"{index} holds vectors of {made.embedder_name} ({made.embedder[:12]}), "
            f"not of {embedder.name} ({embedder.digest[:12]}).",
            f"Open it with the embedder it was made with, or {otherwise}.",
        )
