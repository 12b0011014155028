"""Rows for encoders: what cannot be learned from is named before anything is trained."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from encoder_rows import asked, rows_for, written
from encoder_world import WORDS, save_encoder, save_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from windlass.build.adapt.data.labels import labels_of
from windlass.build.adapt.data.questions import question_of, windows
from windlass.build.adapt.data.rows import Row, rows_of
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import TextReader
from windlass.build.adapt.data.words import aligned, tagged_rows
from windlass.build.adapt.sections import TuneDataSettings, TuneObjectiveSettings, TuneScheduleSettings
from windlass.build.adapt.tuning import tune
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

TEXT = [{"text": word} for word in WORDS]
EVEN = [{"text": row["text"], "label": number % 2} for number, row in enumerate(TEXT)]
QUESTION = {"question": "the cat", "context": "the old cat sat"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "bert"
    save_encoder(folder, "Bert", "Model")
    return folder


@pytest.mark.parametrize(
    ("kind", "rows", "labels", "message"),
    [
        ("classify", [], (), "holds no rows"),
        ("classify", TEXT, (), "row 1: there is no label; the columns are text"),
        ("classify", [{"label": 1}, {"label": 0}] * 4, (), "row 1: the columns are label, none of which is known"),
        ("classify", [*EVEN, {"text": "  ", "label": 1}], (), "row 16: text is blank"),
        ("classify", [*EVEN, {"text": 3, "label": 1}], (), "row 16: text is 3, but must be text"),
        ("classify", [*EVEN, {"text": "cat \ud800", "label": 1}], (), "row 16: text holds half a character"),
        ("classify", [{**row, "label": "x"} for row in TEXT], (), "All 15 rows have the label 'x'"),
        ("classify", [{**row, "label": row["text"]} for row in TEXT], (), "15 different labels in 15 rows, too many"),
        ("classify", EVEN[:3], (), "3 different examples|2 different labels in 3 rows"),
        ("classify", [*EVEN, {"text": "cat", "label": 0.5}], (), "row 16: the label is 0.5, but must be a name"),
        ("classify", [*EVEN, {"text": "cat", "label": {}}], (), r"row 16: the label is \{\}, but must be a name"),
        ("classify", [*EVEN, {"text": "cat", "label": -1}], (), "row 16: the label is -1, which stands for"),
        ("classify", [*EVEN, {"text": "cat", "label": "x"}], (), "row 16: the label is a text, but that of .* row 1 "),
        ("classify", [*EVEN, {"text": "cat", "label": [1]}], (), "row 1: the label is 0, but other rows have a list"),
        ("classify", [*EVEN, {"text": "cat", "label": 2}], ("a", "b"), "row 16: the label 2 is out of range: .* 2 na"),
        ("classify", [*EVEN, {"text": "cat", "label": "c"}], ("a", "b"), "row 16: the label is 'c', which .* not name"),
        ("classify", EVEN, ("a", "a"), r"objective\.labels names 'a' twice"),
        ("regress", [*EVEN, {"text": "cat", "label": "high"}], (), "row 16: label is \"high\", but must be a finite"),
        ("regress", [*EVEN, {"text": "cat", "label": float("nan")}], (), "row 16: label is NaN, but must be a finite"),
        ("regress", [*EVEN, {"text": "cat", "label": True}], (), "row 16: label is true, but must be a finite"),
        ("regress", [*EVEN, {"text": "cat", "label": [1, 2]}], (), "row 16: there are 2 numbers, but 1 in the first"),
        ("regress", [{**row, "score": 3} for row in TEXT], (), "All rows have the same number"),
        ("regress", EVEN, ("a", "b"), "labels has 2 names, but rows hold 1"),
        ("tag", [{"tokens": ["cat"], "tags": ["O", "O"]}], (), "row 1: there are 1 words, but 2 tags"),
        ("tag", [{"tokens": ["old cat"], "tags": ["O"]}], (), r"row 1: tokens\[0\] is \"old cat\", but must be one"),
        ("tag", [{"tokens": "cat", "tags": "O"}], (), "row 1: tokens is no list"),
        ("tag", [{"tokens": ["cat"], "tags": ["O"]}] * 4, (), "All words have the tag 'O'"),
        ("tag", [{"tokens": ["cat"], "tags": [2]}], ("O", "B-X"), "row 1: the label 2 is out of range"),
        ("tag", [{"text": "cat"}], (), "row 1: the columns are text"),
        ("extract", [{**QUESTION, "answers": [{"text": "cat", "answer_start": 4}]}], (), "row 1: the answer 'cat'"),
        ("extract", [{**QUESTION, "answers": [{"text": "cat"}]}], (), r"row 1: answers\[0\] has no text and no"),
        ("extract", [{**QUESTION, "answer": "dog"}], (), "row 1: the answer 'dog' does not stand in the context"),
        ("extract", [{**QUESTION, "answers": []}] * 4, (), "No question has an answer"),
        ("extract", [{"question": "cat"}], (), "row 1: context is null, but must be text"),
        ("extract", [{**QUESTION, "question": "cat " * 30, "answer": "cat"}], (), "row 1: the question has 32 tokens"),
        ("rank", [{"query": "cat", "positive": "mat", "negatives": []}], (), "row 1: negatives is empty"),
        ("rank", [{"query": "cat", "positive": "mat", "negatives": ["mat"]}], (), "row 1: a document is positive and"),
        ("rank", [{"query": "cat", "positive": "mat"}], (), "row 1: the columns are query, positive"),
        ("rank", [{"query": "cat", "document": "mat", "label": 3}], (), "row 1: the label is 3, but must be between 0"),
        ("rank", [{"query": "cat", "document": "mat", "label": 1}] * 4, (), "All rows have the label 1"),
        ("embed", [{"query": "cat", "positive": ["mat"], "negative": "mat"}], (), "row 1: a positive is a negative"),
        ("embed", [{"query": "cat", "positive": ["mat", 3]}], (), "row 1: positive is .* but must be a text or a list"),
        ("embed", [{"text": "cat", "score": 1}], (), "row 1: there is one text, but an embedder learns from two"),
        ("embed", [{"sentence1": "cat", "sentence2": "mat", "score": 1}] * 4, (), "The scores are all the same"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_named(base, tmp_path, kind, rows, labels, message):
    path = written(tmp_path / "rows.jsonl", rows)
    settings = asked(base, path, kind, objective=TuneObjectiveSettings(kind, labels=labels))
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match=message):
        tune(ws, settings, say=lambda line: None)
    assert not (tmp_path / ".windlass/runs").exists() or not list((tmp_path / ".windlass/runs").glob("*/checkpoints/*"))


def test_a_decoder_is_no_encoder(base, tmp_path):
    save_tokenizer(tmp_path / "llama")
    shape = {
        "vocab_size": 32,
        "hidden": 16,
        "layers": 1,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 8,
        "ffn": 16,
        "context": 40,
    }
    model = Decoder(TransformerConfig(**shape))
    initialise(model, 0)
    save_model(model, tmp_path / "llama")
    path = written(tmp_path / "rows.jsonl", EVEN)
    with (
        Workspace(tmp_path) as ws,
        pytest.raises(InputError, match=r"'classify', which trains encoders, but .* is a decoder"),
    ):
        tune(ws, asked(tmp_path / "llama", path, "classify"), say=lambda line: None)


def rows_with(labels: list) -> list[Row]:
    return [Row(f"row {number}", {"text": "x", "label": label}) for number, label in enumerate(labels, start=1)]


def test_labels_are_names_numbers_or_lists():
    assert labels_of(rows_with(["b", "a", "b", "a"])).names == ("a", "b")
    assert labels_of(rows_with([10, 9, 10, 9])).names == ("9", "10")
    assert labels_of(rows_with([1.0, 0.0, 1.0, 0.0])).names == ("0", "1")
    assert labels_of(rows_with([True, False, True, False])).names == ("false", "true")
    named = labels_of(rows_with([1, "no", "1", 0]), ("no", "yes"))
    assert named.names == ("no", "yes") and named.chosen == ((1,), (0,), (1,), (0,))
    several = labels_of(rows_with([["a", "b"], [], ["b"], ["a", "a"]]))
    assert several.several and several.chosen == ((0, 1), (), (1,), (0,))
    assert several.targets([0, 1])[0].tolist() == [[1.0, 1.0]] and several.targets([1])[0].tolist() == [[0.0, 0.0]]
    assert labels_of(rows_with(["a", "b"] * 3)).targets([1])[0].tolist() == [1]


@example([0, 1, 3, 6], 0.5, 0, True)
@given(st.lists(st.integers(0, 12), min_size=3, max_size=80), st.floats(0, 0.6), st.integers(0, 5), st.booleans())
def test_what_is_the_same_stays_together(keys, share, seed, stratified):
    strata = [key % 3 for key in keys] if stratified else None
    try:
        train, heldout = split(keys, share, seed, strata)
    except InputError:
        groups = set(keys)
        alone = strata is not None and len({key % 3 for key in groups}) == len(groups)
        assert alone or round(len(groups) * share) >= len(groups) or len(groups) < 4
        return
    assert sorted(train + heldout) == list(range(len(keys))) and train and heldout
    assert not {keys[number] for number in train} & {keys[number] for number in heldout}
    if strata is not None:
        assert {strata[number] for number in heldout} <= {strata[number] for number in train}
    assert (train, heldout) == split(keys, share, seed, strata)


def test_each_class_gives_its_share():
    strata = [0] * 800 + [1] * 150 + [2] * 50
    _, heldout = split(range(1000), 0.1, 3, strata)
    counts = np.bincount([strata[number] for number in heldout])
    assert len(heldout) == 100 and abs(counts - [80, 15, 5]).max() <= 1


def byte_level() -> Tokenizer:
    """As RoBERTa's: a token holds the space before its word."""
    letters = {letter: number for number, letter in enumerate(["<s>", "</s>", *pre_tokenizers.ByteLevel.alphabet()])}
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "cat"), ("o", "l")]
    words = letters | {a + b: len(letters) + number for number, (a, b) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(words, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
    return tokenizer


@pytest.mark.parametrize("kind", ["word pieces", "bytes"])
def test_a_tag_stands_at_the_first_token_of_its_word(base, kind):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json")) if kind == "word pieces" else byte_level()
    rows = [Row("row 1", {"tokens": ["old", "cat", "don't", "Zürich", "cat"], "tags": [0, 1, 2, 1, 0]})]
    tagged, names = tagged_rows(rows, ("O", "A", "B"))
    ((tokens, tags),), cut = aligned(TextReader(tokenizer, 40, "refuse"), tagged, rows)
    assert names == ("O", "A", "B") and cut == 0
    assert tags[tags != -100].tolist() == [0, 1, 2, 1, 0] and tags[0] == tags[-1] == -100
    text = " ".join(tagged[0].words)
    starts = [span for span, tag in zip(tokenizer.encode(text).offsets, tags.tolist(), strict=True) if tag != -100]
    words = [match.span() for match in re.finditer(r"\S+", text)]
    assert all(word[0] <= max(start, word[0]) < word[1] for (start, _), word in zip(starts, words, strict=True))
    assert len(tokens.ids) == len(tags)


def test_a_word_without_a_token_is_named(base):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    rows = [Row("row 7", {"tokens": ["old", "\u200b\u200b", "cat"], "tags": ["O", "A", "O"]})]
    tagged, _ = tagged_rows(rows)
    with pytest.raises(InputError, match="row 7: the tokenizer reads nothing of word 2"):
        aligned(TextReader(tokenizer, 40, "refuse"), tagged, rows)


def test_a_long_text_of_tags_is_refused_or_cut(base):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    rows = [Row("row 1", {"tokens": ["cat"] * 60, "tags": ["O", "A"] * 30})]
    tagged, _ = tagged_rows(rows)
    with pytest.raises(InputError, match="row 1: the text has 62 tokens, but the model reads 40"):
        aligned(TextReader(tokenizer, 40, "refuse"), tagged, rows)
    ((tokens, tags),), cut = aligned(TextReader(tokenizer, 40, "cut"), tagged, rows)
    assert cut == 1 and len(tokens.ids) == 40 and (tags != -100).sum() == 38


def test_a_long_context_is_read_through_windows(base):
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    context = "the old " * 30 + "violin " + "a mat " * 30
    row = Row("row 1", {"question": "cat sat", "context": context, "answer": "violin"})
    parts = windows(tokenizer, [question_of(row)], 24)
    assert len(parts) > 4 and all(len(part.tokens.ids) <= 24 for part in parts)
    holding = [part for part in parts if part.target != (0, 0)]
    assert 1 <= len(holding) < len(parts)
    for part in holding:
        first, last = part.target
        assert context[part.spans_T2[first, 0] : part.spans_T2[last, 1]] == "violin" and part.inside_T[first]
    covered = np.zeros(len(context), bool)
    for part in parts:
        for start, stop in part.spans_T2[part.inside_T]:
            covered[start:stop] = True
    assert "".join(letter for letter, seen in zip(context, covered, strict=True) if not seen).strip() == ""  # no gap


@pytest.mark.parametrize("name", ["squad.json", "squad.json.gz"])
def test_files_of_squad_are_read(tmp_path, name):
    asked_ = [{"id": "1", "question": "who", "answers": [{"text": "cat", "answer_start": 8}]}]
    without = [{"id": "2", "question": "why", "answers": [], "is_impossible": True}]
    content = {"version": "2", "data": [{"paragraphs": [{"context": "the old cat", "qas": asked_ + without}]}]}
    path = tmp_path / name
    path.write_bytes((gzip.compress if name.endswith("gz") else bytes)(json.dumps(content).encode()))
    first, second = (question_of(row) for row in rows_of(path))
    assert first.answers == (("cat", 8),) and not second.answers
    path.write_bytes((gzip.compress if name.endswith("gz") else bytes)(b'{"data": [{}]}'))
    with pytest.raises(InputError, match="is no file of questions"):
        rows_of(path)


def test_a_row_of_texts_holds_nothing_else(base, tmp_path):
    """The count that is printed is what the model reads: no position is padding."""
    rows = rows_for("classify")
    path = written(tmp_path / "rows.jsonl", rows)
    said: list[str] = []
    data = TuneDataSettings(str(path), batch=len(rows), heldout=0.2, epochs=1)
    with Workspace(tmp_path) as ws:
        settings = asked(base, path, "classify", data=data, schedule=TuneScheduleSettings(steps=1))
        model = tune(ws, settings, say=said.append)
        (read,) = ws.store.metrics(model.record.run, "tokens")
    assert read.value == model.card["tokens"]
