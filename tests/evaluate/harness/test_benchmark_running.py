"""The run: each request once, in an order that shares, resumable, errors apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.harness.harness_world import Nearby, write_benchmark, write_rows

from windlass.core.errors import InputError, ProviderError, WindlassError, WorkspaceBusy
from windlass.core.protocols import Likelihood, Prompt
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.harness import running
from windlass.evaluate.harness.definitions import read_benchmark
from windlass.evaluate.harness.items import Asking, Exam, make_exam
from windlass.evaluate.harness.journal import Journal
from windlass.evaluate.harness.running import Sampling, run

ROWS = [{"q": f"question {i}", "c": ["one", "two", "six"], "g": i % 3} for i in range(30)]
CHOICE = (
    'kind = "choice"\ndata = "rows.jsonl"\nprompt = "{q}"\nchoices = "{c}"\ngold = "{g}"\n'
    'metrics = ["acc", "acc_norm", "acc_mutual_info"]\n'
)
WRITE = 'kind = "answer"\ndata = "rows.jsonl"\nprompt = "{q}"\nanswers = "{g}"\n'


def exam(folder: Path, text: str = CHOICE) -> Exam:
    write_rows(folder / "rows.jsonl", ROWS)
    return make_exam(read_benchmark(write_benchmark(folder / "mine.toml", text)), folder, Asking())


def test_what_is_asked_twice_is_asked_once(tmp_path: Path) -> None:
    model = Nearby()
    run(exam(tmp_path), model)
    assert len(model.asked) == len(set(model.asked)) == 30 * 3 + 3  # without a question, the choices are the same


def test_neighbours_begin_alike(tmp_path: Path) -> None:
    model = Nearby()
    run(exam(tmp_path), model)
    assert model.asked == sorted(model.asked)


def test_one_that_was_stopped_asks_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH", 10)
    made, whole = exam(tmp_path), run(exam(tmp_path), Nearby())
    asked: list[tuple[str, ...]] = []
    for stop_after in (3, 2, None):
        model = Nearby(stop_after=stop_after)
        with Journal(tmp_path / "journal.jsonl") as journal:
            if stop_after is None:
                assert journal.had == 50
                results = run(made, model, journal=journal)
            else:
                with pytest.raises(KeyboardInterrupt):
                    run(made, model, journal=journal)
        asked += model.asked
    assert len(asked) == len(set(asked)) == 93
    assert results.to_json() == whole.to_json()


def test_a_torn_line_is_cut_off_and_a_broken_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.keep({"a": Likelihood(-1.5, True, 2), "b": "text\n"})
    path.write_bytes(path.read_bytes() + b'["c", [-1')
    with Journal(path) as journal:
        assert journal.replies == {"a": Likelihood(-1.5, True, 2), "b": "text\n"}
        journal.keep({"c": "whole"})
        with pytest.raises(WorkspaceBusy):
            Journal(path)
    lines = path.read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == ["a", "b", "c"]
    path.write_text('["a", "b"]\n["a"]\n["c", "d"]\n')
    with pytest.raises(InputError, match="line 2, is broken"):
        Journal(path)


@given(st.dictionaries(st.text(min_size=1), st.text() | st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_a_journal_gives_back_what_it_was_given(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, str | float]
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal.jsonl"
    replies = {key: one if isinstance(one, str) else Likelihood(one, False, 1) for key, one in said.items()}
    with Journal(path) as journal:
        journal.keep(replies)
    with Journal(path) as journal:
        assert journal.replies == replies
        journal.remove()
    assert not path.exists()


def test_errors_stand_apart_and_are_in_no_figure(tmp_path: Path) -> None:
    made = exam(tmp_path)
    results = run(made, Nearby(refuse="question 7"))
    failed = [one for one in results.items if one.failed]
    assert [(one.item, one.failed, dict(one.values)) for one in failed] == [("rows:8", "refused", {})]
    assert {one.interval.n for one in made.benchmark.measures(results.items)} == {29}


def test_what_failed_is_asked_again(tmp_path: Path) -> None:
    made = exam(tmp_path)
    with Journal(tmp_path / "journal.jsonl") as journal:
        run(made, Nearby(refuse="question 7"), journal=journal)
    with Journal(tmp_path / "journal.jsonl") as journal:
        model = Nearby()
        results = run(made, model, journal=journal)
    assert len(model.asked) == 3 and not any(one.failed for one in results.items)


def test_an_endpoint_that_answers_nothing_ends_the_run(tmp_path: Path) -> None:
    class Broken(Nearby):
        def loglikelihood(self, pairs: list[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:  # type: ignore[override]
            return [ProviderError("The key is wrong.") for _ in pairs]

    with pytest.raises(ProviderError, match="key is wrong"):
        run(exam(tmp_path), Broken())


def test_one_request_that_an_endpoint_refuses_is_one_item_of_a_batch_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Picky(Nearby):
        def loglikelihood(self, pairs: list[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:  # type: ignore[override]
            found = super().loglikelihood(pairs)
            return [ProviderError("Too long.") if "question 9" in str(a) else one for (a, _), one in zip(pairs, found)]

    monkeypatch.setattr(running, "BATCH", 3)  # the last batch is of that question alone
    results = run(exam(tmp_path), Picky())
    assert [one.item for one in results.items if one.failed] == ["rows:10"]


def test_texts_are_asked_in_smaller_batches(tmp_path: Path) -> None:
    model = Nearby(answers=["0"])
    told: list[int] = []
    run(exam(tmp_path, WRITE), model, sampling=Sampling(1.0, repeats=3), say=lambda done, of: told.append(done))
    assert len(model.asked) == 90 and told == [0, 32, 64, 90]


def test_repeats_are_drawn_with_seeds_of_their_own(tmp_path: Path) -> None:
    model = Nearby(answers=["0"])
    results: Results = run(exam(tmp_path, WRITE), model, sampling=Sampling(temperature=0.7, repeats=3, seed=5))
    assert {seed for _, seed in model.asked} == {"5", "6", "7"} and len(model.asked) == 90
    assert results.repeats == 3 and len(results.items) == 90
    with pytest.raises(InputError, match="all the same"):
        Sampling(repeats=2)


def test_progress_is_told_up_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BATCH", 40)
    told: list[tuple[int, int]] = []
    run(exam(tmp_path), Nearby(), say=lambda done, of: told.append((done, of)))
    assert told == [(0, 93), (40, 93), (80, 93), (93, 93)]


def test_results_say_what_they_were_made_with(tmp_path: Path) -> None:
    results = run(exam(tmp_path), Nearby(), identity={"policy": "fp32"})
    assert results.made_with["model"] == {"policy": "fp32"} and results.made_with["shots"] == 0
    assert set(results.scorers) == {"acc", "acc_norm", "acc_mutual_info"}
    assert Results.from_json(json.loads(json.dumps(results.to_json()))).to_json() == results.to_json()
