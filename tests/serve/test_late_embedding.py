"""Parts of a text, each by the mean of its tokens' vectors in the whole, as transformers gives them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_world import WORDS, save_encoder
from tokenizers import Tokenizer, models, pre_tokenizers

from windlass.core.errors import InputError, Unsupported
from windlass.core.protocols import LateEmbedder
from windlass.serve.encoders.embedder import SentenceEncoder
from windlass.serve.encoders.late import _windows
from windlass.serve.encoders.reading import Reader

TEXT = "the old pump moves water. bread rises on a mat, the cat sat in the violin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "model", "Bert", "Model")
    return tmp_path / "model"


def test_equals_the_mean_of_the_tokens_in_transformers(folder: Path) -> None:
    import transformers

    ours = SentenceEncoder.from_folder(folder)
    assert isinstance(ours, LateEmbedder)
    spans = [(0, 25), (26, 47), (4, 12), (26, len(TEXT))]
    found = ours.embed_spans(TEXT, spans)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = tokenizer(TEXT, return_offsets_mapping=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(read["input_ids"]).last_hidden_state[0].numpy()
    offsets = read["offset_mapping"][0].tolist()
    for vector, (start, end) in zip(found.vectors, spans, strict=True):
        inside = [start <= a < b <= end for a, b in offsets]
        expected = hidden[inside].mean(0)
        assert np.abs(vector - expected / np.linalg.norm(expected)).max() < 1e-5
    assert found.tokens == len(offsets) and found.truncated == 0


def test_a_part_that_is_the_whole_reads_what_embed_reads(folder: Path) -> None:
    """But for the tokens at both ends, which belong to no character."""
    ours = SentenceEncoder.from_folder(folder)
    whole, alone = ours.embed_spans(TEXT, [(0, len(TEXT))]).vectors[0], ours.embed([TEXT]).vectors[0]
    assert whole @ alone > 0.9
    other = ours.embed_spans("violin music. " + TEXT, [(14, 14 + len(TEXT))]).vectors[0]
    assert np.abs(whole - other).max() > 1e-4, "what stands around a part is read with it"


def test_a_text_longer_than_the_model_reads_goes_through_windows(folder: Path) -> None:
    ours = SentenceEncoder.from_folder(folder)
    rng = np.random.default_rng(0)
    words = [WORDS[i] for i in rng.integers(0, len(WORDS), 200)]
    text = " ".join(words)
    ends = np.cumsum([len(word) + 1 for word in words])
    spans = [
        (0, len(text)),
        (int(ends[9]), int(ends[19])),
        (int(ends[150]), int(ends[198])),
        (int(ends[198]), len(text)),
    ]
    found = ours.embed_spans(text, spans, "the old")
    size = ours.reader.limit - 2 - 2
    vectors = np.zeros((200, 32))
    for left, right, keep, until in _windows(200, size):
        ids = [2, *_ids(["the", "old"]), *_ids(words[left:right]), 3]
        with torch.inference_mode():
            hidden = ours._encoder.hidden(torch.tensor([ids]), lengths=[len(ids)])[0].numpy()
        vectors[keep:until] = hidden[3 + keep - left : 3 + until - left]
    for vector, (first, last) in zip(found.vectors, [(0, 200), (10, 20), (151, 199), (199, 200)], strict=True):
        expected = vectors[first:last].mean(0)
        assert np.abs(vector - expected / np.linalg.norm(expected)).max() < 1e-5
    assert found.tokens > 200


def _ids(words: list[str]) -> list[int]:
    return [5 + WORDS.index(word) for word in words]


@pytest.mark.parametrize("tokens", [0, 1, 7, 8, 9, 12, 16, 17, 100])
def test_windows_take_each_token_once_from_near_the_middle(tokens: int) -> None:
    taken = []
    for left, right, keep, until in _windows(tokens, 8):
        assert 0 <= left <= keep <= until <= right <= tokens and right - left <= 8
        taken += range(keep, until)
        assert left == 0 or keep - left >= 1, "a token at the rim is read in another window"
    assert taken == list(range(tokens))


def test_tokens_of_a_long_text_are_where_they_are_in_a_short_one(folder: Path) -> None:
    ours = SentenceEncoder.from_folder(folder)
    text = "the cat sat. " * 9_000  # tokenized in several parts
    starts = ours.token_starts(text)
    assert len(starts) == 4 * 9_000
    assert np.array_equal(starts, np.add.outer(np.arange(9_000) * 13, [0, 4, 8, 11]).ravel())
    assert len(ours.token_starts("")) == 0


def test_several_tokens_may_stand_for_one_character(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    found = Reader.from_folder(tmp_path, "bytes", len(letters), 16).whole("ä b 🎈")
    assert found.starts.tolist() == [0, 0, 1, 2, 3, 4, 4, 4, 4] and found.ends.tolist() == [1, 1, 2, 3, 4, 5, 5, 5, 5]


def test_a_part_without_a_token_and_parts_outside(folder: Path) -> None:
    ours = SentenceEncoder.from_folder(folder)
    text = "the cat\u200b\u200b sat"
    found = ours.embed_spans(text, [(7, 9), (0, 3)]).vectors
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert ours.embed_spans(text, []).vectors.shape == (0, 32)
    for span in ((0, 99), (3, 3), (-1, 2)):
        with pytest.raises(InputError, match=f"{span[0]}:{span[1]} is to be embedded"):
            ours.embed_spans(text, [span])
    with pytest.raises(InputError, match="half a character"):
        ours.embed_spans("\ud800", [(0, 1)])


def test_a_model_that_reads_one_token_for_all_is_refused(folder: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "x.Transformer"}]
    modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "x.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "cls"}))
    with pytest.raises(Unsupported, match="pools by cls"):
        SentenceEncoder.from_folder(folder).embed_spans(TEXT, [(0, 3)])
