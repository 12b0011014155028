"""Ingesting into a living index of the workspace: made or opened, with its roots and what was said of them before."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.apply.providers import known
from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.chunking.chunker import Chunker
from windlass.apply.rag.chunking.contextual import ContextWriter
from windlass.apply.rag.embedding.vectors import CachedEmbedder, cache_path
from windlass.apply.rag.indexes.address import is_address, shown
from windlass.apply.rag.indexes.embedded.layout import describe
from windlass.apply.rag.indexes.embedded.quantised import Quantised
from windlass.apply.rag.indexes.embedded.reembedding import reembed
from windlass.apply.rag.indexes.live import EmbeddedIndex
from windlass.apply.rag.ingest.access import AccessRules
from windlass.apply.rag.ingest.changes import Interrupt
from windlass.apply.rag.ingest.ingesting import ingest
from windlass.apply.rag.ingest.report import IngestReport
from windlass.apply.rag.ingest.roots import URLS, Root, holds, place_name
from windlass.apply.rag.ingest.stamps import FILE, Stamps
from windlass.apply.wrappers.budget import Budget
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.files import disk_errors, exclusive
from windlass.core.progress import Progress
from windlass.core.protocols import LiveIndex
from windlass.core.readers import FileSource, Folder, ReadReport, RowFields, SourceFile, source_at
from windlass.core.readers.fetching import Fetching
from windlass.core.readers.urls import UrlList
from windlass.core.version import __version__
from windlass.core.workspace import Workspace
from windlass.loop.embedders import DEFAULT, called, embedder_named, lasting_name, usual
from windlass.loop.living import (
    LOCK,
    SETTINGS,
    LivingSettings,
    RootSettings,
    folder_of,
    open_at,
    settings_of,
    write_settings,
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is said on the command line; None: as it was said before, or else the default."""

    paths: Sequence[Path] = ()
    urls: Sequence[Path] = ()
    """Files of addresses. Neither paths nor these: every root that was ingested before."""
    private: bool | None = None
    """Whether those may be of this machine and of private networks."""
    labels: Mapping[str, str] | None = None
    access: AccessRules | Sequence[str] | None = None
    """Rules, or labels for all; empty: public."""
    where: str | None = None
    """Where the index lies: a folder or a database. Only for a new one."""
    embedder: str | None = None
    reembed: bool = False
    """If the index has another embedder, its passages are embedded anew."""
    chunks: str | None = None
    """`structure`, or `structure:target=550,limit=800`."""
    quantised: Quantised | None = None
    budget: int | None = None
    """Tokens that the model which writes contexts may take in a day, for chunks that want them."""
    allow_empty: bool = False
    """A root in which there is nothing any more loses its documents."""


@dataclass(slots=True)
class Open:
    """A living index, to be ingested into."""

    name: str
    index: LiveIndex | None
    """None: there is none yet, and none is made by a dry run."""
    roots: Sequence[Root]
    chunker: Chunker
    stamps: Stamps | None
    dry: bool
    allow_empty: bool
    said: Sequence[str]
    """What a person should know beforehand."""

    def files(self) -> int | None:
        """How many files there are to look at; None: that is not known before."""
        if any(root.listed for root in self.roots):
            return None
        return sum(1 for root in self.roots for _ in root.source.files(ReadReport()))

    def ingest(
        self,
        being_written: Collection[str] = (),
        *,
        interrupt: Interrupt | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """As `rag.ingest.ingesting.ingest`."""
        report = ingest(
            self.index,
            self.roots,
            self.chunker,
            stamps=self.stamps,
            being_written=being_written,
            allow_empty=self.allow_empty,
            dry=self.dry,
            interrupt=interrupt,
            progress=progress,
        )
        report.index = self.name
        return report


@contextlib.contextmanager
def opened_for_ingest(ws: Workspace, name: str, wishes: Wishes, *, dry: bool = False) -> Iterator[Open]:
    """The living index of that name, made when there is none, with the roots that are wished for.

    Nobody else can ingest into it meanwhile (`WorkspaceBusy`). What is wished for is remembered before anything is
    read. With `dry` nothing is made nor remembered. Raises `InputError` for wishes that contradict what is there.
    """
    folder = folder_of(ws, name)
    with contextlib.ExitStack() as stack:
        if not dry:
            with disk_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / LOCK, "ingesting"))
        before = settings_of(ws, name)
        new = before is None and wishes.embedder is None
        settings, roots, said = _settled(ws, before or LivingSettings(usual() if new else DEFAULT), wishes)
        embedder = embedder_named(ws, settings.embedder)
        cached = stack.enter_context(contextlib.closing(CachedEmbedder(embedder, cache_path(ws.root))))
        writer = stack.enter_context(_writer(ws, wishes)) if settings.chunks.written else None
        chunker = Chunker(cached, settings.chunks, writer)
        if before is not None and before.digest != embedder.digest:
            _embed_anew(folder, before, chunker, wishes, dry)
        settings = replace(settings, digest=embedder.digest)
        made = [_root(ws, root, settings.roots[settings.around(root) or root]) for root in roots]
        index, stamps = None, None
        if before is not None or not dry:
            index = open_at(ws, name, settings, embedder)
            stack.callback(index.close)
            if isinstance(index, EmbeddedIndex) and not dry:
                cells = index.cells
                index.requantise(settings.quantised)
                if cells is not None and index.cells is None:
                    said.append(f"cells of {name} went with the vectors as they were: windlass index ann {name}")
        if not dry:
            stamps = stack.enter_context(contextlib.closing(Stamps(folder / FILE)))
            write_settings(ws, name, settings)
        opened = Open(name, index, made, chunker, stamps, dry, wishes.allow_empty, said)
        try:
            yield opened
        except InputError:
            if not dry:
                _forget_what_gave_nothing(ws, name, before, settings, opened)
            raise


def _forget_what_gave_nothing(
    ws: Workspace, name: str, before: LivingSettings | None, settings: LivingSettings, opened: Open
) -> None:
    """A root that was mistyped is not to be read again the next time, nor an index to be asked that was never one."""
    there = {} if before is None else before.roots
    held = () if opened.index is None else opened.index.held()
    roots = {
        root: said
        for root, said in settings.roots.items()
        if root in there or any(holds(root, document) for document in held)
    }
    if roots:
        write_settings(ws, name, replace(settings, roots=roots))
    else:
        (folder_of(ws, name) / SETTINGS).unlink(missing_ok=True)


# what is wished for, and what is there ------------------------------------------------------------------------------


def _settled(ws: Workspace, before: LivingSettings, wishes: Wishes) -> tuple[LivingSettings, list[str], list[str]]:
    """The settings from now on, the places to read, and what to say."""
    roots, said = dict(before.roots), list[str]()
    names = [place_name(path, ws.home) for path in wishes.paths]
    names += [URLS + place_name(path, ws.home) for path in wishes.urls]
    speaks = any(said is not None for said in (wishes.labels, wishes.access, wishes.private))
    if not names:
        if not roots:
            raise InputError("Nothing to ingest was named.", "windlass ingest FOLDER")
        if speaks:
            raise InputError("Labels and access are said of a folder or file.", "Name it.")
        names = list(roots)
    for name in names:
        if not wishes.allow_empty and not _path(ws, name).exists():
            hint = "To take its documents out of the index: --allow-empty." if name in roots else ""
            raise InputError(f"{_path(ws, name)} does not exist.", hint or "Name a file or a folder of documents.")
        around = next((root for root in roots if holds(root, name)), None)
        if around is not None and around != name and speaks:
            raise InputError(
                f"{name} is a part of {around}, which is in the index as a whole.",
                f'Say it there, for example by an access file with "{name}/**" = ["label"].',
            )
        if around is None:
            for inner in [root for root in roots if holds(name, root)]:
                if roots[inner] != RootSettings():
                    raise InputError(
                        f"{name} holds {inner}, which is in the index with labels of its own.",
                        f"Ingest what is beside {inner}, or use an index of another name.",
                    )
                del roots[inner]
            roots[name] = RootSettings()
        root = around or name
        if speaks:
            roots[root] = _said_of(roots[root], wishes)
        elif roots[root].access:
            said.append(f"access of {root} as before: {_shown(roots[root])}")
    names = [name for name in dict.fromkeys(names) if not any(other != name and holds(other, name) for other in names)]
    embedder = before.embedder if wishes.embedder is None else lasting_name(ws, wishes.embedder)
    chunks = before.chunks if wishes.chunks is None else chunk_settings(wishes.chunks)
    quantised = before.quantised if wishes.quantised is None else wishes.quantised
    where = before.where if wishes.where is None else _where(ws, wishes.where)
    if quantised and is_address(where):
        raise InputError(
            f"An index at {where} is not quantised by windlass.",
            "Leave --quantised out: the database looks after its vectors by itself.",
        )
    if where != before.where and before.digest:
        raise InputError(
            f"The index lies {f'at {before.where}' if before.where else 'in the workspace'}, not at {where}.",
            "Ingest into an index of another name.",
        )
    settings = replace(before, where=where, embedder=embedder, chunks=chunks, quantised=quantised, roots=roots)
    return settings, names, said


def _where(ws: Workspace, given: str) -> str:
    return shown(given) if is_address(given) else place_name(Path(given), ws.home)


def _said_of(before: RootSettings, wishes: Wishes) -> RootSettings:
    labels = before.labels if wishes.labels is None else wishes.labels
    before = replace(before, labels=labels, private=before.private if wishes.private is None else wishes.private)
    if wishes.access is None:
        return before
    if isinstance(wishes.access, AccessRules):
        access = {pattern: tuple(names) for pattern, names in wishes.access.rules}
    else:
        access = {"**": tuple(sorted(set(wishes.access)))} if wishes.access else {}
    return replace(before, access=access)


def _shown(root: RootSettings) -> str:
    return ", ".join(f"{pattern} {' '.join(labels) or 'public'}" for pattern, labels in root.access.items())


def _writer(ws: Workspace, wishes: Wishes) -> contextlib.closing[ContextWriter]:
    """The language model of windlass.toml, that writes a context above each passage."""
    if wishes.budget is None:
        raise InputError(
            "Contexts are written by a language model, passage by passage.", "Say how far: --budget TOKENS"
        )
    model = known.from_config(ws.config)
    return contextlib.closing(ContextWriter.within(ws, model, Budget("contexts", tokens=wishes.budget)))


def _embed_anew(folder: Path, before: LivingSettings, chunker: Chunker, wishes: Wishes, dry: bool) -> None:
    """Gives the index the vectors of another embedder, if that is wished for. It answers meanwhile."""
    embedder = chunker.embedder
    if dry or before.where or not wishes.reembed:
        name = called(before.embedder) if before.where else describe(folder).embedder_name
        raise InputError(
            f"The index '{folder.name}' holds vectors of {name} ({before.digest[:12]}), not of "
            f"{embedder.name} ({embedder.digest[:12]}).",
            "Ingest into an index of another name"
            + (
                "."
                if before.where
                else ", or with --reembed: its passages are embedded anew, and it answers meanwhile."
            ),
        )
    with Progress("embed anew", None, "passages", start=0) as progress:
        reembed(folder, chunker, progress)


def _root(ws: Workspace, name: str, settings: RootSettings) -> Root:
    path = _path(ws, name)
    source: FileSource = _Gone()
    if name.startswith(URLS) and path.exists():
        source = UrlList.of_file(path, Fetching(private=settings.private, agent=f"windlass/{__version__}"))
    elif path.exists():
        source = source_at(path, fields=RowFields(text=None))
    return Root(source, name, settings.labels, settings.rules, path.is_file() and isinstance(source, Folder))


def _path(ws: Workspace, name: str) -> Path:
    place = name.removeprefix(URLS)
    return Path(place) if place.startswith("/") else ws.home / place


class _Gone:
    """The source that there is no more: it has nothing."""

    name, licence = "nothing", ""

    def files(self, report: ReadReport, stamps: Mapping[str, str] | None = None) -> Iterator[SourceFile]:
        return iter(())

    def documents(self, report: ReadReport) -> Iterator[Document]:
        return iter(())


def chunk_settings(text: str) -> ChunkSettings:
    """`name`, or `name:setting=value,…`. Raises `InputError` naming what is not understood."""
    name, _, rest = text.partition(":")
    values: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"--chunks: '{part}' is no setting.", "Write name:setting=value,setting=value.")
        values[key.strip()] = int(value) if value.lstrip("-").isdecimal() else value
    return ChunkSettings.named(name, **values)
