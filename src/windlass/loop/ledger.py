"""What earlier calls of a long job finished, so that the same command goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.workspace import Workspace


class Ledger:
    """Finished steps of the job `key`, in the workspace's store. `fresh` tells whether the last step ran just now."""

    def __init__(self, ws: Workspace, key: str) -> None:
        self._ws = ws
        self._fact = f"ledger:{key}"
        self._done: dict[str, Any] = ws.store.get(self._fact) or {}
        self.fresh = False

    def artifact(self, step: str, make: Callable[[], Artifact]) -> Artifact:
        """The artifact that this step made before, or the one that `make` makes now."""
        digest = self._done.get(step)
        known = self._ws.artifacts.find(digest) if digest is not None else None
        self.fresh = known is None
        if known is None:
            known = make()
            self.note(step, known.digest)
        return known

    def has(self, step: str) -> bool:
        return step in self._done

    def get(self, step: str, otherwise: Any = None) -> Any:
        """What was kept for this step."""
        return self._done.get(step, otherwise)

    def items(self) -> list[tuple[str, Any]]:
        """All steps with what was kept for them, in their order."""
        return list(self._done.items())

    def value(self, step: str, make: Callable[[], Any]) -> Any:
        """The JSON value that this step gave before, or what `make` gives now."""
        self.fresh = step not in self._done
        if self.fresh:
            self.note(step, make())
        return self._done[step]

    def note(self, step: str, value: Any) -> None:
        """Keeps a JSON value for this step, in the place of an earlier one."""
        self._done[step] = value
        self._ws.store.set(self._fact, self._done)
