"""The report on a dataset tells what is there, and curation removes what it finds, each row with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled, planned_memory
from windlass.build.adapt.data.curating import curate
from windlass.build.adapt.data.describing import Lengths, describe
from windlass.build.adapt.data.diversity import hashed, spread_out
from windlass.build.adapt.data.leaks import Evaluation
from windlass.build.adapt.data.rows import Row, rows_of
from windlass.build.adapt.data.wording import format_of, text_of
from windlass.build.adapt.objectives import sft
from windlass.build.adapt.sections import CurateSettings
from windlass.build.adapt.tuning import job_of, tune
from windlass.build.training.checks.footprint import Memory
from windlass.build.training.distributed.workers import ALONE
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

LONG = "The quick brown fox jumps over the lazy dog while the old cat sleeps under the warm and sunny kitchen window"


def row(number: int = 1, **values: object) -> Row:
    return Row(f"rows.jsonl, row {number}", values)


def lengths(rows: list[Row]) -> Lengths:
    return Lengths(np.array([len(text_of(one).split()) for one in rows]))


def found(rows: list[Row], **options: object) -> dict[str, tuple[str, str]]:
    return {name: (value, remark) for name, value, remark in describe(rows, lengths(rows), **options).rows}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def test_a_report_tells_what_is_there() -> None:
    rows = [
        row(1, messages=[{"role": "user", "content": LONG}, {"role": "assistant", "content": "Well."}]),
        row(2, messages=[{"role": "user", "content": LONG}, {"role": "assistant", "content": "Well."}]),
        row(3, prompt=LONG.replace("kitchen", "garden"), completion="Well."),
        row(4, text="Write to anna.meier@mailbox.org or call", label="contact"),
        row(5, text="Das ist ein deutscher Satz mit vielen Wörtern darin", label="other"),
        row(6, text="Une phrase en français avec beaucoup de mots simples", label="other"),
    ]
    told = found(rows, limit=10)
    assert told["rows: OpenAI messages"][0] == "2" and told["rows: text and label"][0] == "3"
    assert (told["exact duplicates"][0], told["near duplicates"][0]) == ("1", "0")
    assert told["labels"] == ("2", "other 66.7%, contact 33.3%; the most frequent 2.0 times the rarest")
    assert told["rows with personal data"] == ("1", "1 email")
    assert told["longer than 10 tokens"][0] == "3"
    assert "de 16.7%" in told["languages"][1] and "fr 16.7%" in told["languages"][1]
    assert told["leakage into evaluation"][0] == "not looked for"


def test_lengths_have_quantiles_and_a_histogram() -> None:
    some = Lengths(np.array([3, 9, 16, 17, 100]), learned=29)
    assert (some.quantile(0.5), some.quantile(0.99)) == (16, 100)
    lines = some.histogram().splitlines()[2:]
    assert [line.split()[:4] for line in lines] == [
        ["up", "to", "8", "1"], ["up", "to", "16", "2"], ["up", "to", "32", "1"], ["up", "to", "64", "0"],
        ["up", "to", "128", "1"],
    ]  # fmt: skip
    assert Lengths(np.array([1])).histogram().count("█") == 40


def test_near_duplicates_are_found_by_what_they_share() -> None:
    rows = [row(1, text=LONG * 3), row(2, text=LONG * 3 + " today"), row(3, text=LONG.upper().replace(" ", "  ") * 3)]
    told = found(rows)
    assert (told["exact duplicates"][0], told["near duplicates"][0]) == ("0", "2")  # case is another text


def test_formats_have_names() -> None:
    assert format_of(row(chosen="a", rejected="b", prompt="c")) == "preference pairs"
    assert format_of(row(prompt="a", completion="b", label=True)) == "binary feedback"
    assert format_of(row(picture="x")) == "columns picture"


def test_what_stands_beside_the_texts_is_none() -> None:
    one, two = row(1, text=LONG, uuid="a1", coarse="x"), row(2, text=LONG, uuid="b2", coarse="y")
    assert text_of(one) == text_of(two) == LONG
    assert text_of(row(note="only this")) == "only this"
    assert text_of(row(messages=[{"role": "user", "content": "hi", "name": "anna"}])) == "hi"


def test_a_leak_is_found_whole_or_by_a_run_of_words(tmp_path: Path) -> None:
    tests = write_rows(tmp_path / "test.jsonl", [{"question": "What is red?", "answer": "4"}, {"text": LONG}])
    evaluation = Evaluation(rows_of(tests))
    leaks = [
        row(1, prompt="what is RED", completion="4"),
        row(2, prompt="Please: " + " ".join(LONG.split()[:14]), completion="x"),
    ]
    fine = [row(3, prompt="What is blue?", completion="4"), row(4, prompt=" ".join(LONG.split()[:12]), completion="x")]
    assert [evaluation.leak(one) is not None for one in (*leaks, *fine)] == [True, True, False, False]
    assert "row 2 shares 14 words with" in str(evaluation.leak(leaks[1]))
    told = found([*leaks, *fine], evaluation=evaluation)["leakage into evaluation"]
    assert told[0] == "2" and "row 1 is" in told[1]


def test_every_removal_has_its_reason() -> None:
    rows = [
        row(1, text=LONG), row(2, text=LONG), row(3, text="short"), row(4, text="mail anna.meier@mailbox.org about it"),
        row(5, text="x" * 500), row(6, text="A sound sentence about the weather in the mountains of the north."),
    ]  # fmt: skip
    asked = CurateSettings(near=0.8, pii="drop", quality="light", min_chars=10)
    kept, removed, masked = curate(rows, asked)
    assert [one.where[-1] for one in kept] == ["1", "6"]
    assert {one.row.where[-1]: one.reason for one in removed} == {
        "2": "that repeat another one", "3": "too short or too long", "4": "with personal data",
        "5": "of poor quality",
    }  # fmt: skip
    assert not masked
    (twin,) = (one.detail for one in removed if one.reason == "that repeat another one")
    assert twin == "exact duplicate of rows.jsonl, row 1, similarity 1.00"
    with pytest.raises(InputError, match=r"data\.curate leaves no row: 6 too short or too long"):
        curate(rows, CurateSettings(min_chars=1000))


def test_masking_keeps_the_rows_shape() -> None:
    one = row(1, messages=[{"role": "user", "content": "I am anna.meier@mailbox.org"}], n=3)
    (kept,), removed, masked = curate([one], CurateSettings(pii="mask"))
    assert kept.values == {"messages": [{"role": "user", "content": "I am [EMAIL]"}], "n": 3}
    assert not removed and masked == {"email": 1}


def test_diversity_takes_one_of_each_cluster() -> None:
    """Farthest points first: from three clusters of near copies, three choices are one of each."""
    texts = [f"{topic} number {n}" for topic in (LONG, "a recipe for soup", "laws of motion") for n in range(10)]
    chosen = spread_out(hashed(texts), 3)
    assert sorted(number // 10 for number in chosen) == [0, 1, 2]
    assert chosen == spread_out(hashed(texts), 3)
    far = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    assert sorted({0, 1} & set(spread_out(far, 4))) in ([0], [1])


def test_a_tuning_learns_from_what_curation_left(home: Path, tmp_path: Path) -> None:
    examples = echoes(40)
    rows = write_rows(tmp_path / "rows.jsonl", [*examples, {"prompt": "what is red", "completion": "a colour"}])
    tests = write_rows(tmp_path / "test.jsonl", [{"question": "What is red?", "answer": "A colour!"}])
    said: list[str] = []
    settings = asked(rows, data__evaluation=[str(tests)], data__curate={"near": 1.0}, schedule__steps=2)
    with Workspace(home) as ws:
        model = tune(ws, settings, say=said.append)
        dataset = ws.artifacts.get(model.parent("dataset"))
        different = len({json.dumps(one) for one in examples})
        assert len(rows_of(dataset.path / "items.jsonl")) == different
        assert dataset.card["removed"] == {
            "that an evaluation set holds too": 1,
            "that repeat another one": 40 - different,
        }
        assert f"curated: {different} of 41 rows are kept" in "\n".join(said)
        removed = rows_of(dataset.path / "removed.jsonl")
        assert len(removed) == 41 - different and removed[0].values["reason"] == "that an evaluation set holds too"
        again = tune(ws, settings, say=said.append)
        assert again.parent("dataset") == dataset.digest


def test_a_check_trains_nothing_and_tells_memory_time_and_disk(home: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", echoes(60))
    with Workspace(home) as ws:
        before = len(ws.runs.list("tune"))
        opened = open_uncompiled(ws, asked(rows))
        report = describe_dataset(ws, opened)
        told = {name: (value, remark) for name, value, remark in report.rows}
        assert told["rows: OpenAI messages"][0] == "60"
        assert report.lengths.learned is not None and told["tokens learned"][0] == f"{report.lengths.learned:,}"
        lines: list[str] = []
        check = check_tuning(ws, opened, say=lines.append)
        assert check.fits and len(ws.runs.list("tune")) == before
        assert any("are learned" in line for line in lines)
    plan = {name: value for name, value, _ in check.rows}
    trained = int(plan["parameters trained"].replace(",", ""))
    assert plan["training"] == "20 steps" and "time" in plan and "disk" in plan
    with Workspace(home) as ws:
        model = tune(ws, asked(rows, schedule__steps=1), say=lines.append)
        assert any(f"{trained:,} of" in line for line in lines if "parameters are trained" in line)
        assert model.kind == "adapter"


def test_what_a_pass_keeps_grows_by_row_and_is_less_with_an_adapter(home: Path, tmp_path: Path) -> None:
    """Frozen maps keep no inputs for gradients of their own; the plan must know."""
    rows = write_rows(tmp_path / "rows.jsonl", echoes(200))

    def planned(kind: str, batch: int) -> Memory:
        with Workspace(home) as ws:
            opened = open_uncompiled(ws, asked(rows, adapter__kind=kind, data__batch=batch))
        prepared = sft.prepare(opened)
        return planned_memory(prepared, job_of(prepared, opened.settings, ALONE, "ddp"), batch, 0)

    thin, thick, whole = planned("lora", 2), planned("lora", 4), planned("none", 4)
    assert thin.activations < thick.activations <= 2 * thin.activations
    assert thick.activations < whole.activations
    assert thick.gradients < whole.gradients == whole.weights and whole.optimizer >= 2 * whole.gradients
    assert thick.weights > whole.weights  # the base and what is thin beside it
