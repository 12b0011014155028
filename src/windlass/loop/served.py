"""What a task serves, followed while a server runs: a promotion or a rollback takes effect with the next question."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from windlass.core.protocols import ChatModel
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse
from windlass.core.workspace import Workspace
from windlass.loop.release import live_variant


class Served:
    """Implements `ChatModel` by the variant that is live when a call begins; calls under way finish as they began.

    `load` makes the model of what is live. It is called at once, so that a broken variant is refused at the start, and
    again after every change of release.
    """

    def __init__(self, ws: Workspace, task: str, load: Callable[[], ChatModel]) -> None:
        self._ws = ws
        self._task = task
        self._load = load
        self._lock = threading.Lock()
        self._model = load()

    @property
    def name(self) -> str:
        return self._task

    @property
    def digest(self) -> str | None:
        return self._current().digest

    @property
    def takes_access(self) -> bool:
        """Whether it searches documents, and is to be told whose (`access` in `ChatRequest.extra`)."""
        return bool(getattr(self._current(), "takes_access", False))

    def complete(self, request: ChatRequest) -> ChatResponse:
        return self._current().complete(request)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        return self._current().stream(request)

    def _current(self) -> ChatModel:
        with self._lock:
            if live_variant(self._ws, self._task).digest != self._model.digest:
                self._model = self._load()
            return self._model
