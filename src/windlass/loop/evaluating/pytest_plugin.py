"""pytest shows evaluations as what they are: a report instead of a traceback, and a table at the end.

Registered by the entry point `pytest11`. Where no test is an evaluation it loads nothing and does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from windlass.loop.evaluating.asserting import Evaluation

_ATTRIBUTE = "windlass_evaluation"
"""As in `asserting`, which is not imported for tests that are no evaluations."""
_DONE = pytest.StashKey["list[Evaluation]"]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    outcome = yield
    told: Evaluation | None = getattr(getattr(item, "function", None), _ATTRIBUTE, None)
    if told is None or call.when != "call":
        return
    from windlass.core.errors import WindlassError

    report = outcome.get_result()
    if call.excinfo is not None and isinstance(call.excinfo.value, WindlassError):  # a file that is not there, say
        report.longrepr = str(call.excinfo.value)
    if told.verdict is None:
        return
    item.config.stash.setdefault(_DONE, []).append(told)
    interval = told.verdict.interval
    item.user_properties.append(("windlass.verdict", told.verdict.decision))
    if interval is not None:
        item.user_properties.append((f"windlass.{told.metric}", f"{interval}"))
    if call.excinfo is not None and call.excinfo.typename == "NotShown":
        report.longrepr = told.report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    done = config.stash.get(_DONE, [])
    if not done:
        return
    terminalreporter.section("evaluations")
    width = max(len(told.name) for told in done)
    for told in done:
        assert told.verdict is not None
        shown = "" if told.verdict.interval is None else f"  {told.metric} {told.verdict.interval}"
        terminalreporter.write_line(
            f"{told.name:<{width}}  {told.verdict.decision:<12}{shown}, at least {told.at_least:g} is asked for"
        )
