"""Live traffic, divided: a task answers each user or session by the variant that is theirs.

Calls under way finish as they began. What a call was given stands on its trace: trial, arm, unit and propensity.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.errors import WindlassError
from windlass.core.protocols import ChatModel
from windlass.core.spans import marked
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse
from windlass.core.workspace import Workspace
from windlass.loop.releasing.assigning import arm_of
from windlass.loop.releasing.measuring import ARM, PROPENSITY, TRIAL, UNIT
from windlass.loop.releasing.releases import live_variant
from windlass.loop.releasing.trial import Followed, running


@dataclass(frozen=True, slots=True)
class Assigned:
    """Which variant a call gets, and what its trace says of that."""

    variant: str
    """Digest."""
    marks: dict[str, Any]


def assigned(ws: Workspace, task: str, unit: str, followed: Followed | None = None) -> Assigned:
    """The variant of a user or session: what is live, or the arm of the trial that runs. Without a unit a call is one
    of its own. Raises `NotFound` where nothing is released."""
    named = unit or f"call:{uuid.uuid4().hex}"
    live = live_variant(ws, task).digest
    state = running(ws, task) if followed is None else followed.running()
    if state is None or state.trial.incumbent != live:
        return Assigned(live, {UNIT: named} if unit else {})
    arm = arm_of(state.trial.id, named, state.shares)
    marks = {TRIAL: state.trial.id, ARM: arm, UNIT: named, PROPENSITY: state.shares[arm]}
    return Assigned(arm, marks)


class Routed:
    """Implements `ChatModel` by the variants of a task's releases and of the trial that runs.

    `load` makes the model of a variant. What is live is loaded at once, so that a broken variant is refused at the
    start, and what comes later when its first call comes. An arm that cannot be loaded is answered for by what is live,
    and counts for nobody.
    """

    def __init__(
        self, ws: Workspace, task: str, load: Callable[[Artifact], ChatModel], tell: Callable[[str], object] = print
    ) -> None:
        self._ws, self._task, self._load, self._tell = ws, task, load, tell
        self._lock = threading.Lock()
        self._models: dict[str, ChatModel] = {}
        self._broken: set[str] = set()
        self._followed = Followed(ws, task)
        self._live()

    @property
    def name(self) -> str:
        return self._task

    @property
    def digest(self) -> str | None:
        return self._live().digest

    @property
    def takes_access(self) -> bool:
        """Whether it searches documents, and is to be told whose (`access` in `ChatRequest.extra`)."""
        return bool(getattr(self._live(), "takes_access", False))

    def complete(self, request: ChatRequest) -> ChatResponse:
        model, marks = self._of(request)
        with marked(marks):
            return model.complete(request)

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        model, marks = self._of(request)
        deltas = model.stream(request)
        with marked(marks):  # the trace begins with the first piece
            first = next(deltas, None)
        if first is not None:
            yield first
            yield from deltas

    def _of(self, request: ChatRequest) -> tuple[ChatModel, dict[str, Any]]:
        found = assigned(self._ws, self._task, request.unit, self._followed)
        with self._lock:
            if found.variant in self._broken:
                return self._loaded(live_variant(self._ws, self._task)), {}
            try:
                return self._loaded(self._ws.artifacts.get(found.variant)), found.marks
            except WindlassError as error:
                live = live_variant(self._ws, self._task)
                if live.digest == found.variant:
                    raise
                self._broken.add(found.variant)
                self._tell(f"{found.variant[:12]} cannot be loaded, and gets no traffic: {error.message}")
                return self._loaded(live), {}

    def _live(self) -> ChatModel:
        variant = live_variant(self._ws, self._task)
        with self._lock:
            return self._loaded(variant)

    def _loaded(self, variant: Artifact) -> ChatModel:
        """Keeps what is in use: the live variant, and the arms of the trial."""
        if variant.digest not in self._models:
            state = self._followed.running()
            used = {live_variant(self._ws, self._task).digest, *(state.trial.arms if state else ())}
            self._models = {digest: model for digest, model in self._models.items() if digest in used}
            self._models[variant.digest] = self._load(variant)
        return self._models[variant.digest]
