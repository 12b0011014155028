"""windlass: build, serve, apply, watch and improve generative-AI systems on your own machine.

The package is two perspectives on one workspace. `windlass.build` makes models (torch), `windlass.apply`
uses them (no torch), `windlass.serve` puts them behind an OpenAI-compatible API, and `windlass.loop`
turns what was seen in production into the next, measurably better version. Importing this module is cheap
and imports none of them; `windlass.task` and its companions come from `windlass.apply.tasks` when they are first named,
and so does `windlass.evaluation`, which makes tests of tasks.
"""

from __future__ import annotations

__all__ = ["Absent", "Example", "Quote", "evaluation", "task"]

TYPE_CHECKING = False  # as `typing` has it, which is not worth its import here
if TYPE_CHECKING:
    from typing import Any

    from windlass.apply.tasks import Absent, Example, Quote, task
    from windlass.core.version import __version__ as __version__
    from windlass.loop.evaluating.asserting import evaluation


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from windlass.core.version import __version__

        return __version__
    if name == "evaluation":
        from windlass.loop.evaluating.asserting import evaluation

        return evaluation
    if name in __all__:
        from windlass.apply import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module 'windlass' has no attribute '{name}'")
