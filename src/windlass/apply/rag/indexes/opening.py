"""One door to every kind of live index: a folder, a PostgreSQL database, a Qdrant server."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from windlass.apply.rag.indexes.address import is_address, shown
from windlass.apply.rag.indexes.embedded.quantised import Quantised
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.searchable import Searchable
from windlass.core.config import secret
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder, LiveIndex


class AskedIndex(LiveIndex, Searchable, Protocol):
    """One that is written to and that an assistant answers from: all of them are."""


def open_index(
    where: str | Path,
    embedder: Embedder,
    *,
    search: SearchSettings | None = None,
    context: int = 120,
    quantised: Quantised = "",
) -> AskedIndex:
    """Opens an index, or makes it where there is none.

    `where` is a folder, `postgres://user@host/database#handbook`, or `qdrant+http://host:6333#handbook`. What stands
    after `#` is the name of the index in there (`docs`). Passwords come from PGPASSWORD or libpq's password file, and
    from QDRANT_API_KEY. `context`: characters of `title > heading` that are searched above a passage, for a new index.
    `quantised`: of a new one in a folder, see `embedded.quantised`. Raises `InputError` for an address that is none, or
    an index of another embedder.
    """
    if not is_address(where):
        from windlass.apply.rag.indexes.live import open_live

        return open_live(Path(where), embedder, search, context=context, quantised=quantised)
    address, mark, name = str(where).rpartition("#")
    if not mark or "@" in name:  # a password may hold a "#"
        address, name = str(where), "docs"
    scheme, _, place = address.partition("://")
    if scheme in ("postgres", "postgresql"):
        from windlass.apply.rag.indexes.postgres import PostgresIndex

        return PostgresIndex(address, embedder, name=name, search=search, context=context)
    if scheme in ("qdrant+http", "qdrant+https"):
        from windlass.apply.rag.indexes.qdrant import QdrantIndex

        url = f"{scheme.removeprefix('qdrant+')}://{place}"
        key = secret("QDRANT_API_KEY")
        return QdrantIndex(url, embedder, name=name, search=search, context=context, api_key=key)
    raise InputError(
        f"No index can be at {shown(where)}.",
        "Give a folder, or an address that begins with postgres://, qdrant+http:// or qdrant+https://.",
    )
