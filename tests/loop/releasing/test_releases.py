"""Promotion and rollback: what is live, what comes before it, and what a killed process leaves."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound, WorkspaceBusy
from windlass.core.records import ReleaseRecord
from windlass.core.workspace import Workspace
from windlass.loop.releasing import releases


def variant(ws: Workspace, name: str, kind: str = "variant") -> Artifact:
    with ws.artifacts.build(kind, name) as draft:
        (draft.path / "variant.json").write_text(f'"{name}"')
    return draft.done


def experiment(ws: Workspace, incumbent: Artifact, candidate: Artifact) -> Artifact:
    with ws.artifacts.build("experiment", "comparison") as draft:
        (draft.path / "experiment.json").write_text("{}")
        draft.add_parent("incumbent", incumbent)
        draft.add_parent("candidate", candidate)
    return draft.done


@pytest.fixture
def ws(tmp_path: Path):
    with Workspace(tmp_path) as workspace:
        yield workspace


def test_first_promotion_is_live(ws: Workspace) -> None:
    assert releases.live(ws, "assistant") is None
    with pytest.raises(NotFound, match="Nothing is released"):
        releases.live_variant(ws, "assistant")
    first = variant(ws, "a")
    row = releases.promote(ws, "assistant", first, None, "the first")
    assert row.previous is None
    assert row.action == "promote"
    assert releases.live_variant(ws, "assistant").digest == first.digest
    assert releases.live(ws, "another") is None


def test_promotion_names_its_experiment_and_repeats_harmlessly(ws: Workspace) -> None:
    a, b = variant(ws, "a"), variant(ws, "b")
    releases.promote(ws, "assistant", a, None, "first")
    exp = experiment(ws, a, b)
    one = releases.promote(ws, "assistant", b, exp, "better")
    again = releases.promote(ws, "assistant", b, exp, "better")
    assert one == again
    assert one.experiment == exp.digest
    assert len(releases.history(ws, "assistant")) == 2


def test_what_cannot_be_promoted(ws: Workspace) -> None:
    a, b, c = (variant(ws, name) for name in "abc")
    releases.promote(ws, "assistant", a, None, "first")
    with pytest.raises(InputError, match="only a variant"):
        releases.promote(ws, "assistant", variant(ws, "model", "model"), None, "no")
    with pytest.raises(InputError, match="serves already"):
        releases.promote(ws, "assistant", a, experiment(ws, b, a), "no")
    with pytest.raises(InputError, match="did not measure"):
        releases.promote(ws, "assistant", c, experiment(ws, a, b), "no")
    with pytest.raises(InputError, match="no longer serves"):
        releases.promote(ws, "assistant", c, experiment(ws, b, c), "no")
    assert len(releases.history(ws)) == 1


def test_rollback_walks_back_and_then_refuses(ws: Workspace) -> None:
    with pytest.raises(NotFound):
        releases.rollback(ws, "assistant")
    a, b, c = (variant(ws, name) for name in "abc")
    for one in (a, b, c):
        releases.promote(ws, "assistant", one, None, "next")
    assert releases.rollback(ws, "assistant").variant == b.digest
    row = releases.rollback(ws, "assistant", "still worse")
    assert (row.variant, row.previous, row.reason) == (a.digest, b.digest, "still worse")
    with pytest.raises(InputError, match="nothing before it"):
        releases.rollback(ws, "assistant")
    releases.promote(ws, "assistant", c, None, "again")
    assert releases.rollback(ws, "assistant").variant == a.digest  # not to b, which was rolled back


def test_rollback_refuses_a_lost_variant(ws: Workspace) -> None:
    a, b = variant(ws, "a"), variant(ws, "b")
    releases.promote(ws, "assistant", a, None, "first")
    releases.promote(ws, "assistant", b, None, "second")
    a.path.rename(a.path.with_name("lost"))
    with pytest.raises(Exception, match="files of a@1 are missing"):
        releases.rollback(ws, "assistant")
    assert releases.live_variant(ws, "assistant").digest == b.digest


def test_a_change_in_between_is_noticed(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (variant(ws, name) for name in "abc")
    stale = [releases.promote(ws, "assistant", a, None, "first")]
    releases.promote(ws, "assistant", b, None, "the other process")
    monkeypatch.setattr(releases, "live", lambda *_: stale[0])
    with pytest.raises(WorkspaceBusy):
        releases.promote(ws, "assistant", c, None, "too late")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["promote", "rollback"]), max_size=30))
def test_replayed_stack_is_the_live_variant(actions: list[str]) -> None:
    """Against the obvious model, a list: the top of the stack is always the newest row's variant."""
    model: list[str] = []
    rows: list[ReleaseRecord] = []
    for number, action in enumerate(actions):
        if action == "promote":
            model.append(f"v{number}")
        elif len(model) > 1:
            model.pop()
        else:
            continue
        rows.insert(0, ReleaseRecord(number, "t", model[-1], None, action, "", None, 0.0))  # type: ignore[arg-type]
        assert releases.served(rows) == model
        assert releases.served(rows)[-1] == rows[0].variant


PROMOTER = """
import sys
from pathlib import Path
from windlass.core.workspace import Workspace
from windlass.loop.releasing import releases
with Workspace(Path(sys.argv[1])) as ws:
    a, b = ws.artifacts.get("a"), ws.artifacts.get("b")
    print("ready", flush=True)
    while True:
        releases.promote(ws, "assistant", b, None, "forth")
        releases.rollback(ws, "assistant", "and back")
"""


def test_kill_during_promotions_leaves_a_whole_history(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        a, b = variant(ws, "a"), variant(ws, "b")
        releases.promote(ws, "assistant", a, None, "first")
    for pause in (0.01, 0.05, 0.12):
        process = subprocess.Popen(
            [sys.executable, "-c", PROMOTER, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Workspace(tmp_path) as ws:
            rows = releases.history(ws, "assistant")
            assert releases.served(rows)[-1] == rows[0].variant
            assert {row.variant for row in rows} <= {a.digest, b.digest}
            for newer, older in itertools.pairwise(rows):
                assert newer.previous == older.variant
            if rows[0].variant == b.digest:
                releases.rollback(ws, "assistant", "tidy up")
    with Workspace(tmp_path) as ws:
        assert len(releases.history(ws, "assistant")) > 1
