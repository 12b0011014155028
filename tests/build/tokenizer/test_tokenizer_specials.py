"""Special tokens by role: read from artifacts and from folders as transformers writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from windlass.build.corpus import build_corpus
from windlass.build.tokenizer import END_OF_TEXT, Specials, load_specials, load_tokenizer, train_tokenizer
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace


def folder(path: Path, vocabulary: list[str], **config: object) -> Path:
    path.mkdir(exist_ok=True)
    Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?")).save(
        str(path / "tokenizer.json")
    )
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


def test_a_trained_tokenizer_names_its_roles(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("A page with a few words, and a few words more, and some others.")
    with Workspace(tmp_path / "home") as ws:
        artifact = train_tokenizer(ws, build_corpus(ws, Folder(tmp_path)), 400, sentinels=3, allow_smaller=True)
        specials, tokenizer = load_specials(artifact), load_tokenizer(artifact)
        assert specials.bos == specials.eos == specials.separator == tokenizer.token_to_id(END_OF_TEXT) == 0
        assert specials.need("mask") == tokenizer.token_to_id("<|mask|>") == 2
        assert specials.need_sentinels(2) == (3, 4) and specials.sentinels == (3, 4, 5)
        with pytest.raises(InputError, match=r"tokenizer@1 has no cls token"):
            specials.need("cls")
        with pytest.raises(InputError, match="3 sentinel tokens, but 100"):
            specials.need_sentinels(100)


def test_bert_without_a_word_about_its_tokens(tmp_path: Path) -> None:
    words = ["[PAD]", "a", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    specials = load_specials(folder(tmp_path / "bert", words, do_lower_case=True))
    assert (specials.pad, specials.unk, specials.cls, specials.sep, specials.mask) == (0, 2, 3, 4, 5)
    assert specials.eos is None and specials.separator == specials.sep


def test_roles_of_older_folders_and_of_tables(tmp_path: Path) -> None:
    path = folder(tmp_path / "old", ["?", "<s>", "</s>", "[MASK]"], eos_token={"content": "</s>"}, pad_token=None)
    (path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "?"}))
    specials = load_specials(path)
    assert (specials.bos, specials.eos, specials.mask) == (1, 2, None)


def test_a_role_without_its_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask token '<gone>'"):
        load_specials(folder(tmp_path / "broken", ["a"], mask_token="<gone>"))
    with pytest.raises(InputError, match="no eos token"):
        _ = Specials().separator
