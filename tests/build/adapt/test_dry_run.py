"""The dry run of a tuning: what it tells follows from what it measured, and it leaves everything as it was."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from encoder_rows import asked, rows_for, written
from encoder_world import save_encoder
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt import checking
from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled
from windlass.build.adapt.data.texts import Example, TextExamples, Tokens
from windlass.build.adapt.sections import AdapterSettings, TuneScheduleSettings
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    save_encoder(home / "bert", "Bert", "Model")
    written(home / "rows.jsonl", rows_for("classify", 40))
    return home


def settings_of(home: Path, **changes: Any) -> TuneSettings:
    return asked(home / "bert", home / "rows.jsonl", "classify", **changes)


def checked(home: Path, workers: int = 1, **changes: Any) -> tuple[Any, dict[str, tuple[str, str]]]:
    with Workspace(home) as ws:
        found = check_tuning(ws, open_uncompiled(ws, settings_of(home, **changes)), workers, say=lambda line: None)
    return found, {name: (value, told) for name, value, told in found.rows}


def test_nothing_is_trained_and_nothing_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    prepare = OBJECTIVES["classify"]

    def watched(opened: Any) -> Any:
        made.append(prepared := prepare(opened))
        made.append({name: one.detach().clone() for name, one in prepared.model.named_parameters()})
        return prepared

    monkeypatch.setitem(OBJECTIVES, "classify", watched)  # type: ignore[arg-type]
    found, rows = checked(home)
    prepared, before = made
    assert found.fits and all((one == before[name]).all() for name, one in prepared.model.named_parameters())
    assert all(one.grad is None for one in prepared.model.parameters())
    count = sum(one.numel() for one in before.values())
    assert rows["parameters trained"] == (f"{count:,}", f"of {count:,}, 100.00%")
    assert rows["step"][0] == "8 rows" and rows["training"][0] == "3 steps"
    with Workspace(home) as ws:
        assert not ws.runs.list("tune") and not ws.store.artifacts("model")


def test_what_does_not_fit_is_told_and_not_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "available", lambda: 1)
    found, rows = checked(home)
    assert not found.fits and rows["time"] == ("not measured", "it does not fit") and "memory measured" not in rows
    monkeypatch.setattr(checking, "available", lambda: None)  # a machine that does not tell
    found, rows = checked(home)
    assert found.fits and "does not tell" in rows["memory in all"][1]


def test_a_full_disk_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(home)[0].fits
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
    found, rows = checked(home)
    assert not found.fits and rows["disk"][1].startswith("0 MB free")


def test_several_workers_take_several_times_the_memory(home: Path) -> None:
    one, two = (checked(home, workers)[1] for workers in (1, 2))
    sizes = [int(rows["memory in all"][0].split()[0].replace(",", "")) for rows in (one, two)]
    assert sizes[1] > 1.5 * sizes[0] and "for 2 workers" in two["memory in all"][1]
    assert two["step"][1] == "4 at a time, 2 at work"


def test_an_adapter_alone_needs_less_disk_and_a_time_is_a_time(home: Path) -> None:
    minutes = TuneScheduleSettings(steps=None, minutes=2.0)
    lora = AdapterSettings("lora", rank=2)
    with Workspace(home) as ws:
        inputs = [open_uncompiled(ws, settings_of(home, adapter=one)) for one in (AdapterSettings("none"), lora)]
        whole, thin = (checking._disk_needed(OBJECTIVES["classify"](one)) for one in inputs)
    assert thin < whole / 4
    _, rows = checked(home, adapter=lora, schedule=minutes)
    assert rows["training"] == ("2 minutes", "") and rows["time"][0] == "as scheduled"


def test_the_report_raises_what_training_would(home: Path, tmp_path: Path) -> None:
    settings = settings_of(home)
    blank = written(tmp_path / "blank.jsonl", [{"text": " ", "label": label} for label in "ab" * 4])
    settings = replace(settings, data=replace(settings.data, dataset=str(blank)))
    with Workspace(tmp_path) as ws:
        opened = open_uncompiled(ws, settings)
        assert describe_dataset(ws, opened).rows[0][1] == "8"
        with pytest.raises(InputError, match="row 1: text is blank"):
            check_tuning(ws, opened, say=lambda line: None)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 3))
def test_the_largest_pass_of_an_epoch_is_found(lengths: list[int], micro: int, seed: int) -> None:
    examples = TextExamples(
        [Example([Tokens(np.zeros(one, np.int64), np.zeros(one, np.int64))], np.zeros(1, np.int64)) for one in lengths]
    )
    prepared: Any = SimpleNamespace(examples=examples)
    job: Any = SimpleNamespace(asked=SimpleNamespace(seed=seed))
    found = checking._largest(prepared, job, micro).tokens
    assert max(lengths) <= found <= sum(sorted(lengths * micro)[-micro:])


@given(st.floats(0, 1e7, allow_nan=False), st.floats(0, 1e7, allow_nan=False))
def test_spans_of_time_are_told_in_their_unit(first: float, second: float) -> None:
    units = {"s": 1, "minutes": 60, "hours": 3600}
    told = []
    for seconds in (first, second):
        number, unit = re.fullmatch(r"([\d,.]+) (\w+)", checking._span(seconds)).groups()  # type: ignore[union-attr]
        value = float(number.replace(",", "")) * units[unit]
        assert abs(value - seconds) <= max(0.5 * units[unit], 0.051 * units[unit]) + 1e-6
        told.append(value)
    if first <= second - 180:  # beyond what is rounded
        assert told[0] <= told[1]
