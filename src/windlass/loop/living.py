"""The living indexes of a workspace: `.windlass/indexes/NAME/`, each with what it takes to go on with it.

`settings.json` says where the index is, by which embedder and how its documents are cut, and of each of its roots what
was said about it, so that a later ingest of the same root needs no option again, and never forgets a label of access.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from windlass.apply.rag.chunking import ChunkSettings
from windlass.apply.rag.indexes.address import is_address
from windlass.apply.rag.indexes.embedded.layout import FILE, describe
from windlass.apply.rag.indexes.embedded.quantised import Quantised
from windlass.apply.rag.indexes.live import EmbeddedIndex
from windlass.apply.rag.indexes.opening import AskedIndex, open_index
from windlass.apply.rag.ingest.access import AccessRules
from windlass.apply.rag.ingest.roots import holds
from windlass.core.config import strict
from windlass.core.errors import InputError, NotFound, Unsupported, WindlassError
from windlass.core.files import exclusive, write_json
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace
from windlass.loop.embedders import DEFAULT, embedder_named

FOLDER = "indexes"
SETTINGS, LOCK = "settings.json", "ingest.lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class RootSettings:
    """What was said of a root when it was ingested."""

    labels: Mapping[str, str] = field(default_factory=dict)
    access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Pattern -> labels, in the order in which they are tried."""
    private: bool = False
    """Whether a list of addresses may lead to this machine and to private networks."""

    @property
    def rules(self) -> AccessRules:
        return AccessRules(tuple(self.access.items()))


@dataclass(frozen=True, slots=True)
class LivingSettings:
    embedder: str = DEFAULT
    """As `embedder_named` takes it."""
    digest: str = ""
    """Of that embedder, when the index was made."""
    where: str = ""
    """Another folder, as seen from that of the workspace, or a database (`apply.rag.indexes.opening`); without it the
    index lies beside these settings."""
    chunks: ChunkSettings = field(default_factory=ChunkSettings)
    quantised: Quantised = ""
    """How candidates are found, see `apply.rag.indexes.embedded.quantised`."""
    roots: Mapping[str, RootSettings] = field(default_factory=dict)
    """By their names: places as seen from the workspace's folder."""

    def around(self, place: str) -> str | None:
        """The root that a place belongs to: roots do not overlap."""
        return next((root for root in self.roots if holds(root, place)), None)


def folder_of(ws: Workspace, name: str) -> Path:
    """Where the index of that name is, or would be. Raises `InputError` for what can be no name."""
    if not _NAME.fullmatch(name):
        raise InputError(f"An index cannot be called '{name}'.", "Use letters, digits, dots, dashes and underscores.")
    return ws.root / FOLDER / name


def living(ws: Workspace) -> list[str]:
    """The names of the living indexes, the one that was ingested into last first."""
    found = list((ws.root / FOLDER).glob(f"*/{SETTINGS}"))
    return [path.parent.name for path in sorted(found, key=lambda path: -path.stat().st_mtime_ns)]


def chosen(ws: Workspace, name: str | None = None) -> str:
    """The living index of that name; None: the one that was ingested into last. Raises `NotFound`."""
    names = living(ws)
    if name is None:
        if not names:
            raise NotFound(f"There is no living index in {ws.home}.", "Make one: windlass ingest FOLDER.")
        return names[0]
    if name not in names:
        known = f"There are: {', '.join(names)}." if names else f"Make it: windlass ingest DIR --name {name}."
        raise NotFound(f"There is no living index '{name}' in {ws.home}.", known)
    return name


def settings_of(ws: Workspace, name: str) -> LivingSettings | None:
    """None where there is no such index yet."""
    path = folder_of(ws, name) / SETTINGS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}).", "Mend it, or delete its folder.") from error
    return strict(LivingSettings, found, where=str(path))


def write_settings(ws: Workspace, name: str, settings: LivingSettings) -> None:
    folder = folder_of(ws, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, asdict(settings))


@dataclass(frozen=True, slots=True)
class Held:
    """How much a living index holds, told without opening it for a search."""

    name: str
    settings: LivingSettings
    ingested: float
    """When the last ingest into it began, in seconds since 1970."""
    documents: int | None = None
    """None, as the next two, of an index in a database, which would have to be asked."""
    passages: int | None = None
    bytes: int | None = None
    """On the disk."""
    fault: str = ""
    """Why that cannot be told: it is damaged, or gone."""


def held(ws: Workspace) -> list[Held]:
    """All living indexes, the one that was ingested into last first."""
    found = []
    for name in living(ws):
        settings = settings_of(ws, name)
        if settings is None:
            continue  # deleted a moment ago
        one = Held(name, settings, (folder_of(ws, name) / SETTINGS).stat().st_mtime)
        place = place_of(ws, name, settings)
        if isinstance(place, Path):
            try:
                meta = describe(place)
                size = sum(file.stat().st_size for file in place.iterdir() if file.is_file())
                one = replace(one, documents=meta.documents, passages=meta.passages, bytes=size)
            except WindlassError as error:
                one = replace(one, fault=error.message)
        found.append(one)
    return found


def open_living(ws: Workspace, name: str | None = None, embedder: Embedder | None = None) -> AskedIndex:
    """The living index of that name, or the one that was ingested into last, with its embedder.

    Raises `NotFound` when there is none, and `InputError` when it holds vectors of another embedder.
    """
    name = chosen(ws, name)
    settings = settings_of(ws, name)
    assert settings is not None, "chosen by its settings"
    place = place_of(ws, name, settings)
    if isinstance(place, Path) and not (place / FILE).is_file():
        raise NotFound(
            f"The index '{name}' lay in {place}, and is there no more.",
            f"Bring it back, or make it anew: windlass index delete {name}, then ingest again.",
        )
    return open_at(ws, name, settings, embedder or embedder_named(ws, settings.embedder))


def open_at(ws: Workspace, name: str, settings: LivingSettings, embedder: Embedder) -> AskedIndex:
    """The index with these settings; made when there is none."""
    where = place_of(ws, name, settings)
    return open_index(where, embedder, context=settings.chunks.context, quantised=settings.quantised)


def place_of(ws: Workspace, name: str, settings: LivingSettings) -> Path | str:
    """The folder in which the index of that name lies, from whichever folder one asks, or a database's address."""
    if is_address(settings.where):
        return settings.where
    return ws.home / settings.where if settings.where else folder_of(ws, name)


def open_embedded(ws: Workspace, name: str) -> EmbeddedIndex:
    """As `open_living`. Raises `Unsupported` for an index that lies in a database."""
    index = open_living(ws, name)
    if not isinstance(index, EmbeddedIndex):
        index.close()
        raise Unsupported(f"The index '{name}' lies in a database, which looks after its vectors by itself.")
    return index


def delete_living(ws: Workspace, name: str) -> None:
    """Deletes the index; one that lies elsewhere is only forgotten. Raises `NotFound`, and `WorkspaceBusy` while
    somebody ingests into it."""
    folder = folder_of(ws, chosen(ws, name))
    with exclusive(folder / LOCK, "ingesting"):
        (folder / SETTINGS).unlink()  # first: without it there is no index, whatever is left of the folder
        shutil.rmtree(folder)
