"""Typed AI functions. Importing this is cheap: pydantic, HTTP and the workspace come with the first call."""

from windlass.apply.tasks.forms.absent import Absent
from windlass.apply.tasks.forms.citing import Quote, Verbatim
from windlass.apply.tasks.functions import Task, task
from windlass.apply.tasks.outcome import Attempt, NoAnswer, Outcome, Refused
from windlass.apply.tasks.prompt import Example
from windlass.apply.tasks.settings import Settings
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget, OverBudget

__all__ = [
    "Absent", "Attempt", "Budget", "Example", "NoAnswer", "Outcome", "OverBudget", "Quote", "Refused", "Settings",
    "Surroundings", "Task", "Verbatim", "surrounded", "task",
]  # fmt: skip
