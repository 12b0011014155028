"""A search keeps the best of its trials, gives up on bad ones, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt import searching
from windlass.build.adapt.rl.rollouts import PlainRollouts
from windlass.build.adapt.searching import default_ranges, search
from windlass.core.errors import ConfigError, InputError
from windlass.core.workspace import Workspace

pytest.importorskip("optuna", reason="a search needs windlass[search]")

RATES = {"optimizer.matrix_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "adapter.rank": {"choices": [2, 4]}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = make_home(tmp_path_factory.mktemp("home"))
    write_rows(home / "rows.jsonl", echoes(60))
    return home


def test_the_best_trial_is_kept_and_all_are_runs(home: Path) -> None:
    said: list[str] = []
    settings = asked(home / "rows.jsonl", **ranged("all"))
    with Workspace(home) as ws:
        found = search(ws, settings, 5, say=said.append)
        assert len(found.rows) == 5 and found.rows[0][0].isdigit()
        losses = [float(row[3]) for row in found.rows if row[3] != "given up"]
        assert losses == sorted(losses)
        assert found.best.card["heldout_loss"] == pytest.approx(losses[0], abs=1e-4)
        assert len([run for run in ws.runs.list("tune") if run.name == "all"]) == 5
        (record,) = [run for run in ws.runs.list("search") if run.name == "all"]
        assert record.status == "done"
        assert ws.store.metrics(record.id, "best_loss")[-1].value == found.best.card["heldout_loss"]
    assert "  adapter.rank: one of 2, 4" in said
    assert "held-out loss" in found.render()


def test_trials_are_compared_by_what_the_run_goes_by(home: Path) -> None:
    settings = asked(home / "rows.jsonl", **ranged("right"), run__best_by="accuracy")
    with Workspace(home) as ws:
        found = search(ws, settings, 3, say=lambda line: None)
        figures = [float(row[3]) for row in found.rows if row[3] != "given up"]
        assert figures == sorted(figures, reverse=True)
        assert found.best.card["heldout_accuracy"] == pytest.approx(figures[0], abs=1e-4)
        (record,) = [run for run in ws.runs.list("search") if run.name == "right"]
        assert ws.store.metrics(record.id, "best_accuracy")[-1].value == found.best.card["heldout_accuracy"]
    assert found.headers[3] == "held-out accuracy"


def test_a_search_that_was_stopped_goes_on_with_the_same_trials(home: Path) -> None:
    with Workspace(home) as ws:
        straight = search(ws, asked(home / "rows.jsonl", **ranged("straight")), 3, say=lambda line: None)
        settings = asked(home / "rows.jsonl", **ranged("stopped"))

        def stop(line: str) -> None:
            if line.startswith("trial 2"):  # before its first step: the trial is known and has no run yet
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(ws, settings, 3, say=stop)
        again = search(ws, settings, 3, say=lambda line: None)
    assert [row[1:4] for row in again.rows] == [row[1:4] for row in straight.rows]


def test_a_search_that_came_to_its_end_is_extended(home: Path) -> None:
    """With the very trials that it would have made at once, and without making the first ones again."""
    with Workspace(home) as ws:
        straight = search(ws, asked(home / "rows.jsonl", **ranged("at-once")), 3, say=lambda line: None)
        settings = asked(home / "rows.jsonl", **ranged("extended"))
        search(ws, settings, 2, say=lambda line: None)
        said: list[str] = []
        again = search(ws, settings, 3, say=said.append)
        assert (
            "  goes on from 2 trials" in said
            and len([run for run in ws.runs.list("tune") if run.name == "extended"]) == 3
        )
        assert search(ws, settings, 1, say=said.append).rows == again.rows  # fewer than there are: as it stands
    assert [row[1:4] for row in again.rows] == [row[1:4] for row in straight.rows]


def test_trials_of_reinforcement_learning_are_answered_by_the_engine_that_serves(home: Path) -> None:
    path = write_rows(home / "sums.jsonl", [{"question": f"red {n}", "answer": f"{n}"} for n in range(8)])
    more = {"rl__rewards": ["number"], "rl__answer_tokens": 3, "rl__group": 2, "schedule__steps": 2}
    settings = asked(path, **(ranged("answered") | more), objective__kind="grpo")
    asked_of: list[int] = []

    class Counted(PlainRollouts):
        def sample(self, prompts: Any, seeds: Any) -> Any:
            asked_of.append(len(prompts))
            return super().sample(prompts, seeds)

    with Workspace(home) as ws:
        search(ws, settings, 1, rollouts=Counted, say=lambda line: None)
    assert asked_of


def test_a_trial_worse_than_the_median_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody to compare with but one: a rate that learns nothing, after one that does."""
    monkeypatch.setattr(searching, "_UNPRUNED", 1)
    rates = iter((1e-2, 1e-7))

    def at(trial: Any, name: str, value: float) -> float:
        found: float = trial.suggest_float(name, value, value)
        return found

    monkeypatch.setattr(searching, "_suggested", lambda trial, name, one: at(trial, name, next(rates)))
    changes = ranged("pruned") | {"search": {"optimizer.matrix_rate": {"low": 1e-7, "high": 1e-2}}}
    said: list[str] = []
    with Workspace(home) as ws:
        found = search(ws, asked(home / "rows.jsonl", **changes), 2, say=said.append)
        failed = [run.message for run in ws.runs.list("tune") if run.name == "pruned" and run.status == "failed"]
    assert [row[2] for row in found.rows][1] == "given up"
    assert "worse than the median" in failed[0]
    assert any("given up: at step 5" in line for line in said)


def test_what_cannot_be_searched_is_refused_before_the_first_trial(home: Path) -> None:
    rows = home / "rows.jsonl"
    with Workspace(home) as ws:
        before = len(ws.runs.list())
        for name, one, message in (
            ("adapter.rnk", {"low": 1, "high": 4}, r"unknown key 'adapter\.rnk'"),
            ("adapter.rank", {"low": 0.5, "high": 4.0}, r"'adapter\.rank' is 0\.5, but must be a whole number"),
            ("adapter.kind", {"choices": ["lora", "glue"]}, "'glue'"),
        ):
            with pytest.raises(ConfigError, match=message):
                search(ws, asked(rows, search={name: one}), 2, say=lambda line: None)
        with pytest.raises(InputError, match=r"adapter\.rank is 0"):
            search(ws, asked(rows, search={"adapter.rank": {"low": 0, "high": 4}}), 2, say=lambda line: None)
        with pytest.raises(InputError, match="the schedule goes by the clock"):
            timed = asked(rows, schedule__steps=None, schedule__minutes=1)
            search(ws, timed, 2, say=lambda line: None)
        with pytest.raises(InputError, match="0 trials"):
            search(ws, asked(rows), 0, say=lambda line: None)
        assert len(ws.runs.list()) == before
    with pytest.raises(InputError, match="goes from 4 to 1"):
        asked(rows, search={"adapter.rank": {"low": 4, "high": 1}})


def test_default_ranges_fit_what_is_tuned(home: Path) -> None:
    assert set(default_ranges(asked("x"))) == {"optimizer.matrix_rate", "adapter.rank"}
    assert set(default_ranges(asked("x", adapter__kind="none", schedule__steps=None))) == {
        "optimizer.matrix_rate",
        "data.epochs",
    }


def ranged(name: str) -> dict[str, object]:
    return {"search": RATES, "run__name": name, "schedule__steps": 10, "run__evaluate_steps": 5}
