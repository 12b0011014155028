"""The studio shows trials with their confidence sequences, any two results compared, and what was declared invalid."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.loop.releasing.traffic import TASK, serve, trial

from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.evaluate.gate import Rule
from windlass.evaluate.policy import Policy
from windlass.loop.evaluating.evaluation import store_items, store_results
from windlass.loop.evaluating.experiments import invalidate, store_experiment
from windlass.loop.evaluating.items import Item
from windlass.loop.releasing.watching import watch
from windlass.studio.app import routes

HOSTILE = "<script>document.title='owned'</script>"


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


def opened(ws: Workspace) -> TestClient:
    return TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost")


def test_a_trial_is_shown_with_its_sequences(ws: Workspace) -> None:
    state, chance = trial(ws, Policy("failed", Rule("non-inferiority", 0.05, "lower"))), random.Random(1)
    client = opened(ws)
    assert "Canary" in client.get("/releases").text, "before the first look, too"
    bad = state.trial.candidates[0]
    for step in range(6):
        users = [f"user-{step}-{n}" for n in range(40)]
        serve(ws, users, lambda arm, c: (c.random() < (0.5 if arm == bad else 0.01), 10, None), chance)
        if not watch(ws, TASK).running:
            break
    text = client.get("/releases").text
    assert "rolled back" in text and "<polygon" in text and "<polyline" in text
    assert "failed changes by" in text and "NO-GO" in text
    (band,) = re.findall(r'<polygon points="([^"]+)"', text)
    assert len({point.partition(",")[0] for point in band.split()}) > 1, "one look alone is drawn, too"


def test_a_bandit_is_shown_with_weighted_means_and_shares_over_time(ws: Workspace) -> None:
    state, chance = (
        trial(ws, Policy("failed", Rule("non-inferiority", 0.05, "lower")), kind="bandit", reward="feedback"),
        random.Random(1),
    )
    good = state.trial.candidates[0]
    for step in range(4):
        users = [f"user-{step}-{n}" for n in range(60)]
        serve(ws, users, lambda arm, c: (False, 10, float(c.random() < (0.9 if arm == good else 0.3))), chance)
        watch(ws, TASK)
    text = opened(ws).get("/releases").text
    assert "believe the weighted means" in text and "feedback, weighted" in text and "as it came" in text
    assert "Share of the users" in text and "of the users get assistant@2" in text
    assert "what must hold: failed at most 0.05 worse" in text


def results(ws: Workspace, variant: str, gain: float) -> str:
    data = store_items(ws, "tone", [Item({"review": HOSTILE}, "good")])
    rows = [
        ItemResult(
            f"i{n}", values={"equal": float((n * 7) % 10 / 10 < 0.5 + gain)}, output=f"{variant}\n{HOSTILE}",
            slices={"language": "de" if n % 2 else "en"}, input={"review": HOSTILE}, expected="good",
        )
        for n in range(100)
    ]  # fmt: skip
    return store_results(ws, "tone", Results(variant, None, data.digest, rows), data, None).digest


def test_any_two_results_are_compared(ws: Workspace) -> None:
    client = opened(ws)
    chosen = [results(ws, "old", 0.0), results(ws, "new", 0.3)]
    listed = client.get("/experiments").text
    assert "tone-results@1" in listed and "tone-results@2" in listed and "Compare two" in listed
    page = client.get("/experiments/compare", params={"results": chosen})
    assert page.status_code == 200 and "new against old" in page.text and "equal by language" in page.text
    assert HOSTILE not in page.text and "Largest gains" in page.text
    again = client.get("/experiments/compare", params={"results": chosen[::-1]}).text
    assert "new against old" in again, "the older one is the incumbent, however they were ticked"
    for wrong in ([], chosen[:1], [*chosen, chosen[0]]):
        assert client.get("/experiments/compare", params={"results": wrong}).status_code == 400
    assert client.get("/experiments/compare", params={"results": ["none", "none"]}).status_code == 404


def test_an_invalid_experiment_says_so(ws: Workspace) -> None:
    sides = [
        Results(name, None, "d", [ItemResult(f"i{n}", values={"f1": n % 5 / 5 + gain}) for n in range(100)])
        for name, gain in (("old", 0.0), ("new", 0.01))
    ]
    kept = store_experiment(ws, "tone", compare(*sides, Policy("f1")))
    client = opened(ws)
    assert "Declared invalid" not in client.get(f"/experiments/{kept.ref}").text
    invalidate(ws, kept, f"leaked {HOSTILE}", "ana")
    text = client.get(f"/experiments/{kept.ref}").text
    assert "Declared invalid by ana" in text and HOSTILE not in text
