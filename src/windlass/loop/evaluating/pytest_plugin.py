"""pytest shows evaluations as what they are: a report instead of a traceback, and a table at the end.

Registered by the entry point `pytest11`. Where no test is an evaluation it loads nothing and does nothing.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from windlass.loop.evaluating.asserting import Evaluation

_ATTRIBUTE = "windlass_evaluation"
"""As in `asserting`, which is not imported for tests that are no evaluations."""


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
    interval = told.verdict.interval
    shown = "" if interval is None else f"  {told.metric} {interval}"
    # On the report, as with pytest-xdist it is another process that prints the table.
    report.windlass_row = [told.name, f"{told.verdict.decision:<12}{shown}, at least {told.at_least:g} is asked for"]
    item.user_properties.append(("windlass.verdict", told.verdict.decision))
    if interval is not None:
        item.user_properties.append((f"windlass.{told.metric}", f"{interval}"))
    if call.excinfo is not None and call.excinfo.typename == "NotShown":
        report.longrepr = told.report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [one for one in chain(*terminalreporter.stats.values()) if hasattr(one, "windlass_row")]
    if not reports:
        return
    terminalreporter.section("evaluations")
    width = max(len(one.windlass_row[0]) for one in reports)
    for one in sorted(reports, key=lambda report: report.start):
        name, found = one.windlass_row
        terminalreporter.write_line(f"{name:<{width}}  {found}")
