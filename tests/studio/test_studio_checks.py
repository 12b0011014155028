"""The page of an experiment draws every check of its gate, and leads from an item to its traces."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.regressions import changes
from windlass.evaluate.experiments.results import JUDGES, ItemResult, Results
from windlass.evaluate.gate import Limit, Rule, equivalence, non_inferiority, superiority
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.judges.trust import Trust
from windlass.evaluate.policy import Policy, SliceRule
from windlass.loop.evaluating.experiments import store_experiment
from windlass.studio.app import routes
from windlass.studio.checks import checks

POLICY = Policy(
    "f1",
    superiority(),
    {
        "latency_ms": Rule("non-inferiority", 0.2, "lower", statistic="p95", relative=True),
        "tokens": equivalence(4.0),
        "equal": non_inferiority(0.1),
    },
    (Limit("cost_usd", at_most=0.01), Limit("latency_ms", at_most=90.0, statistic="p95"), Limit("equal", at_least=0.5)),
    SliceRule(("language",), margin=0.05),
)


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def results(ws: Workspace, variant: str, gain: float, **more: object) -> Results:
    items = []
    for n in range(120):
        with ws.recorder.span("evaluate tone", **{"windlass.evaluation": variant}) as span:
            pass
        values = {
            "f1": (n % 5) / 5 + gain * (n % 3 > 0), "equal": float(n % 4 > 0), "tokens": 9.0 + n % 2,
            "latency_ms": 40.0 + n % 17, "cost_usd": 0.001,
        }  # fmt: skip
        slices = {"language": ("de", "en")[n % 2], "size": ("s", "m", "l")[n % 3]}
        said = {"output": f"{variant} {n}", "input": f"asked {n}", "trace": span.trace_id}
        items.append(ItemResult(f"i{n}", values=values, slices=slices, **said))
    ws.recorder.flush()
    return Results(variant, None, "d", tuple(items), **more)  # type: ignore[arg-type]


def test_every_check_is_drawn_with_its_line(ws: Workspace) -> None:
    made = compare(results(ws, "old", 0.0), results(ws, "new", 0.1), POLICY)
    found = checks(made)
    assert [one.title for one in found] == [
        "f1", "p95 of latency in ms", "tokens", "equal", "cost_usd", "p95 of latency in ms", "equal", "f1 by language",
    ]  # fmt: skip
    assert [one.decision for one in found] == [part.decision for _, part in made.verdict.checks]
    assert [len(one.panels) for one in found] == [2, 0, 2, 2, 1, 1, 1, 1]
    assert "p95 of latency_ms" in found[1].why, "too few items for a bootstrap of this quantile"
    drawn = [one for one in found if one.panels]
    parts = [part for _, part in made.verdict.checks]
    for one, part in zip(drawn[:-1], [parts[0], *parts[2:]]):
        assert one.panels[-1].lines[0].interval == part.interval, "what it was decided on"
    marks = [one.panels[-1].marks for one in drawn]
    assert marks == [(0.0,), (-4.0, 4.0), (-0.1,), (0.01,), (90.0,), (0.5,), (-0.05,)]
    assert [line.label for line in found[-1].panels[0].lines] == ["de", "en"]
    stored = store_experiment(ws, "tone", made)
    with TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost") as client:
        page = client.get(f"/experiments/{stored.ref}").text
        for one in found:
            assert f">{one.title} <span" in page and one.claim in page
        assert page.count('class="mark"') == 9 and found[1].why in html.unescape(page)
        assert "f1 by size" in page and page.count("f1 by language") == 1
        traces = [one.trace for one in changes(made)[-1].shown]
        assert all(f'href="/traces/{trace}"' in page for trace in traces) and len(traces) == 2
        assert client.get(f"/traces/{traces[0]}").status_code == 200
        listed = client.get("/traces").text, client.get("/traces?calls=evaluations").text
        assert "evaluate tone" not in listed[0] and "evaluate tone" in listed[1]


def test_where_nothing_was_decided_what_is_known_is_drawn(ws: Workspace) -> None:
    old, new = results(ws, "old", 0.0), results(ws, "new", 0.1)
    failed = (ItemResult(one.item, errors={"f1": "raised"}) for one in new.items[:20])
    broken = Results("new", None, "d", (*failed, *new.items[20:]))
    made = compare(old, broken, POLICY)
    assert made.verdict.decision == "INCONCLUSIVE" and not made.verdict.checks
    found = checks(made)
    assert {one.decision for one in found} == {"INCONCLUSIVE"} and "f1" in [one.title for one in found]


def test_a_judge_that_was_never_calibrated_is_called_so_on_the_page(ws: Workspace) -> None:
    criterion = Criterion("good", "Good?", (Level("no", 0.0), Level("yes", 1.0)))
    judge = Judge("equal", "Be strict.", criteria=(criterion,))
    known = {JUDGES: {"equal": Trust(judge, criterion, None).to_json()}}
    sides = [results(ws, name, gain, made_with=known) for name, gain in (("old", 0.0), ("new", 0.1))]
    stored = store_experiment(ws, "tone", compare(*sides, Policy("f1")))
    with TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost") as client:
        assert "equal is what a judge says, never calibrated" in client.get(f"/experiments/{stored.ref}").text
