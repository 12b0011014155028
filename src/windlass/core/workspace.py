"""The workspace: the folder `.windlass/`, found by walking up from here, as git does."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from windlass.core.artifacts import Artifacts
from windlass.core.config import Config, load_config
from windlass.core.errors import InputError, NotFound
from windlass.core.files import disk_errors
from windlass.core.redact import Redactor
from windlass.core.runs import Runs
from windlass.core.sqlite_store import SqliteStore
from windlass.core.store import Store
from windlass.core.trace import Recorder

FOLDER = ".windlass"


class Workspace:
    """Everything windlass knows about one project. `home` is the project's folder, `root` its `.windlass/`, or the
    folder that is given in its place."""

    def __init__(self, home: Path, root: Path | None = None) -> None:
        self.home = home.resolve()
        self.root = self.home / FOLDER if root is None else root.resolve()
        with disk_errors(self.root):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                ignore = self.root / ".gitignore"
                if not ignore.exists():
                    ignore.write_text("*\n", encoding="utf-8")
            except PermissionError as error:
                raise InputError(
                    f"Cannot write to {self.root.parent}.", "Choose a folder of yours with --workspace."
                ) from error
        self.config: Config = load_config(self.home)
        self.store: Store = SqliteStore(
            self.root / "windlass.db", redact=Redactor(names=[self.config.model.api_key_env])
        )
        self.artifacts = Artifacts(self.root / "artifacts", self.store)
        self.runs = Runs(self.root / "runs", self.store)

    @cached_property
    def recorder(self) -> Recorder:
        return Recorder(self.store)

    def close(self) -> None:
        if "recorder" in self.__dict__:
            self.recorder.close()
        self.store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_workspace(start: Path | None = None) -> Workspace:
    """The workspace of the nearest folder, from `start` upwards, that holds `.windlass/`. Raises `NotFound`."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return Workspace(folder)
    raise NotFound(
        f"No workspace in {here} or above it.",
        "`windlass init` makes an empty one, `windlass ingest FOLDER` one of documents, `windlass demo` shows one.",
    )
