"""Where the adapters lie that clients may have loaded: a path from outside must not reach any other file.

Allowed are the workspace's own adapters, by reference, and what lies in the folders that the server's owner named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from windlass.core.artifacts import Artifacts
from windlass.core.errors import InputError
from windlass.serve.errors import HttpError


class AdapterFolders:
    def __init__(self, folders: Sequence[Path] = (), artifacts: Artifacts | None = None) -> None:
        """Raises `InputError` naming a folder that is none."""
        for folder in folders:
            if not folder.is_dir():
                raise InputError(f"{folder} is not a folder.", "Name the folder in which the adapters' folders lie.")
        self._folders = [folder.resolve() for folder in folders]
        self._artifacts = artifacts

    def find(self, named: str) -> Path:
        """The folder that a client means: an artifact's `name@version`, or a path, absolute or below an allowed folder.

        Raises `HttpError` (403) for a path elsewhere, whether or not there is anything, and where links lead there.
        """
        artifact = None if self._artifacts is None else self._artifacts.find(named)
        if artifact is not None and artifact.kind == "adapter":
            return artifact.path
        try:
            paths = [(root, (root / named).resolve()) for root in self._folders]
            inside = [path for root, path in paths if path.is_relative_to(root)]
            found = next((path for path in inside if path.is_dir()), None)
        except (OSError, ValueError) as error:  # a loop of links, a zero byte, a name longer than the disk allows
            raise InputError(f"'{named[:100]}' is not a path ({error}).") from error
        if not inside:
            raise HttpError(
                403,
                f"'{named[:200]}' is neither an adapter of the workspace nor in a folder from which this server loads.",
                "Its owner allows one with: windlass serve … --adapters-dir FOLDER",
                code="path_not_allowed",
                param="lora_path",
            )
        if found is None:
            raise InputError(f"There is no folder '{named[:200]}'.", "Check 'lora_path'.")
        return found
