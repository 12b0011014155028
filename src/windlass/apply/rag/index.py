"""Making indexes: from a corpus, or from an index and an adapter. Searching is in `rag.indexes.search`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.chunking import ChunkSettings, Span
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.adapter import check_base, load_adapter
from windlass.apply.rag.embedding.vectors import CachedEmbedder, cache_path
from windlass.apply.rag.indexes.embedded.layout import FILE, IndexMeta, describe, sqlite_errors, write_meta
from windlass.apply.rag.indexes.embedded.quantised import Quantised
from windlass.apply.rag.indexes.embedded.vector_file import append, mapped
from windlass.apply.rag.indexes.embedded.writing import write_frozen
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Entry, Passage, document_digest, read_documents
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace

if TYPE_CHECKING:
    from windlass.apply.rag.chunking.contextual import ContextWriter  # with it come providers

__all__ = ["HybridIndex", "build_index", "reindex"]

_ROWS = 65_536


def build_index(
    ws: Workspace,
    corpus: Artifact,
    embedder: Embedder,
    *,
    exam: Artifact | None = None,
    name: str = "index",
    kinds: Collection[str] | None = None,
    settings: ChunkSettings | None = None,
    writer: ContextWriter | None = None,
    quantised: Quantised = "",
) -> Artifact:
    """Indexes the documents of `corpus`, or those whose `metadata.kind` is in `kinds`.

    What the dataset `exam` hides (see `Hidden`) is kept out of the index. Interrupted and run again the build goes on
    where it was: finished vectors are in the workspace's cache. `writer`: for settings that are `written`.
    `quantised`: see `embedded.quantised`. Raises `InputError` when there is nothing to index.
    """
    settings = settings or ChunkSettings()
    hidden = hidden_by(exam)
    exam_digest = None if exam is None else exam.digest
    config = {"corpus": corpus.digest, "exam": exam_digest, "kinds": kinds and sorted(kinds)}
    with (
        ws.runs.start("index", name, config={**config, "embedder": embedder.digest, **asdict(settings)}) as run,
        ws.artifacts.build("index", name, run=run.id) as draft,
        closing(CachedEmbedder(embedder, cache_path(ws.root))) as cached,
    ):
        started = time.monotonic()
        chunker = Chunker(cached, settings, writer)
        cut = _Cut(corpus, hidden, kinds, chunker)
        passages = [passage for _, some in cut.documents for passage in some]
        with Progress("index", len(passages), "passages") as progress:
            embedded = chunker.embed(cut.documents, progress)
        meta = IndexMeta(
            embedder.digest,
            embedder.name,
            embedder.dimension,
            context=settings.context,
            corpus=corpus.digest,
            exam=exam_digest,
            quantised=quantised,
        )
        meta = write_frozen(draft.path, meta, cut.entries(embedded.vectors))
        report = {**cut.report(), "passages_longer_than_the_embedder_reads": embedded.truncated}
        if writer is not None:
            report |= {"contexts_written": writer.asked - writer.kept, "passages_without_context": writer.silent}
        write_json(draft.path / "index.json", {**asdict(meta), "chunking": asdict(settings), "report": report})
        draft.card.update(report, vectors_computed=cached.computed, seconds=round(time.monotonic() - started, 3))
        draft.add_parent("corpus", corpus)
        if exam is not None:
            draft.add_parent("exam", exam)
        run.log(0, passages=len(passages), vectors_computed=cached.computed)
    return draft.done


def reindex(ws: Workspace, index: Artifact, adapter: Artifact, *, name: str | None = None) -> Artifact:
    """The same passages with adapted vectors; nothing is embedded again.

    An index that is adapted already is not adapted twice: its plain parent is transformed instead.
    """
    name = name or index.record.name
    loaded = load_adapter(adapter)
    meta = describe(index.path)
    if meta.adapter is not None:
        return reindex(ws, ws.artifacts.get(index.parent("base")), adapter, name=name)
    check_base(loaded, meta.embedder, meta.embedder_name)
    meta = dataclasses.replace(meta, adapter=adapter.digest)
    with ws.artifacts.build("index", name) as draft:
        shutil.copyfile(index.path / FILE, draft.path / FILE)
        vectors = mapped(index.path, 1, meta.passages, meta.dimension)
        blocks = (loaded.apply(vectors[at : at + _ROWS]) for at in range(0, len(vectors), _ROWS))
        append(draft.path, 1, 0, blocks, meta.quantised, synced=False)
        with sqlite_errors(draft.path / FILE), closing(sqlite3.connect(draft.path / FILE)) as db:
            db.execute("PRAGMA journal_mode = OFF")
            write_meta(db, meta)
            db.commit()
        described = json.loads((index.path / "index.json").read_text(encoding="utf-8"))
        write_json(draft.path / "index.json", {**described, **asdict(meta)})
        draft.card.update(index.card, vectors_computed=0)
        draft.add_parent("base", index)
        draft.add_parent("adapter", adapter)
        for role, digest in index.record.parents:
            draft.add_parent(role, digest)
    return draft.done


@dataclass(frozen=True, slots=True)
class Hidden:
    """What an index must not hold, so that an exam's questions are not answered by finding their own text."""

    spans: Mapping[str, Sequence[Span]]
    """Document id -> spans that questions were made from."""
    documents: frozenset[str]
    """Whole documents, whose questions are to have no answer."""


def hidden_by(exam: Artifact | None) -> Hidden:
    """Reads `items.jsonl` (`source` or `document`, `start`, `end`) and `exam.json` (`withheld`) of a dataset."""
    if exam is None:
        return Hidden({}, frozenset())
    spans: dict[str, set[Span]] = {}
    path = exam.path / "items.jsonl"
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                item = json.loads(line)
                document = item.get("source") or item["document"]
                if document is not None and item.get("start") is not None:
                    spans.setdefault(str(document), set()).add((int(item["start"]), int(item["end"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{path}, line {number}: not an item of a dataset ({error!r}).") from error
    described = exam.path / "exam.json"
    withheld = json.loads(described.read_text(encoding="utf-8"))["withheld"] if described.is_file() else ()
    return Hidden({document: sorted(found) for document, found in spans.items()}, frozenset(withheld))


class _Cut:
    """The documents of a corpus with their passages, and the count of everything that was left out."""

    def __init__(self, corpus: Artifact, hidden: Hidden, kinds: Collection[str] | None, chunker: Chunker) -> None:
        self.hidden, self.chunker = hidden, chunker
        self.documents: list[tuple[Document, Sequence[Passage]]] = []
        self.read = self.other_kinds = self.withheld = self.without_passages = self.wordless = self.masked = 0
        unseen = set(hidden.spans) | hidden.documents
        for document in self._documents(corpus.path / "documents.jsonl"):
            unseen.discard(document.id)
            if kinds is not None and document.metadata.get("kind") not in kinds:
                self.other_kinds += 1
                continue
            if document.id in hidden.documents:
                self.withheld += 1
                continue
            masked = hidden.spans.get(document.id, ())
            found = chunker.passages(document, masked)
            passages = [p for p in found if any(map(str.isalnum, p.text))]
            self.masked += len(masked)
            self.wordless += len(found) - len(passages)
            self.without_passages += not passages
            if passages:
                self.documents.append((document, passages))
        if unseen:
            raise InputError(
                f"The exam has questions about {len(unseen)} documents that are not in {corpus.ref}, "
                f"such as '{min(unseen)}'.",
                "Make the exam from this corpus.",
            )
        if not self.documents:
            raise InputError(
                f"Nothing to index: {self.read} documents in {corpus.ref}, none with text"
                + (f" of kind {', '.join(sorted(kinds))}." if kinds is not None else "."),
                "Check the kinds asked for, and the corpus report for what was dropped.",
            )

    def _documents(self, path: Path) -> Iterator[Document]:
        with Progress("cut", None, "documents") as progress:
            for document in read_documents(path):
                self.read += 1
                yield document
                progress.update(self.read)

    def entries(self, vectors: NDArray[np.float32]) -> Iterator[Entry]:
        """`vectors`: of all passages, in their order. What is masked is not in the index, not even outside of passages;
        nor is a title that gives it away."""
        at = 0
        for document, passages in self.documents:
            text = document.text
            for start, end in self.hidden.spans.get(document.id, ()):
                text = text[:start] + " " * (end - start) + text[end:]
            shown = dataclasses.replace(document, title=passages[0].title, text=text)
            digest = document_digest(shown, asdict(self.chunker.settings))
            yield Entry(shown, digest, passages, vectors[at : at + len(passages)])
            at += len(passages)

    def report(self) -> dict[str, int]:
        return {
            "documents_read": self.read,
            "documents_of_other_kinds": self.other_kinds,
            "documents_withheld": self.withheld,
            "documents_without_passages": self.without_passages,
            "documents": len(self.documents),
            "passages": sum(len(passages) for _, passages in self.documents),
            "characters": sum(len(p.text) for _, passages in self.documents for p in passages),
            "passages_without_a_word": self.wordless,
            "masked_spans": self.masked,
        }
