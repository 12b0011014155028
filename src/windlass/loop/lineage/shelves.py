"""Where the documents that an answer cites can be looked up now: a corpus, a frozen index, or a living one.

A living index goes on: what it answers from is a version, and later it may hold other texts. That is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from windlass.apply.rag.indexes.embedded.peeking import peek
from windlass.core.documents import Document
from windlass.core.errors import WindlassError
from windlass.core.workspace import Workspace
from windlass.loop.lineage.graph import GraphBuilder
from windlass.loop.living import living, place_of, settings_of


@dataclass(frozen=True, slots=True)
class Shelf:
    node: str = ""
    """Of the corpus or the index that holds the documents; empty: nothing does."""
    documents: Mapping[str, Document] = field(default_factory=dict)
    """Those that are cited, and more."""
    living: bool = False
    corpus: str | None = None

    def compared(self, known: Document | None, cited: Mapping[str, Any]) -> bool | None:
        """Whether the document says where it is quoted what is quoted; None where it is not there to compare with."""
        if known is None:
            return None
        return known.text[cited["start"] : cited["end"]] == cited.get("quote")

    def add(self, builder: GraphBuilder, document: str) -> str:
        """The node of a document that is cited."""
        if self.corpus is not None:
            return builder.document(self.corpus, document)
        known = self.documents.get(document)
        if known is None:
            return builder.add(f"document:{document}", "missing", f"{document} is not in the index any more")
        node = builder.add(f"document:{document}", "document", known.title, id=document, source=known.source)
        builder.edge(node, self.node, "held by")
        return node


def shelf_of(builder: GraphBuilder, index: str | None, cited: Sequence[str]) -> Shelf:
    """Where the documents are that an answer from the index of this digest cites."""
    if index is None:
        return Shelf()
    record = builder.ws.store.artifact(index)
    if record is None:
        return _living(builder, index, cited)
    corpus = next((digest for role, digest in record.parents if role == "corpus"), None)
    if corpus is not None:
        return Shelf(corpus, builder.documents(corpus), corpus=corpus)
    seen = _peeked(builder.ws.artifacts.get(index).path, cited)
    return Shelf(builder.artifact(index), seen[1]) if seen else Shelf()


def _living(builder: GraphBuilder, index: str, cited: Sequence[str]) -> Shelf:
    held = held_by(builder.ws, index, cited)
    if held is None:
        return Shelf()
    label = f"{held.name}, living" if held.version == index else f"{held.name}, living, which has changed since"
    return Shelf(builder.add(f"living:{held.name}", "index", label), held.documents, living=True)


class Held(NamedTuple):
    """What a living index holds of the documents that are cited."""

    name: str
    version: str
    documents: Mapping[str, Document]


def held_by(ws: Workspace, version: str, cited: Sequence[str]) -> Held | None:
    """The living index whose version that is, or else the one that holds the most of what is cited."""
    best = max(_held(ws, cited), key=lambda one: (one.version == version, len(one.documents)), default=None)
    return best if best is not None and (best.version == version or best.documents) else None


def _held(ws: Workspace, cited: Sequence[str]) -> list[Held]:
    """By each living index of this workspace. Those in databases are not asked: that takes their servers."""
    found = []
    for name in living(ws):
        settings = settings_of(ws, name)
        place = None if settings is None else place_of(ws, name, settings)
        seen = _peeked(place, cited) if isinstance(place, Path) else None
        if seen is not None:
            found.append(Held(name, *seen))
    return found


def _peeked(folder: Path, cited: Sequence[str]) -> tuple[str, dict[str, Document]] | None:
    """None for what is damaged or gone: it holds nothing to compare with."""
    try:
        return peek(folder, cited)
    except WindlassError:
        return None
