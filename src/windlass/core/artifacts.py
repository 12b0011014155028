"""Artifacts: immutable folders addressed by their content, with a card and parents.

An artifact is an ordinary folder under `.windlass/artifacts/`, named by its digest, so that any tool can read
it in place (a model folder loads with `transformers` as it is). The digest covers kind, files and parents; the
card is descriptive and not part of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windlass.core.errors import NotFound, WorkspaceCorrupt
from windlass.core.files import disk_errors, sha256_file, sha256_json, sync_folder
from windlass.core.records import ArtifactRecord
from windlass.core.store import Store


@dataclass(frozen=True, slots=True)
class Artifact:
    record: ArtifactRecord
    path: Path
    """The folder that holds its files. Read-only by convention."""

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


class Artifacts:
    """The artifacts of a workspace: their folders under `folder`, their records in `store`."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store

    @contextlib.contextmanager
    def build(self, kind: str, name: str, *, run: str | None = None) -> Iterator[Draft]:
        """Yields a `Draft`; when the block ends without error its folder becomes the artifact, at once and whole.

        Identical content under the same parents yields the artifact that exists already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with disk_errors(self.folder):
            temporary = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
            try:
                draft = Draft(temporary)
                yield draft
                draft.artifact = self._finish(draft, kind, name, run)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _finish(self, draft: Draft, kind: str, name: str, run: str | None) -> Artifact:
        paths = sorted(p for p in draft.path.rglob("*") if p.is_file())
        files = {p.relative_to(draft.path).as_posix(): sha256_file(p) for p in paths}
        digest = sha256_json({"kind": kind, "files": files, "parents": draft.parents})
        size = sum(p.stat().st_size for p in paths)
        final = self.folder / digest
        if not final.exists():
            for path in paths:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            os.chmod(draft.path, 0o755)
            try:
                os.rename(draft.path, final)
            except OSError:
                if not final.is_dir():
                    raise
                # another thread or process has just made the very same content: theirs is as good
            sync_folder(self.folder)
        record = ArtifactRecord(digest, kind, name, 0, time.time(), size, files, draft.card, draft.parents, run)
        return Artifact(self.store.add_artifact(record), final)

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
        """Raises `WorkspaceCorrupt` naming the first file whose bytes are not those that were stored."""
        for name, expected in artifact.record.files.items():
            path = artifact.path / name
            if not path.is_file() or sha256_file(path) != expected:
                raise WorkspaceCorrupt(
                    f"{path} (of {artifact.ref}) was changed or lost.", "Restore it or make it again."
                )
