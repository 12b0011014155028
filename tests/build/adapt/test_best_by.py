"""The figure that a run goes by: what stops it early, which weights are kept, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encoder_rows import asked, rows_for, written
from encoder_world import save_encoder

from windlass.build.adapt.objectives import classification
from windlass.build.adapt.objectives.figures import Figures
from windlass.build.adapt.sections import TuneRunSettings, TuneScheduleSettings
from windlass.build.adapt.tuning import tune
from windlass.build.training.measuring.standing import standing
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


def tuned(folder: Path, run: TuneRunSettings, said: list[str]) -> Artifact:
    save_encoder(folder / "base", "Bert", "Model")
    rows = written(folder / "rows.jsonl", rows_for("classify"))
    settings = asked(folder / "base", rows, "classify", run=run, schedule=TuneScheduleSettings(steps=8))
    with Workspace(folder) as ws:
        return tune(ws, settings, say=said.append)


@pytest.mark.parametrize(
    ("by", "patience", "kept", "seen"),
    [(None, None, 8, 4), ("macro_f1", None, 4, 4), ("heldout_macro_f1", 1, 4, 3), ("loss", 1, 8, 4)],
)
def test_the_best_and_the_last_measurement_go_by_what_counts(tmp_path, monkeypatch, by, patience, kept, seen):
    """A loss that falls on while the F1 has its best behind it."""
    scores = iter([0.5, *([] if by is None else [0.5]), 0.6, 0.9, 0.7, 0.8, 0.9])
    losses = iter(np.linspace(2.0, 1.0, 7))
    monkeypatch.setattr(
        classification, "judged", lambda *_: Figures(float(next(losses)), {"macro_f1": next(scores)}, "scripted")
    )
    said: list[str] = []
    run = TuneRunSettings(compile="no", evaluate_steps=2, keep_best=True, patience=patience, best_by=by)
    assert tuned(tmp_path, run, said).card["steps"] == kept
    assert sum(line.startswith("  step ") for line in said) == seen


def test_a_figure_that_is_not_measured_is_refused_before_the_first_step(tmp_path):
    run = TuneRunSettings(compile="no", evaluate_steps=2, patience=1, best_by="rouge")
    with pytest.raises(InputError, match=r"run\.best_by is 'rouge'") as caught:
        tuned(tmp_path, run, [])
    assert "accuracy, loss, macro_f1" in caught.value.hint
    with Workspace(tmp_path) as ws:
        (record,) = ws.runs.list("tune")
        assert not [point for point in ws.store.metrics(record.id) if point.name == "train_loss"]


def test_smaller_is_better_whatever_the_figure():
    metrics = {"heldout_loss": 2.0, "heldout_reward": 0.25, "heldout_bytes": 7.0, "heldout_f1": float("nan")}
    assert [standing(metrics, by) for by in ("loss", "heldout_reward", "f1")] == [2.0, -0.25, float("inf")]
    with pytest.raises(InputError, match="'bytes', by which no model is better"):
        standing(metrics, "bytes")
