"""Typed tasks serve each user the prompt that is theirs, and their calls count for the trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from windlass.apply.prompts import Prompt, artifact
from windlass.apply.tasks import Surroundings, surrounded, task
from windlass.cli.main import main
from windlass.core.errors import NotFound
from windlass.core.workspace import Workspace
from windlass.loop.releasing.counting import Count, seen
from windlass.loop.releasing.tasks import released
from windlass.loop.releasing.trial import must_run
from windlass.testing import Scripted


@task
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


def test_users_keep_their_prompt_and_their_calls_are_counted(ws: Workspace) -> None:
    with pytest.raises(NotFound, match="Nothing is released"), released(ws, tone, "ana"):
        pass
    artifact.label(ws, artifact.add(ws, "tone", Prompt("Say how.")), "tone", "live")
    artifact.add(ws, "tone", Prompt("Say how, kindly."))
    assert main(["canary", "start", "tone", "tone@2", "--share", "0.5", "--workspace", str(ws.home)]) == 0
    model = Scripted(*[{"value": "good"}] * 80)
    told: dict[str, set[str]] = {}
    for user in [f"user-{n}" for n in range(20)] * 2:
        with released(ws, tone.using(model=model), user) as mine:
            assert mine("Lovely.") == "good"
        told.setdefault(user, set()).add(model.last.messages[0].text)
    assert all(len(texts) == 1 for texts in told.values()), "always the same"
    kind = {user for user, texts in told.items() if "kindly" in next(iter(texts))}
    assert 3 <= len(kind) <= 17
    trial = must_run(ws, "tone").trial
    assert sum(seen(ws, trial).calls.values()) == 40
    with Count(ws, trial) as count:
        assert set(count.column(trial.candidates[0], "failed")) == kind
