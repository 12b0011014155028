"""Ingesting: brings a living index to where its sources are, and does no more work than that takes.

    walk the roots -> read and cut -> embed -> put          then delete what is no longer there
                      (a thread)      (a thread)

What has not changed is known by the stamp of its file and not opened; what was opened and gives the same document is
not put; what is put again has its vectors from the cache where its passages are the same. The index takes documents
whole and in the order of the roots, a batch in a transaction. So an ingest that ended anywhere, by whatever, is
finished by the next one, and both together leave what one would have left.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.embedding.vectors import CachedEmbedder
from windlass.apply.rag.ingest.changes import Changes, Cut, Interrupt, Never, Seen
from windlass.apply.rag.ingest.report import IngestReport
from windlass.apply.rag.ingest.roots import Root
from windlass.apply.rag.ingest.stamps import Known, Stamps
from windlass.core.ahead import ahead
from windlass.core.documents import Entry
from windlass.core.errors import InputError
from windlass.core.progress import Progress
from windlass.core.protocols import Embedder, LiveIndex

T = TypeVar("T")

_BATCH = 256
"""Passages put at once, or a few more, as documents stay whole: some seconds of embedding, which is what a kill costs
(less, as vectors are kept in smaller pieces) and what Ctrl-C waits for."""

_MARKS = 1000
"""Files without anything new in a batch: so often is progress shown."""


def ingest(
    index: LiveIndex | None,
    roots: Sequence[Root],
    chunker: Chunker,
    *,
    stamps: Stamps | None = None,
    being_written: Collection[str] = (),
    allow_empty: bool = False,
    dry: bool = False,
    interrupt: Interrupt | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Makes `index` hold the documents of `roots` as they are now, and returns what was done.

    `chunker`: with the index's own embedder, perhaps behind a cache. `stamps`: what is known of the files; without it
    each is read. `being_written`: files, by the ids of their documents, to leave as they are for now. A root in which
    there is nothing to read any more keeps its documents, unless `allow_empty`: it may be a disk that is not mounted.
    `dry`: counts what would be done, and does nothing; then there need not be an index. When `interrupt` asks for it,
    the ingest ends after the batch that is under way, and removes nothing.

    Raises `InputError` when none of the roots has anything to read, and for an embedder that is not the index's.
    """
    started = time.monotonic()
    if index is not None and index.embedder.digest != chunker.embedder.digest:
        raise InputError(
            f"The index holds vectors of {index.embedder.name} ({index.embedder.digest[:12]}), not of "
            f"{chunker.embedder.name} ({chunker.embedder.digest[:12]}).",
            "Ingest with the embedder of the index, or into an index of another name.",
        )
    held = {} if index is None else index.held()
    changes = Changes(held, chunker, stamps, being_written, interrupt or Never())
    report, computed, files = changes.report, _computed(chunker.embedder), 0
    with contextlib.closing(ahead(_batches(_timed(changes.read(roots), report.stages, "read")), 2)) as batches:
        made = batches if dry else ahead(_embedded(batches, chunker, report), 1)
        with contextlib.closing(made):
            for batch in made:
                before = time.perf_counter()
                if batch.entries and index is not None:
                    index.put(batch.entries)
                if stamps is not None and not dry:
                    stamps.put(batch.read)
                report.stages["put"] += time.perf_counter() - before
                files += len(batch.files)
                report.passages += sum(len(cut.passages) for cut in batch.cut)
                if progress is not None:
                    progress.update(files, f"{report.passages:,} passages")
    changes.finish(roots, index, allow_empty, dry)
    if not dry:
        report.embedded = report.passages if computed is None else (_computed(chunker.embedder) or 0) - computed
    report.seconds = time.monotonic() - started
    return report


def _computed(embedder: Embedder) -> int | None:
    return embedder.computed if isinstance(embedder, CachedEmbedder) else None


def _timed(items: Iterable[T], seconds: dict[str, float], stage: str) -> Iterator[T]:
    """The items, and the time that making them takes is added to that of the stage."""
    iterator = iter(items)
    while True:
        started = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        finally:
            seconds[stage] += time.perf_counter() - started
        yield item


# batches ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Batch:
    cut: list[Cut] = field(default_factory=list)
    files: list[Seen] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @property
    def read(self) -> Iterator[tuple[str, str, Known]]:
        for file in self.files:
            if file.stamp and file.known is not None:
                yield file.name, file.stamp, file.known


def _batches(items: Iterable[Cut | Seen]) -> Iterator[_Batch]:
    batch, passages = _Batch(), 0
    for item in items:
        if isinstance(item, Cut):
            batch.cut.append(item)
            passages += max(1, len(item.passages))
        else:
            batch.files.append(item)
        if passages >= _BATCH or len(batch.files) >= _MARKS:
            yield batch
            batch, passages = _Batch(), 0
    if batch.cut or batch.files:
        yield batch


def _embedded(batches: Iterable[_Batch], chunker: Chunker, report: IngestReport) -> Iterator[_Batch]:
    for batch in batches:
        started = time.perf_counter()
        made = chunker.embed([(cut.document, cut.passages) for cut in batch.cut])  # texts of like length go together
        report.stages["embed"] += time.perf_counter() - started
        report.tokens += made.tokens
        report.longer_than_read += made.truncated
        at = 0
        for cut in batch.cut:
            rows = made.vectors[at : at + len(cut.passages)]
            batch.entries.append(Entry(cut.document, cut.digest, cut.passages, rows, chunker.embedder.digest))
            at += len(rows)
        yield batch
