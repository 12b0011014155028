"""The option --workspace, the same for every command that works in one."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace, find_workspace


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="FOLDER",
        help="where to look, from there upwards; default: the current folder",
    )


def opened(args: argparse.Namespace) -> Workspace:
    return find_workspace(args.workspace)


def opened_or_made(args: argparse.Namespace) -> Workspace:
    """The workspace; where there is none, one is made in the folder that was named, or in this one."""
    try:
        return opened(args)
    except NotFound:
        made = Workspace(args.workspace or Path())
    print(f"There was no workspace here or above: made one in {made.home}.", file=sys.stderr)
    return made


@contextlib.contextmanager
def opened_or_passing(args: argparse.Namespace) -> Iterator[Workspace]:
    """The workspace; where there is none, one for as long as the block runs, which leaves nothing behind."""
    try:
        workspace = opened(args)
    except NotFound:
        with (
            tempfile.TemporaryDirectory(prefix="windlass-") as root,
            Workspace(args.workspace or Path(), Path(root)) as passing,
        ):
            yield passing
        return
    with workspace:
        yield workspace


@contextlib.contextmanager
def opened_if_any(args: argparse.Namespace) -> Iterator[Workspace | None]:
    """The workspace, or None where there is none."""
    try:
        workspace = opened(args)
    except NotFound:
        yield None
        return
    with workspace:
        yield workspace


@contextlib.contextmanager
def opened_unless_placed(args: argparse.Namespace, models: Sequence[str]) -> Iterator[Workspace | None]:
    """The workspace; None where there is none and none is needed: each of the `models`, of which there are some, says
    itself where it is, a folder or a URL. Raises `NotFound`, also for a workspace that was asked for."""
    for model in models:
        if model.startswith(("./", "../", "/", "~")) and not Path(model).is_dir():
            raise NotFound(f"There is no folder {model}.", "Name a model's folder, a model of the workspace, or a URL.")
    placed = all(model.startswith(("http://", "https://")) or Path(model).is_dir() for model in models)
    with opened_if_any(args) if models and placed and args.workspace is None else opened(args) as workspace:
        yield workspace


def model_folder(args: argparse.Namespace, model: str) -> tuple[Path, str]:
    """Folder and name of a model: a folder by its path, else a model of the workspace."""
    if (Path(model) / "config.json").is_file():
        return Path(model), Path(model).resolve().name
    with opened(args) as workspace:
        artifact = workspace.artifacts.get(model)
        if artifact.kind != "model":
            raise InputError(f"{artifact.ref} is of the kind {artifact.kind}.", "Name a model, or a model's folder.")
        return artifact.path, artifact.record.name
