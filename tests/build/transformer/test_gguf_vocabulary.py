"""Tokenizers through GGUF and back: every id kept, every text cut alike."""

from __future__ import annotations

import json

import pytest
from gguf_world import save_random
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from windlass.build.transformer.gguf import vocabulary
from windlass.build.transformer.gguf.exporting import export_gguf
from windlass.build.transformer.gguf.importing import import_gguf
from windlass.build.transformer.gguf.vocabulary import SPLITS, Specials
from windlass.core.errors import InputError

TEXT = [
    "The windlass lifts the load, and its pawl won't let it slip: it's 1,234.50 kg!",
    "def turn(rope):\n    return rope[1:] + rope[:1]  # a turn\n\n\n\tprint('done')",
    "Größe, naïve café, 東京タワー, Привет мир, 🙂🙂 \u200d x²",
    "   leading and trailing   ",
    "We'Ve GOT 12345678 things<|end|>and more",
]
SIZE = 400


def byte_level(rule: str, special: tuple[str, ...] = ("<s>", "<|end|>")) -> dict:
    """A tokenizer trained on the texts, under one of the rules."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=rule == "llama-bpe"))
    steps = {"type": "Sequence", "pretokenizers": SPLITS[rule]}
    tokenizer = Tokenizer.from_str(json.dumps(json.loads(tokenizer.to_str()) | {"pre_tokenizer": steps}))
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=SIZE - 20, special_tokens=list(special), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return json.loads(tokenizer.to_str())


def sentencepiece(prefix: bool) -> dict:
    """SentencePiece's kind: pieces with scores, bytes for what they cannot spell."""
    words = sorted({c for text in TEXT[:2] for c in text.replace(" ", "▁")})
    pieces = [
        "▁t",
        "th",
        "▁th",
        "▁the",
        "in",
        "lo",
        "ad",
        "load",
        "▁l",
        "▁lo",
        "▁load",
        "▁▁",
        "▁▁▁▁",
        "re",
        "tu",
        "rn",
        "turn",
    ]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces, *words, "<turn>"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) + len(words)), 3]
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)],
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    found = vocabulary.read(values, len(tokens), "the test")
    assert found is not None
    return found[0]


def through(content: dict, bos: int = 0, **wishes) -> tuple[dict, Specials]:
    values = vocabulary.written(content, SIZE, Specials(bos=bos, eos=(bos + 1,)), None, **wishes)
    assert len(values["tokenizer.ggml.tokens"]) == SIZE
    back = vocabulary.read(values, SIZE, "the test")
    assert back is not None
    return back


@pytest.mark.parametrize("rule", SPLITS)
def test_byte_level_tokenizers_come_back(rule):
    content = byte_level(rule)
    back, specials = through(content)
    assert (specials.bos, specials.eos) == (0, (1,))
    ours, theirs = Tokenizer.from_str(json.dumps(content)), Tokenizer.from_str(json.dumps(back))
    assert ours.get_vocab() == theirs.get_vocab()
    for text in TEXT:
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert theirs.decode(theirs.encode(text).ids, skip_special_tokens=False) == text


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=60))
def test_any_text_is_cut_alike(text):
    content = byte_level("llama-bpe")
    again = Tokenizer.from_str(json.dumps(through(content)[0]))
    assert Tokenizer.from_str(json.dumps(content)).encode(text).ids == again.encode(text).ids


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_comes_back(prefix):
    content = sentencepiece(prefix)
    back, specials = through(content, bos=1)
    ours, theirs = Tokenizer.from_str(json.dumps(content)), Tokenizer.from_str(json.dumps(back))
    assert ours.get_vocab() == theirs.get_vocab()
    assert (specials.bos, specials.eos) == (1, (2,))
    for text in TEXT:
        assert ours.encode(text).ids == theirs.encode(text).ids
    assert ours.encode("").ids == [1]
    with pytest.raises(InputError, match=r"puts the tokens \[1\] around"):
        through(content, bos=0)
    assert theirs.decode(theirs.encode(TEXT[0]).ids) == TEXT[0]


def test_a_folder_keeps_tokenizer_template_and_special_tokens(tmp_path):
    save_random("llama", tmp_path / "model")
    content = byte_level("qwen2")
    for entry in content["added_tokens"]:
        assert entry["special"]
    vocab = {token: number for token, number in content["model"]["vocab"].items() if number < 288}
    content["model"]["vocab"] = vocab
    content["model"]["merges"] = [pair for pair in content["model"]["merges"] if "".join(pair) in vocab]
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "model" / "generation_config.json").write_text('{"bos_token_id": 0, "eos_token_id": [1, 2]}')
    written = export_gguf(tmp_path / "model", tmp_path / "m.gguf")
    assert written.tokenizer == "qwen2"
    read = import_gguf(tmp_path / "m.gguf", tmp_path / "again")
    assert read.tokenizer and read.chat_template
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"] == [1, 2]
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == "{{ messages[0].content }}"
    back = Tokenizer.from_file(str(tmp_path / "again" / "tokenizer.json"))
    assert back.encode(TEXT[0]).ids == Tokenizer.from_str(json.dumps(content)).encode(TEXT[0]).ids


def test_what_would_be_cut_otherwise_is_refused():
    content = byte_level("qwen2")
    odd = json.loads(json.dumps(content))
    odd["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+"
    with pytest.raises(InputError, match="no rule that splits words") as caught:
        through(odd)
    assert "--words-like" in caught.value.hint
    assert through(odd, words_like="qwen2")[1].bos == 0
    with pytest.raises(InputError, match="'gpt-5'"):
        through(odd, words_like="gpt-5")
    with pytest.raises(InputError, match="ignore_merges"):
        through(content | {"model": content["model"] | {"ignore_merges": True}})
    with pytest.raises(InputError, match="Lowercase"):
        through(content | {"normalizer": {"type": "Lowercase"}})
    with pytest.raises(InputError, match="Unigram"):
        through(content | {"model": {"type": "Unigram", "vocab": []}})
    with pytest.raises(InputError, match="embedding only"):
        vocabulary.written(content, 300, Specials(), None)
    piece = sentencepiece(True)
    merges = [pair for pair in piece["model"]["merges"] if pair != ["▁t", "h"]]
    with pytest.raises(InputError, match="never merges"):
        through(bos=1, content=piece | {"model": piece["model"] | {"merges": merges}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokenizer.ggml.model": "t6"}, "t6"),
        ({"tokenizer.ggml.pre": "nobody"}, "'nobody', a rule"),
        ({"tokenizer.ggml.tokens": ["a"]}, "1 tokens"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "no list of texts"),
        ({"tokenizer.ggml.tokens": ["a"] * SIZE}, "twice"),
        ({"tokenizer.ggml.token_type": [1]}, "one number for each"),
        ({"tokenizer.ggml.merges": ["x"]}, "merge 'x'"),
        ({"tokenizer.ggml.merges": ["nobody knows"]}, "nobody knows"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "1000000"),
    ],
)
def test_a_damaged_vocabulary_is_named(changes, said):
    values = vocabulary.written(byte_level("gpt-2"), SIZE, Specials(bos=0, eos=(1,)), None) | changes
    with pytest.raises(InputError, match=said):
        vocabulary.read(values, SIZE, "the file")
