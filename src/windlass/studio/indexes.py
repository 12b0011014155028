"""Documents of living indexes: what an answer quotes, in the text as the index holds it now."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, urlencode

from starlette.responses import Response

from windlass.apply.rag.indexes.embedded.peeking import peek
from windlass.core.errors import NotFound
from windlass.core.values import Citation
from windlass.core.workspace import Workspace
from windlass.loop.lineage.shelves import held_by
from windlass.loop.living import chosen, place_of, settings_of
from windlass.studio.artifacts import reader
from windlass.studio.web import Visit


def document(visit: Visit) -> Response:
    """The page of a document, opened at a span of it."""
    name, identifier = chosen(visit.ws, visit.path("name")), visit.query("id")
    settings = settings_of(visit.ws, name)
    place = None if settings is None else place_of(visit.ws, name, settings)
    held = peek(place, [identifier])[1] if isinstance(place, Path) else {}
    if identifier not in held:
        raise NotFound(
            f"The index '{name}' holds no document '{identifier}'.", "It may have changed since it was quoted."
        )
    return reader(visit, held[identifier], "overview", [(f"{name}, living", "/")])


def address(ws: Workspace, version: str, citation: Citation) -> str | None:
    """The page of what a version of a living index quoted; None where no index holds it any more."""
    held = held_by(ws, version, [citation.document])
    if held is None:
        return None
    place = urlencode({"id": citation.document, "start": citation.start, "end": citation.end})
    return f"/indexes/{quote(held.name)}/document?{place}#quote"
