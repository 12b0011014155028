"""The mix: shares of training text as the weights ask for, epochs per source, and what a trainer then reads."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_world import Given, page, prose
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus import (
    CorpusSettings,
    Part,
    build_corpus,
    corpus_report,
    corpus_settings,
    corpus_summary,
    parts_of,
    training_documents,
    training_text,
)
from windlass.build.corpus.card import data_card
from windlass.build.corpus.mixing import copies, mixture
from windlass.core.documents import Document, placed_documents
from windlass.core.errors import ConfigError, InputError
from windlass.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "home") as ws:
        yield ws


def pages(name: str, count: int) -> Given:
    return Given([page(f"{name}{i}", f"{name} {prose(len(name) * 1000 + i)}") for i in range(count)], name)


@given(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(1, 10**9), st.floats(0.01, 100)), min_size=1))
def test_the_mix_is_as_large_as_the_corpus_and_divided_by_weight(parts: dict[str, tuple[int, float]]) -> None:
    mix = mixture(
        {name: weight for name, (_, weight) in parts.items()}, {name: size for name, (size, _) in parts.items()}
    )
    seen = {name: row["epochs"] * row["train_bytes"] for name, row in mix.items()}
    assert sum(seen.values()) == pytest.approx(sum(size for size, _ in parts.values()))
    whole = sum(weight for _, weight in parts.values())
    for name, (_, weight) in parts.items():
        assert seen[name] / sum(seen.values()) == pytest.approx(weight / whole) == pytest.approx(mix[name]["share"])


@given(st.text(), st.floats(0, 8), st.floats(0, 8))
def test_a_document_comes_more_often_the_more_epochs(identifier: str, some: float, more: float) -> None:
    some, more = sorted((some, more))
    assert int(some) <= copies(identifier, some) <= copies(identifier, more) <= int(more) + 1


def test_copies_are_as_many_as_asked_in_the_mean() -> None:
    found = [copies(f"document {i}", 2.3) for i in range(10_000)]
    assert sum(found) / 10_000 == pytest.approx(2.3, abs=0.02)  # four standard errors
    assert set(found) == {2, 3}
    assert found != [copies(f"document {i}", 2.3, seed=1) for i in range(10_000)]


def test_training_reads_the_mix_and_what_is_held_out_comes_once(workspace: Workspace) -> None:
    parts = [Part("small", pages("small", 40), 3.0), Part("large", pages("large", 160), 1.0, licence="MIT")]
    corpus = build_corpus(workspace, parts, CorpusSettings(heldout=0.2))
    report = corpus_report(corpus)
    mix = report["mix"]
    assert mix["small"]["share"] == 0.75 and mix["small"]["epochs"] == pytest.approx(3.75, rel=0.2)
    assert report["licence"] == "CC0-1.0; MIT"
    train = Counter(text.split()[0] for text in training_text(corpus, "train"))
    times = Counter(training_text(corpus, "train"))
    assert train["small"] / train.total() == pytest.approx(0.75, abs=0.05)
    assert {times[text] for text in times if text.startswith("small")} <= {3, 4}
    assert {times[text] for text in times if text.startswith("large")} == {1}
    assert set(Counter(training_text(corpus, "heldout")).values()) == {1}
    ids = [document.id for document in training_documents(corpus, "train")]
    assert len(ids) == len(set(ids)) and all(id.startswith(("small/small", "large/large")) for id in ids)
    assert "times seen" in corpus_summary(report) and "small" in (corpus.path / "README.md").read_text()


def test_rounds_follow_one_another_and_the_file_is_read_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [Part("small", pages("small", 10), 9.0), Part("large", pages("large", 60), 1.0)]
    corpus = build_corpus(workspace, parts, CorpusSettings(heldout=0.2))
    epochs = {part: row["epochs"] for part, row in corpus_report(corpus)["mix"].items()}
    assert epochs["small"] > 5
    documents = list(training_documents(corpus, "train"))
    expected = [
        document.text
        for turn in range(math.ceil(max(epochs.values())))
        for document in documents
        if turn < copies(document.id, epochs[document.metadata["part"]])
    ]
    readings: list[Path] = []

    def counted(path: Path) -> Iterator[tuple[int, Document]]:
        readings.append(path)
        return placed_documents(path)

    monkeypatch.setattr("windlass.build.corpus.reading.placed_documents", counted)
    assert list(training_text(corpus, "train")) == expected
    assert len(readings) == 1


def test_sources_without_weights_come_as_they_are(workspace: Workspace) -> None:
    corpus = build_corpus(workspace, [Part("a", pages("a", 9)), Part("b", pages("b", 30))])
    assert {row["epochs"] for row in corpus_report(corpus)["mix"].values()} == {1.0}
    assert set(Counter(training_text(corpus, "train")).values()) == {1}


def test_a_weight_for_nothing_is_refused(workspace: Workspace) -> None:
    poor = Given([page("x", "Short.")], "poor")
    with pytest.raises(InputError, match="The source 'poor' has weight 2"):
        build_corpus(workspace, [Part("poor", poor, 2.0), Part("rich", pages("rich", 30), 1.0)])


RECIPE = """
heldout = 0.2
quality = "none"
[rules]
min_chars = 5
[[sources]]
path = "a"
weight = 1
[[sources]]
path = "b.jsonl"
name = "rows"
text = "content"
weight = 2
"""


def test_a_recipe_names_sources_beside_it(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "mix" / "a").mkdir(parents=True)
    for i in range(8):
        (tmp_path / "mix" / "a" / f"{i}.md").write_text(prose(i))
    (tmp_path / "mix" / "b.jsonl").write_text(
        "".join(f'{{"content": "{prose(100 + i)}", "license": "MIT"}}\n' for i in range(9))
    )
    recipe = tmp_path / "mix" / "corpus.toml"
    recipe.write_text(RECIPE)
    settings = corpus_settings(recipe, {"heldout": 0.5})
    assert settings.heldout == 0.5 and settings.quality_rules().min_chars == 5
    report = corpus_report(build_corpus(workspace, parts_of(settings), settings))
    assert report["kept"]["all"]["documents"] == 17 and set(report["mix"]) == {"a", "rows"}
    assert report["licences_of_rows"]["MIT"]["documents"] == 9
    assert "| MIT | 9 |" in data_card("mixed", report) and str(tmp_path) not in str(report)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("heldot = 0.2", "unknown key 'heldot'"),
        ("near = 'much'", "'near' is 'much', but must be a number"),
        ("[[sources]]\nweight = 1", "missing"),
        ("[[sources]]\npath = 'nowhere'", "nowhere does not exist"),
        ("", "names no source"),
        ("[[sources]]\npath = '.'\nweight = 1\n[[sources]]\npath = '.'", "has no weight, but others have"),
        ("[[sources]]\npath = '.'\n[[sources]]\npath = '.'", "2 sources of the recipe are called"),
        ("[[sources]]\npath = '.'\nweight = -1", "weight -1.0"),
        ("quality = 'best'", "'quality' is 'best'"),
        ("a = [", "is not valid TOML"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path: Path, recipe: str, message: str) -> None:
    (tmp_path / "corpus.toml").write_text(recipe)
    with pytest.raises((ConfigError, InputError), match=message):
        parts_of(corpus_settings(tmp_path / "corpus.toml", {}))
