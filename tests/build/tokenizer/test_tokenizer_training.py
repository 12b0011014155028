"""Tokenizers: lossless on all of Unicode, measured on text they have not seen, and the same file for everybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from windlass.build.corpus import CorpusSettings, build_corpus, training_text
from windlass.build.tokenizer import (
    END_OF_TEXT,
    check_lossless,
    load_tokenizer,
    measure,
    random_texts,
    tokenizer_report,
    train,
    train_tokenizer,
)
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, WindlassError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

PACKAGE = Path(__file__).parents[3] / "src" / "windlass" / "core"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with Workspace(tmp_path_factory.mktemp("home")) as ws:
        yield ws


@pytest.fixture(scope="module")
def corpus(workspace: Workspace) -> Artifact:
    return build_corpus(workspace, Folder(PACKAGE), CorpusSettings(heldout=0.2))


@pytest.fixture(scope="module")
def artifact(workspace: Workspace, corpus: Artifact) -> Artifact:
    return train_tokenizer(workspace, corpus, 1024)


@pytest.fixture(scope="module")
def tokenizer(artifact: Artifact) -> Tokenizer:
    return load_tokenizer(artifact)


@given(st.text(max_size=120))
@example(END_OF_TEXT)
@example(" \n\n\t x\r\n  y\u00a0\u2028z")
@example("e\u0301 \u200d\ufeff \U0010ffff")
def test_any_unicode_comes_back_unchanged(tokenizer: Tokenizer, text: str) -> None:
    assert check_lossless(tokenizer, [text]) == 1


def test_text_cannot_spell_a_special_token(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end == 0
    assert end not in tokenizer.encode(f"before {END_OF_TEXT} after").ids


def test_a_loss_is_an_error_that_shows_the_place() -> None:
    from tokenizers import models, pre_tokenizers

    lossy = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    lossy.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(WindlassError, match="not lossless"):
        check_lossless(lossy, ["a b"])


def test_the_report_holds_what_an_independent_count_gives(
    tokenizer: Tokenizer, artifact: Artifact, corpus: Artifact
) -> None:
    report = tokenizer_report(artifact)
    texts = list(training_text(corpus, "heldout", ["source"]))
    row = report["heldout"]["source"]
    assert row["bytes"] == sum(len(text.encode()) for text in texts)
    assert row["tokens"] == sum(len(tokenizer.encode(text).ids) for text in texts)
    assert row["bytes_per_token"] == pytest.approx(row["bytes"] / row["tokens"], abs=1e-4)
    assert report["heldout"]["all"]["tokens"] == sum(r["tokens"] for k, r in report["heldout"].items() if k != "all")
    assert report["vocab_size"] == tokenizer.get_vocab_size() == 1024
    assert report["trained_on_bytes"] == sum(len(text.encode()) for text in training_text(corpus, "train"))
    assert report["words"]["thinned"] == 0 and report["words"]["unit"] == 1
    assert artifact.parent("corpus") == corpus.digest
    assert report["train"]["bytes_per_token"] > 2.5  # bytes alone would be 1


def test_transformers_loads_the_same_tokenizer(tokenizer: Tokenizer, artifact: Artifact) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    theirs = AutoTokenizer.from_pretrained(artifact.path)
    assert isinstance(theirs, PreTrainedTokenizerFast)
    assert theirs.bos_token == theirs.eos_token == END_OF_TEXT
    for text in ["def f(x):\n        return x  # a\n\n", "Grüße, 世界 🙂"]:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text).ids
        assert theirs.decode(theirs.encode(text)) == text


def test_a_line_break_and_its_indentation_are_one_token(tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.id_to_token(i) for i in tokenizer.encode("y = x\n        return f(y)\n    if").ids]
    assert "Ċ" + "Ġ" * 8 in tokens and "return" in tokens and ")Ċ" + "Ġ" * 4 in tokens


def test_the_same_corpus_gives_the_same_digest(workspace: Workspace, corpus: Artifact, artifact: Artifact) -> None:
    assert train_tokenizer(workspace, corpus, 1024).digest == artifact.digest
    assert train_tokenizer(workspace, corpus, 512).digest != artifact.digest


def test_a_vocabulary_that_the_text_does_not_support(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("A single page with a few words, and a few words more, and some others.")
    corpus = build_corpus(workspace, Folder(tmp_path), name="small")
    with pytest.raises(
        InputError, match=r"4,096 tokens is larger than the text supports: it holds pieces for (\d+)"
    ) as e:
        train_tokenizer(workspace, corpus, 4096, name="small")
    artifact = train_tokenizer(workspace, corpus, 4096, name="small", allow_smaller=True)
    report = tokenizer_report(artifact)
    assert 259 < report["vocab_size"] < 320 and f"pieces for {report['vocab_size']}." in e.value.message
    assert report["vocab_size_asked"] == 4096
    assert report["heldout"] == {} and artifact.card["bytes_per_token_heldout"] is None


@pytest.mark.parametrize("size", [0, 256, 10_000_000])
def test_senseless_vocabularies_are_refused(workspace: Workspace, corpus: Artifact, size: int) -> None:
    with pytest.raises(InputError, match=f"is {size}"):
        train_tokenizer(workspace, corpus, size)


def test_nothing_to_measure_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="no text"):
        measure(tokenizer, ["", " \n"])


def test_random_texts_cover_unicode() -> None:
    text = "".join(random_texts(500))
    assert text == "".join(random_texts(500))
    assert {"\n", " ", "🙂", "\u200d"} <= set(text)
    assert any(ord(c) > 0xFFFF for c in text) and any(0x3000 < ord(c) < 0xD800 for c in text)


def test_training_reads_its_texts_once_as_a_stream() -> None:
    given = 0

    def texts() -> Iterator[str]:
        nonlocal given
        for i in range(2000):
            given += 1
            yield f"line {i % 10} of a text that is never held as a whole\n"

    assert train(texts(), 400, allow_smaller=True).tokenizer.get_vocab_size() <= 400
    assert given == 2000


def test_a_model_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
