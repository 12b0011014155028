"""Artifacts: immutable folders addressed by their content, with a card and parents.

An artifact is an ordinary folder under `.windlass/artifacts/`, named by its digest, so that any tool can read
it in place (a model folder loads with `transformers` as it is). The digest covers kind, files and parents; the
card is descriptive and not part of it.

An artifact is made in a draft folder beside the others, synced, and renamed: it is there whole or not at all. A draft
is locked by its process, so the next build can tell the drafts of dead processes, and removes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, NotFound, WorkspaceCorrupt
from windlass.core.files import disk_errors, sha256_file, sha256_json, sync_folder
from windlass.core.records import ArtifactRecord
from windlass.core.store import Store

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DRAFT = ".draft-"


@dataclass(frozen=True, slots=True)
class Artifact:
    record: ArtifactRecord
    path: Path
    """The folder that holds its files, which are read-only."""

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def ref(self) -> str:
        return self.record.ref

    @property
    def kind(self) -> str:
        return self.record.kind

    @property
    def card(self) -> Mapping[str, Any]:
        return self.record.card

    def parent(self, role: str) -> str:
        """Digest of the parent in that role."""
        for known, digest in self.record.parents:
            if known == role:
                return digest
        raise NotFound(f"{self.ref} has no parent in the role '{role}'.")


@dataclass(slots=True)
class Draft:
    """An artifact in the making: write files under `path`, fill `card`, name `parents`."""

    path: Path
    card: dict[str, Any] = field(default_factory=dict)
    parents: list[tuple[str, str]] = field(default_factory=list)
    artifact: Artifact | None = None
    """The finished artifact, once the block that made the draft has ended."""

    def add_parent(self, role: str, artifact: Artifact | str) -> None:
        self.parents.append((role, artifact if isinstance(artifact, str) else artifact.digest))

    @property
    def done(self) -> Artifact:
        assert self.artifact is not None, "the draft is finished when its `with` block has ended"
        return self.artifact


def check_name(text: str, what: str = "name") -> None:
    """Raises `InputError` for what cannot be the name of an artifact; work of hours asks before it begins."""
    if not _NAME.fullmatch(text):
        raise InputError(
            f"'{text}' cannot be the {what} of an artifact.",
            "Use letters, digits, '-', '_' and '.', at most 100, and begin with a letter or digit.",
        )


def content_digest(kind: str, files: Mapping[str, str], parents: Sequence[tuple[str, str]]) -> str:
    """What an artifact is called by. `files`: relative path -> SHA-256; `parents`: (role, digest)."""
    return sha256_json({"kind": kind, "files": files, "parents": parents})


class Artifacts:
    """The artifacts of a workspace: their folders under `folder`, their records in `store`."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store

    @contextlib.contextmanager
    def build(self, kind: str, name: str, *, run: str | None = None) -> Iterator[Draft]:
        """Yields a `Draft`; when the block ends without error its folder becomes the artifact, at once and whole.

        Identical content under the same parents yields the artifact that exists already. Raises `InputError` for a
        name that cannot be used and for a draft without files or with links; `DiskFull` leaves nothing behind.
        """
        check_name(name)
        check_name(kind, "kind")
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_dead_drafts()
            with self._locked_folder() as temporary:
                draft = Draft(temporary)
                yield draft
                draft.artifact = self._finish(draft, kind, name, run)

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[Path]:
        """A new draft folder, locked for as long as this process lives or the block runs, then removed."""
        while True:
            path = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
            with _lock(path) as mine:
                if not mine:  # somebody who was tidying up came between making and locking it
                    continue
                try:
                    yield path
                finally:
                    shutil.rmtree(path, ignore_errors=True)  # nothing is there any more if it became an artifact
                return

    def _remove_dead_drafts(self) -> None:
        for path in self.folder.glob(f"{_DRAFT}*"):
            with _lock(path) as dead:
                if dead:
                    shutil.rmtree(path, ignore_errors=True)

    def _finish(self, draft: Draft, kind: str, name: str, run: str | None) -> Artifact:
        paths = sorted(draft.path.rglob("*"))
        for path in paths:
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise InputError(f"{path.name} in the draft of '{name}' is not a plain file.", "Copy what it leads to.")
        found = [path for path in paths if path.is_file()]
        if not found:
            raise InputError(f"'{name}' would be an artifact without files.", "Write its files under `draft.path`.")
        files = {path.relative_to(draft.path).as_posix(): sha256_file(path) for path in found}
        digest = content_digest(kind, files, draft.parents)
        size = sum(path.stat().st_size for path in found)
        for path in found:
            os.chmod(path, 0o444)
            _sync(path)
        for path in (*(path for path in paths if path.is_dir()), draft.path):
            sync_folder(path)
        os.chmod(draft.path, 0o755)
        record = ArtifactRecord(digest, kind, name, 0, time.time(), size, files, draft.card, draft.parents, run)
        final = self.folder / digest
        self._place(draft.path, Artifact(record, final))
        return Artifact(self.store.add_artifact(record), final)

    def _place(self, folder: Path, artifact: Artifact) -> None:
        """Renames `folder` to its digest, unless the same content is there; a damaged copy there gives way."""
        while True:
            try:
                os.rename(folder, artifact.path)
                sync_folder(self.folder)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            try:
                self.verify(artifact)
                return
            except WorkspaceCorrupt:
                aside = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
                with contextlib.suppress(FileNotFoundError):  # another builder of the same content moved it first
                    os.rename(artifact.path, aside)
                shutil.rmtree(aside, ignore_errors=True)

    def get(self, ref: str) -> Artifact:
        """By digest, digest prefix, `name@version` or `name`. Raises `NotFound`."""
        record = self.store.artifact(ref)
        if record is None:
            raise NotFound(
                f"There is no artifact '{ref}' in this workspace.", "`windlass artifacts` lists what there is."
            )
        return self._open(record)

    def find(self, ref: str) -> Artifact | None:
        record = self.store.artifact(ref)
        return None if record is None else self._open(record)

    def _open(self, record: ArtifactRecord) -> Artifact:
        path = self.folder / record.digest
        if not path.is_dir():
            raise WorkspaceCorrupt(
                f"The files of {record.ref} are missing: {path}.", "Restore the folder or make it again."
            )
        return Artifact(record, path)

    def verify(self, artifact: Artifact) -> None:
        """Raises `WorkspaceCorrupt` naming the first file that is not as it was stored: changed, lost or added."""
        hint = "Restore it, or make the artifact again."
        for name, expected in artifact.record.files.items():
            path = artifact.path / name
            if not path.is_file():
                raise WorkspaceCorrupt(f"{path} (of {artifact.ref}) is missing.", hint)
            if sha256_file(path) != expected:
                raise WorkspaceCorrupt(f"{path} (of {artifact.ref}) was changed.", hint)
        for path in sorted(artifact.path.rglob("*")):
            if not path.is_dir() and path.relative_to(artifact.path).as_posix() not in artifact.record.files:
                raise WorkspaceCorrupt(f"{path} does not belong to {artifact.ref}.", "Move it somewhere else.")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether this process holds the lock on `folder` while the block runs. The kernel frees it if the process dies."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The lock may be on a folder that was removed between opening and locking it.
            mine = folder.exists()
        except BlockingIOError:
            mine = False
        yield mine
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
