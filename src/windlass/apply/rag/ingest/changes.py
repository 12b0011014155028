"""What is new: documents that an index does not hold as they are now, and documents that it holds and that are gone."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.ingest.report import NAMED, FileLine, IngestReport
from windlass.apply.rag.ingest.roots import Root, holds
from windlass.apply.rag.ingest.stamps import Known, Stamps
from windlass.core.documents import Document, Passage, document_digest
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import LiveIndex
from windlass.core.readers.report import ReadReport, SourceFile
from windlass.core.version import __version__

FORMAT = 1
"""Of what documents are made into. Raised when the same file would give something else: then all are read again."""


class Interrupt(Protocol):
    requested: bool


@dataclass(slots=True)
class Never:
    requested: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """A document that the index does not hold as it is."""

    document: Document
    digest: str
    passages: Sequence[Passage]


@dataclass(frozen=True, slots=True)
class Seen:
    """The end of a file: all of its documents have gone before."""

    name: str
    stamp: str
    known: Known | None
    """What is to be remembered of it, once the index holds it; None: nothing that is not known already."""


class Changes:
    """One ingest: what the index held before it, what was seen, and what is to be said about it."""

    def __init__(
        self,
        held: Mapping[str, str],
        chunker: Chunker,
        stamps: Stamps | None,
        being_written: Collection[str],
        interrupt: Interrupt,
    ) -> None:
        self.report = IngestReport()
        self._held = held
        self._ids = sorted(held)
        self._chunker = chunker
        self._how = _way_of_cutting(chunker)
        self._stamps = stamps
        self._being_written = being_written
        self._interrupt = interrupt
        self._seen: set[str] = set()
        self._gone: list[str] = []
        self._forgotten: list[str] = []
        self._found_in: list[int] = []
        self._texts: dict[str, str] = {}

    def read(self, roots: Sequence[Root]) -> Iterator[Cut | Seen]:
        """Runs in a thread; what it counts is no other thread's to count."""
        for root in roots:
            before = self.report.documents
            yield from self._root(root)
            if self.report.stopped:
                return
            self._found_in.append(self.report.documents - before)

    def _root(self, root: Root) -> Iterator[Cut | Seen]:
        notes, names, fitted = ReadReport(), set[str](), set[str]()
        remembered = {}
        if root.listed and self._stamps is not None:
            found = self._stamps.all(root.above).items()
            remembered = {name[len(root.above) :]: stamp for name, stamp in found}
        for file in root.source.files(notes, remembered):
            if self._interrupt.requested:
                self.report.stopped = True
                return
            names.add(root.above + file.name)
            yield from self._file(root, file, fitted)
        _add(self.report.reading, notes, root)
        self.report.unmatched += [pattern for pattern, _ in root.access.rules if pattern not in fitted]
        self._gone += [
            document
            for document in self._ids
            if document not in self._seen
            and root.owns(document)
            and notes.was_reached(document[len(root.above) :])
            and not any(holds(name, document) for name in self._being_written)
        ]
        if self._stamps is not None:
            stale = self._stamps.all(root.above if not root.file else root.name).keys() - names
            self._forgotten += [name for name in stale if notes.was_reached(name[len(root.above) :])]

    def _file(self, root: Root, file: SourceFile, fitted: set[str]) -> Iterator[Cut | Seen]:
        name, place, report = root.above + file.name, root.place(file.name), self.report
        report.files += 1
        rule = root.access.decide(place)
        labels: Sequence[str] = ()
        if rule is not None:
            fitted.add(rule[0])
            labels = rule[1]
        recipe = sha256_json([__version__, self._how, dict(root.labels), list(labels)])
        before, known, state = self._of(name), None, "read"
        counts = (report.added, report.changed, report.unchanged)
        if self._stamps is not None and file.stamp:
            known = self._stamps.get(name, file.stamp)
        if name in self._being_written:
            state, known = "kept", None
        elif known is not None and known.recipe == recipe and known.held == self._held_digest(before):
            state = "as before"
            report.files_as_before += 1
            report.unchanged += len(before)
            self._seen.update(before)
        else:
            known = yield from self._opened(root, file, labels, recipe)
            state = "kept" if known is None else state
        if report.stopped:
            return
        if known is not None:
            self._add_known(place, known)
        else:
            lost = [document for document in before if document not in self._seen]
            report.files_kept += 1
            report.unchanged += len(lost)
            self._seen.update(lost)
        added, changed, unchanged = (
            now - then for now, then in zip((report.added, report.changed, report.unchanged), counts, strict=True)
        )
        report.each.append(FileLine(place, state, added, changed, unchanged))
        yield Seen(name, file.stamp, known if state == "read" else None)

    def _opened(
        self, root: Root, file: SourceFile, labels: Sequence[str], recipe: str
    ) -> Generator[Cut, None, Known | None]:
        """Yields what is new of a file. Returns what to remember of it; None: it could not be read, or not to its end,
        for a reason that says nothing about what it holds."""
        notes, counts = ReadReport(), dict.fromkeys(("bytes", "docstrings", "repeated_ids", "public"), 0)
        found, texts, labelled = dict[str, str](), list[str](), Counter[str]()
        for document in file.documents(notes):
            if self._interrupt.requested:
                self.report.stopped = True
                return None
            if document.metadata.get("kind") == "docstring":
                counts["docstrings"] += 1
                continue
            document = _labelled(root.placed(document), labels)
            if document.id in self._seen:
                counts["repeated_ids"] += 1
                notes.skip(document.id, "an id that another document has already")
                continue
            self._seen.add(document.id)
            digest = found[document.id] = document_digest(document, self._how)
            texts.append(hashlib.sha256(document.text.encode("utf-8", "replace")).hexdigest()[:24])
            counts["public"] += not document.access
            labelled.update(document.access)
            if self._held.get(document.id) == digest:
                self.report.unchanged += 1
            else:
                yield self._cut(document, digest)
        if not notes.was_reached(file.name):
            _add(self.report.reading, notes, root)
            return None
        self.report.files_read += 1
        counts["bytes"] = notes.bytes
        made = (counts, dict(notes.parts), dict(labelled), _notes(notes, root), texts)
        return Known(recipe, _digest_of(found), *made)

    def _cut(self, document: Document, digest: str) -> Cut:
        passages = self._chunker.passages(document)
        worded = [passage for passage in passages if any(map(str.isalnum, passage.text))]
        new = document.id not in self._held
        self.report.added += new
        self.report.changed += not new
        self.report.passages_without_a_word += len(passages) - len(worded)
        self.report.without_passages += not worded
        self.report.characters += sum(len(passage.text) for passage in worded)
        return Cut(document, digest, worded)

    def _add_known(self, place: str, known: Known) -> None:
        report = self.report
        for name, count in known.counts.items():
            setattr(report, name, getattr(report, name) + count)
        report.reading.parts.update(known.parts)
        report.labels.update(known.labels)
        for kind, *note in known.notes:
            getattr(report.reading, kind)(*note)
        for text in known.texts:
            first = self._texts.setdefault(text, place)
            if first != place:
                report.repeated_count += 1
                if len(report.repeated) < NAMED:
                    report.repeated.append((place, first))

    # what the index held

    def _of(self, name: str) -> list[str]:
        """The documents of a file that the index held, in the order of their ids."""
        found = [name] if name in self._held else []
        for separator in "#/:":
            low = bisect_left(self._ids, name + separator)
            found += self._ids[low : bisect_left(self._ids, name + chr(ord(separator) + 1), low)]
        return found

    def _held_digest(self, documents: Iterable[str]) -> str:
        return _digest_of({document: self._held[document] for document in documents})

    # the end

    def finish(self, roots: Sequence[Root], index: LiveIndex | None, allow_empty: bool, dry: bool) -> None:
        """Removes what the roots no longer have, and says what the index holds now."""
        report = self.report
        report.roots, report.dry = [root.name for root in roots], dry
        if not report.stopped:  # else what was not looked at would seem to be gone
            empty = (
                [] if allow_empty else [root for root, found in zip(roots, self._found_in, strict=True) if not found]
            )
            if len(empty) == len(roots):
                raise self._nothing(roots)
            report.empty = [root.name for root in empty]
            gone = [document for document in self._gone if not any(root.owns(document) for root in empty)]
            report.removed = len(gone)
            if not dry and index is not None and gone:
                index.delete(gone)
            if not dry and self._stamps is not None:
                self._stamps.forget(self._forgotten)
        if index is not None:
            report.holds_documents, report.holds_passages = len(index.held()), len(index)

    def _nothing(self, roots: Sequence[Root]) -> InputError:
        reading, what = self.report.reading, ", ".join(root.name for root in roots)
        if reading.missing is not None:
            return InputError(f"There is nothing to read in {what}: {reading.missing.message}", reading.missing.hint)
        skipped = ", ".join(f"{count:,} {reason}" for reason, count in reading.reasons().items())
        why = f"skipped {skipped}. First: {reading.skipped[0]}." if skipped else "it is empty."
        message = f"There is nothing to read in {what}: {why}"
        held = sum(any(root.owns(document) for root in roots) for document in self._ids)
        if held:
            return InputError(
                f"{message} The index still holds {held:,} documents of it, and nothing was removed.",
                "If they are to go, say so with --allow-empty. If not: is a disk not mounted?",
            )
        return InputError(message, "Name a file, or a folder of documents, that windlass reads.")


def _digest_of(documents: Mapping[str, str]) -> str:
    return sha256_json(sorted(documents.items()))


def _labelled(document: Document, access: Sequence[str]) -> Document:
    """With the labels of its access rule, unless the reader gave it its own: what a source keeps from others is not
    opened by a rule about its files."""
    if not access or document.metadata.get("access"):
        return document
    return replace(document, metadata={**document.metadata, "access": list(access)})


def _notes(report: ReadReport, root: Root) -> list[list[str]]:
    """Each as (skip or mend, source, reason, detail), with its place in the index."""
    return [
        [kind, root.place(note.source), note.reason, note.detail]
        for kind, notes in (("skip", report.skipped), ("mend", report.mended))
        for note in notes
    ]


def _add(total: ReadReport, notes: ReadReport, root: Root) -> None:
    for kind, *note in _notes(notes, root):
        getattr(total, kind)(*note)
    total.missing = notes.missing or total.missing


def _way_of_cutting(chunker: Chunker) -> dict[str, Any]:
    """What decides which passages a document gives. Which embedder the vectors come from is the index's to know, and no
    document is another one when that changes; but some ways of cutting ask the embedder where."""
    settings = chunker.settings
    asked = settings.kind == "semantic" or settings.unit == "tokens"
    return {
        "format": FORMAT,
        "settings": asdict(settings),
        "writer": None if chunker.writer is None else chunker.writer.digest,
        "embedder": chunker.embedder.digest if asked else None,
    }
