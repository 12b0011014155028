"""What a task finds around it: who answers when it names no model of its own, and where its calls are recorded.

By default that is the workspace above the current folder, or none: then calls are not stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.apply.tasks.running import Model
from windlass.apply.wrappers.answers import Answers, answers_path
from windlass.apply.wrappers.ledger import Ledger, ledger_path
from windlass.core.errors import ConfigError, NotFound
from windlass.core.trace import Recorder

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace

Resolver = Callable[[str], Model]


class Surroundings:
    """`resolve` makes a model of a name; models are made once and kept."""

    def __init__(
        self, ws: Workspace | None = None, *, recorder: Recorder | None = None, resolve: Resolver | None = None
    ) -> None:
        self.workspace = ws
        self.recorder = recorder or (Recorder(None) if ws is None else ws.recorder)
        self._resolve = resolve or self.known
        self._models: dict[str | None, Model] = {}

    @cached_property
    def answers(self) -> Answers:
        """Those that tasks with `cache=True` keep. Raises `ConfigError` without a workspace."""
        return Answers(answers_path(self._root("A cache")))

    @cached_property
    def ledger(self) -> Ledger:
        """What tasks with budgets have spent. Raises `ConfigError` without a workspace."""
        return Ledger(ledger_path(self._root("A budget")))

    @property
    def media(self) -> Path:
        """Where files that models make are kept. Raises `ConfigError` without a workspace."""
        return self._root("What a model makes") / "media"

    def _root(self, what: str) -> Path:
        if self.workspace is None:
            raise ConfigError(f"{what} is kept in a workspace, and there is none.", "Make one with `windlass init`.")
        return self.workspace.root

    def close(self) -> None:
        """Closes the files that were opened here; not the workspace."""
        for name in ("answers", "ledger"):
            if (opened := self.__dict__.pop(name, None)) is not None:
                opened.close()

    def model(self, name: str | None) -> Model:
        """Raises `ConfigError` for a name that is not known, and when no model is set up."""
        if name not in self._models:
            self._models[name] = self._default() if name is None else self._resolve(name)
        return self._models[name]

    def known(self, name: str) -> Model:
        """The model of a provider that windlass knows."""
        from windlass.apply.providers import known  # with it comes HTTP

        return known.model(name, prices=None if self.workspace is None else self.workspace.config.prices)

    def _default(self) -> Model:
        from windlass.apply.providers import known

        if self.workspace is None:
            raise ConfigError(
                "The task names no model, and there is no workspace that does.",
                'Write @task(model="provider:name"), or set [model] in windlass.toml.',
            )
        return known.from_config(self.workspace.config)


_current: ContextVar[Surroundings | None] = ContextVar("windlass_surroundings", default=None)


def here() -> Surroundings:
    return _current.get() or _found()


@contextlib.contextmanager
def surrounded(around: Surroundings) -> Iterator[Surroundings]:
    """Tasks that are called in this block find `around`."""
    token = _current.set(around)
    try:
        yield around
    finally:
        _current.reset(token)


@cache
def _found() -> Surroundings:
    from windlass.core.workspace import find_workspace  # it comes with the first call: a script may never make one

    try:
        return Surroundings(find_workspace())
    except NotFound:
        return Surroundings()
