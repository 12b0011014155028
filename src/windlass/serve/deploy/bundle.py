"""A small workspace that holds one model, or what one task serves, and nothing else of the large one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Cargo:
    """What is deployed."""

    name: str
    """What clients call it."""
    artifact: Artifact
    task: str | None = None
    """The task whose release it is; None for a model."""


def find(ws: Workspace, name: str) -> Cargo:
    """A task with a release, else a model. Raises `NotFound` and `InputError`."""
    if rows := ws.store.releases(name):
        return Cargo(name, ws.artifacts.get(rows[0].variant), name)
    artifact = ws.artifacts.find(name)
    if artifact is None:
        tasks = sorted({row.task for row in ws.store.releases()})
        models = sorted({record.name for record in ws.store.artifacts("model")})
        raise NotFound(
            f"'{name}' is neither a model nor a task with a release.",
            f"There are: {', '.join([*models, *tasks]) or 'none yet'}.",
        )
    if artifact.kind != "model":
        raise InputError(f"{artifact.ref} is of the kind {artifact.kind}.", "Name a model, or a task with a release.")
    return Cargo(artifact.record.name, artifact)


def pack(ws: Workspace, cargo: Cargo, folder: Path) -> int:
    """Fills `folder` with a workspace that serves the cargo; returns how many bytes of files it holds.

    Files are linked where the disk allows it and copied elsewhere. Traces, runs and other artifacts stay behind.
    """
    needed = {cargo.artifact.digest: cargo.artifact}
    if cargo.task is not None:  # a variant answers by its index and its adapter
        for _, digest in cargo.artifact.record.parents:
            needed[digest] = ws.artifacts.get(digest)
    shutil.rmtree(folder, ignore_errors=True)
    with Workspace(folder) as packed:
        config = ws.home / "windlass.toml"
        if cargo.task is not None and config.is_file():  # which language model writes; keys never stand there
            shutil.copyfile(config, folder / "windlass.toml")
        for artifact in reversed(list(needed.values())):
            shutil.copytree(artifact.path, packed.artifacts.folder / artifact.digest, copy_function=_link)
            parents = [parent for parent in artifact.record.parents if parent[1] in needed]
            packed.store.add_artifact(replace(artifact.record, parents=parents, run=None))
        if cargo.task is not None:
            row = ws.store.releases(cargo.task)[0]
            packed.store.add_release(replace(row, id=0, previous=None, experiment=None), expected=None)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)
    return target
