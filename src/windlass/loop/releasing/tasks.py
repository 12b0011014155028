"""Typed tasks and their releases: the prompt that a user or session gets, and what a trial learns from its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from windlass.apply.prompts import artifact as prompts
from windlass.apply.tasks.functions import Task
from windlass.core.spans import marked
from windlass.core.workspace import Workspace
from windlass.loop.releasing.routing import assigned

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def released(ws: Workspace, task: Task[P, R], unit: str) -> Iterator[Task[P, R]]:
    """The task with the prompt that it serves to this user or session; calls in the block count for the trial.

        with released(ws, tone, user) as mine:
            print(mine("Lovely hinges."))

    Raises `NotFound` where no prompt of the task is live.
    """
    found = assigned(ws, task.__name__, unit)
    prompt = prompts.prompt_of(ws, ws.artifacts.get(found.variant))
    said: Any = task.using(prompt=prompt.ref)
    with marked(found.marks):
        yield said
