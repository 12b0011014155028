"""Columns under the names of the file: what is read, curated, compared and reported are the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_world import asked, colours, make_home, write_rows

from windlass.build.adapt.checking import describe_dataset, open_uncompiled
from windlass.build.adapt.data.columns import moved, renamed
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.objectives import sft
from windlass.build.adapt.opening import open_inputs
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

NAMES = st.sampled_from(("text", "label", "frage", "klasse", "id"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@given(st.dictionaries(NAMES, st.integers(), min_size=1), st.dictionaries(NAMES, NAMES, max_size=3))
def test_a_row_is_read_by_the_named_columns_and_no_others(values: dict[str, Any], columns: dict[str, str]) -> None:
    found = moved(Row("row 1", values), columns).values
    if not any(theirs in values for theirs in columns.values()):
        assert found == values
        return
    for ours, theirs in columns.items():
        assert found.get(ours) == values.get(theirs)
    others = values.keys() - columns.keys() - set(columns.values())
    assert found.keys() - columns.keys() == others and all(found[name] == values[name] for name in others)


def test_a_gap_is_not_filled_from_another_column() -> None:
    rows = [Row("row 1", {"label": "fine", "coarse": "animal"}), Row("row 2", {"label": "coarse-less", "coarse": "x"})]
    assert [row.values for row in renamed(rows, {"label": "coarse"})] == [{"label": "animal"}, {"label": "x"}]
    gap = renamed([*rows, Row("row 3", {"label": "fine", "id": 3})], {"label": "coarse", "key": "id"})[2]
    assert gap.values == {"key": 3}  # and the objective names the row that has no label
    with pytest.raises(InputError, match=r"data\.columns\.label names 'topic', which no row has"):
        renamed(rows, {"label": "topic"})


def test_every_objective_curates_compares_and_reports_the_renamed_rows(home: Path, tmp_path: Path) -> None:
    """With their own names, the numbers beside the texts would keep every repetition and leak."""
    import random

    generator = random.Random(3)
    said = list(dict.fromkeys(colours(generator, 4) for _ in range(30)))
    rows = [{"nummer": f"n{n}", "frage": f"what is {text}", "antwort": text} for n, text in enumerate(said)]
    again = [{**rows[n], "nummer": f"again {n}"} for n in range(5)]
    path = write_rows(tmp_path / "rows.jsonl", rows + again)
    theirs = write_rows(tmp_path / "exam.jsonl", [{"nummer": "x", "frage": f"What is {said[7]}", "antwort": said[7]}])
    own = write_rows(tmp_path / "exam2.jsonl", [{"prompt": f"what is {said[8]}", "completion": said[8]}])
    settings = asked(
        path,
        data__columns={"prompt": "frage", "completion": "antwort"},
        data__evaluation=[str(theirs), str(own)],
        data__curate={"near": 1.0},
    )
    with Workspace(home) as ws:
        opened = open_inputs(ws, settings)
        kept = opened.rows()
        assert len(kept) == len(said) - 2 and set(kept[0].values) == {"nummer", "prompt", "completion"}
        assert sft.prepare(opened).facts["examples"] == round(len(kept) * 0.9)
        told = {name: value for name, value, _ in describe_dataset(ws, open_uncompiled(ws, settings)).rows}
        assert told["rows: prompt and completion"] == "35" and told["exact duplicates"] == "5"
        assert told["leakage into evaluation"] == "2"
