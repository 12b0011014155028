from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

from windlass.build.transformer.config import TransformerConfig  # noqa: E402
from windlass.build.transformer.encoder import Encoder  # noqa: E402
from windlass.build.transformer.families import bert, modernbert  # noqa: E402
from windlass.build.transformer.families.fields import Fields  # noqa: E402
from windlass.build.transformer.hf import save_model  # noqa: E402
from windlass.build.transformer.model import model_of  # noqa: E402
from windlass.core.errors import InputError, MissingExtra  # noqa: E402
from windlass.core.protocols import Embedder  # noqa: E402
from windlass.serve.encoders import embedder as module  # noqa: E402
from windlass.serve.encoders.embedder import MINILM_PACKAGE, MINILM_SHA256, MiniLM, SentenceEncoder  # noqa: E402

TEXTS = [
    "",
    " ",
    "\x00\u200b",
    "Hello, world!",
    "Ünïcödé naïve 漢字かな 한국어 🙂🏳️‍🌈 مرحبا",
    "x" * 500,
    "word " * 400,
    "The quick brown fox jumps over the lazy dog. " * 12,
    "def f(x):\n\treturn {'a': [x ** 2]}\n",
    *("token " * n for n in range(1, 40, 3)),
]


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    pytest.importorskip(MINILM_PACKAGE)
    return MiniLM.load()


def minilm_folder() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "local_attention": 4,
}
FAMILIES = {"bert": bert, "modernbert": modernbert}
HEADLESS = {"bert": "BertModel", "modernbert": "ModernBertModel"}


@pytest.fixture(scope="session", params=FAMILIES)
def small_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random encoder in the layout of sentence-transformers."""
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    values = {**SIZES, "vocab_size": len(vocabulary), "architectures": [HEADLESS[request.param]]}
    config: TransformerConfig = FAMILIES[request.param].from_hf(Fields(values, "config.json"))
    model = Encoder(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    save_model(model, folder)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    return folder


def test_equals_sentence_transformers(minilm: SentenceEncoder) -> None:
    library = pytest.importorskip("sentence_transformers")
    peer = library.SentenceTransformer(str(minilm_folder()), device="cpu").encode(TEXTS, show_progress_bar=False)
    ours = minilm.embed(TEXTS)
    assert np.abs(ours.vectors - peer).max() < 1e-5
    assert ours.truncated == 1  # the 400 words; the unbroken 500 letters are a single unknown word


def test_the_published_weights_are_found_without_importing_their_package() -> None:
    pytest.importorskip(MINILM_PACKAGE)
    code = (
        "import sys; from windlass.serve.encoders.embedder import MiniLM; m = MiniLM.load(); "
        f"assert m.embed(['a']).vectors.shape == (1, 384); assert {MINILM_PACKAGE!r} not in sys.modules; "
        "assert 'sentence_transformers' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_is_an_embedder(minilm: SentenceEncoder) -> None:
    assert isinstance(minilm, Embedder)
    assert (minilm.name, minilm.dimension, minilm.reader.limit) == ("all-MiniLM-L6-v2", 384, 256)


def test_bfloat16_is_near_and_says_so_in_the_digest(minilm: SentenceEncoder) -> None:
    rough = MiniLM.load(precision="bfloat16")
    cosine = (rough.embed(TEXTS).vectors * minilm.embed(TEXTS).vectors).sum(1)
    assert cosine.min() > 0.999
    assert rough.digest != minilm.digest


def test_changed_weights_are_refused_with_both_digests(tmp_path: Path, small_folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        SentenceEncoder.from_folder(small_folder, sha256=MINILM_SHA256)
    assert MINILM_SHA256 in caught.value.message
    assert caught.value.message.count(" SHA-256 ") == 1
    assert str(small_folder / "model.safetensors") in caught.value.message


def test_package_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtra, match=r"windlass\[rag\]"):
        MiniLM.load()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=30), st.randoms())
def test_order_and_company_do_not_matter(small_folder: Path, texts: list[str], random: object) -> None:
    model = SentenceEncoder.from_folder(small_folder)
    together = model.embed(texts)
    assert together.vectors.shape == (len(texts), 16) and together.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together.vectors, axis=1), 1, atol=1e-5)
    alone = [model.embed([text]) for text in texts]
    for row, single in zip(together.vectors, alone):
        np.testing.assert_allclose(row, single.vectors[0], atol=1e-5)
    assert together.tokens == sum(single.tokens for single in alone)
    assert together.truncated == sum(single.truncated for single in alone)


def test_truncation_is_counted_at_the_limit(small_folder: Path) -> None:
    model = SentenceEncoder.from_folder(small_folder)
    fits, cut = "a " * 10, "a " * 11  # with [CLS] and [SEP]: 12 and 13
    assert model.embed([fits]).truncated == 0
    result = model.embed([cut, fits, cut])
    assert (result.truncated, result.tokens) == (2, 36)
    np.testing.assert_allclose(result.vectors[0], result.vectors[1], atol=1e-6)


def test_entries_that_are_not_texts_are_named(small_folder: Path) -> None:
    model = SentenceEncoder.from_folder(small_folder)
    with pytest.raises(InputError, match="Text 1 is of type int"):
        model.embed(["a", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="lone surrogate"):
        model.embed(["a", "b\ud800"])
    with pytest.raises(InputError, match="list of texts"):
        model.embed("one text")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_broken_files_are_named(tmp_path: Path, small_folder: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    (folder / name).write_bytes(b"\x00 not this")
    with pytest.raises(InputError, match=name):
        SentenceEncoder.from_folder(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        SentenceEncoder.from_folder(folder)


def test_a_tokenizer_of_another_model_is_refused_with_both_sizes(tmp_path: Path, small_folder: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{i}" for i in range(7)])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(InputError, match=r"tokenizer\.json has 21 tokens, but the model knows 14"):
        SentenceEncoder.from_folder(folder)


def test_a_model_that_is_no_encoder_is_refused(tmp_path: Path, small_folder: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    decoder = TransformerConfig(vocab_size=14, hidden=16, layers=1, heads=2, kv_heads=2, head_dim=8, ffn=8, context=8)
    save_model(model_of(decoder), folder)
    with pytest.raises(InputError, match="not an encoder"):
        SentenceEncoder.from_folder(folder)


def test_a_text_without_any_token_is_named_where_the_tokenizer_adds_none(tmp_path: Path, small_folder: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(small_folder, folder)
    settings = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**settings, "post_processor": None}))
    model = SentenceEncoder.from_folder(folder)
    assert model.embed(["a b", "c"]).tokens == 3
    with pytest.raises(InputError, match="Text 1 is empty"):
        model.embed(["a b", " "])
