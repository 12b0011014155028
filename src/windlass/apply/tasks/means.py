"""With what a task asks its model: inside its window, within its budgets, and once for the same question.

A kept answer is looked for first, as it costs nothing; then the budgets are asked; then the window. Local models refuse
what does not fit them by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from windlass.apply.tasks.running import Model
from windlass.apply.tasks.surroundings import Surroundings
from windlass.apply.wrappers.answers import Answers
from windlass.apply.wrappers.budget import Budget, Budgeted
from windlass.apply.wrappers.cached import Cached
from windlass.apply.wrappers.fitting import Fitting, window_of
from windlass.apply.wrappers.wrapper import counts_tokens, innermost
from windlass.core.windows import Window


def supplied(
    model: Model, around: Surroundings, task: str, cache: bool | Answers, budget: Budget | Sequence[Budget]
) -> Model:
    """The model of the task of that name, with what its settings ask for. Raises `ConfigError` when that needs a
    workspace and there is none."""
    windows: Mapping[str, Window] | None = None if around.workspace is None else around.workspace.config.windows
    if not counts_tokens(innermost(model)) and (window := window_of(model, windows)) is not None:
        model = Fitting(model, window=window)
    if budgets := [budget] if isinstance(budget, Budget) else budget:
        named = [one if one.name else replace(one, name=f"task {task}") for one in budgets]
        model = Budgeted(model, named, around.ledger)
    if cache is not False:
        model = Cached(model, around.answers if cache is True else cache)
    return model
