"""Cross-encoders and classifiers against transformers, of all families, whatever the company of a text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_world import save_encoder
from safetensors.torch import load_file, save_file

from windlass.core.errors import InputError, Unsupported
from windlass.core.protocols import Classifying, Reranker
from windlass.serve.encoders.cross_encoder import CrossEncoder, TextClassifier
from windlass.serve.encoders.reading import TOKENS_PER_BATCH

QUERY = "the old pump"
DOCUMENTS = ["pump moves water", "", "bread rises in the mat", "a cat " * 30, "violin", "日本 unknown words"]
THREE = {"id2label": {0: "bad", 1: "fair", 2: "good"}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {}),
    "xlm-roberta": ("XLMRoberta", {}),
    "distilbert": ("DistilBert", {}),
    "modernbert": ("ModernBert", {}),
    "modernbert-mean": ("ModernBert", {"classifier_pooling": "mean", "classifier_bias": True, "norm_bias": True}),
}


@torch.inference_mode()
def logits_of(model: Any, folder: Path, texts: list[Any]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:  # one at a time: padding would change what they compute in the last digits
        first, second = text if isinstance(text, tuple) else (text, None)
        types = model.config.model_type == "bert"
        pair = ([first], None if second is None else [second])  # as lists: a lone empty text would not count as one
        read = tokenizer(*pair, truncation=True, return_tensors="pt", return_token_type_ids=types)
        rows.append(model(**read).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("case", CASES)
def test_ranks_as_transformers_does(case: str, tmp_path: Path) -> None:
    family, settings = CASES[case]
    theirs = save_encoder(tmp_path, family, "ForSequenceClassification", num_labels=1, **settings)
    ours = CrossEncoder.from_folder(tmp_path)
    assert isinstance(ours, Reranker)
    found = ours.rank(QUERY, DOCUMENTS)
    expected = logits_of(theirs, tmp_path, [(QUERY, document) for document in DOCUMENTS])[:, 0]
    assert np.allclose(found.scores, 1 / (1 + np.exp(-expected)), atol=1e-5)
    assert found.truncated == 1 and found.tokens > 40
    assert np.ptp(found.scores) > 0.01


@pytest.mark.parametrize("case", CASES)
def test_classifies_as_transformers_does(case: str, tmp_path: Path) -> None:
    family, settings = CASES[case]
    theirs = save_encoder(tmp_path, family, "ForSequenceClassification", **THREE, **settings)
    ours = TextClassifier.from_folder(tmp_path)
    assert isinstance(ours, Classifying) and ours.labels == ("bad", "fair", "good")
    texts = [*DOCUMENTS, (QUERY, "water"), (QUERY, "bread " * 60)]
    found = ours.classify(texts)
    expected = torch.from_numpy(logits_of(theirs, tmp_path, texts)).softmax(-1).numpy()
    assert np.allclose(found.probabilities, expected, atol=1e-5) and found.truncated == 2


def test_labels_that_do_not_exclude_each_other(tmp_path: Path) -> None:
    kind = "multi_label_classification"
    theirs = save_encoder(tmp_path, "Bert", "ForSequenceClassification", problem_type=kind, **THREE)
    found = TextClassifier.from_folder(tmp_path).classify(DOCUMENTS).probabilities
    assert np.allclose(found, torch.from_numpy(logits_of(theirs, tmp_path, DOCUMENTS)).sigmoid().numpy(), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_a_regression_gives_its_numbers_as_they_are(count: int, tmp_path: Path) -> None:
    theirs = save_encoder(tmp_path, "Bert", "ForSequenceClassification", problem_type="regression", num_labels=count)
    found = TextClassifier.from_folder(tmp_path).classify(DOCUMENTS)
    assert found.numbers and np.allclose(found.probabilities, logits_of(theirs, tmp_path, DOCUMENTS), atol=1e-5)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranker")
    save_encoder(folder, "Bert", "ForSequenceClassification", num_labels=1)
    return folder


def test_company_and_order_do_not_matter(ranker: Path) -> None:
    ours = CrossEncoder.from_folder(ranker)
    many = DOCUMENTS * (TOKENS_PER_BATCH // 60)  # several batches
    together = ours.rank(QUERY, many)
    assert together.tokens > TOKENS_PER_BATCH
    alone = [ours.rank(QUERY, [document]).scores[0] for document in DOCUMENTS]
    assert np.allclose(together.scores, alone * (len(many) // len(DOCUMENTS)), atol=1e-6)
    assert ours.rank(QUERY, []).scores == []


def test_settings_may_ask_for_the_models_own_numbers(ranker: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ranker, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config))
    own = np.array(CrossEncoder.from_folder(folder).rank(QUERY, DOCUMENTS).scores)
    assert np.allclose(
        1 / (1 + np.exp(-own)), CrossEncoder.from_folder(ranker).rank(QUERY, DOCUMENTS).scores, atol=1e-5
    )
    config["sentence_transformers"] = {"activation_fn": "os.system"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Unsupported, match=r"os\.system"):
        CrossEncoder.from_folder(folder)


def test_types_of_segments_are_left_out_where_the_tokenizer_names_none(ranker: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ranker, tmp_path / "untyped")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    typed, untyped = (CrossEncoder.from_folder(one).rank(QUERY, DOCUMENTS).scores for one in (ranker, folder))
    assert not np.allclose(typed, untyped, atol=1e-3)


def test_bfloat16_is_near_and_says_so_in_the_digest(ranker: Path) -> None:
    exact, rough = CrossEncoder.from_folder(ranker), CrossEncoder.from_folder(ranker, precision="bfloat16")
    assert exact.digest != rough.digest
    assert np.allclose(exact.rank(QUERY, DOCUMENTS).scores, rough.rank(QUERY, DOCUMENTS).scores, atol=0.05)


def test_entries_that_are_not_texts_are_named(ranker: Path) -> None:
    with pytest.raises(InputError, match="Text 1 is of type int"):
        CrossEncoder.from_folder(ranker).rank(QUERY, ["a", 3])  # type: ignore[list-item]


def test_what_is_no_such_model_is_refused_by_name(ranker: Path, tmp_path: Path) -> None:
    save_encoder(tmp_path / "bare", "Bert", "Model")
    with pytest.raises(InputError, match=r"architectures is .*BertModel"):
        CrossEncoder.from_folder(tmp_path / "bare")
    save_encoder(tmp_path / "three", "Bert", "ForSequenceClassification", **THREE)
    with pytest.raises(Unsupported, match="3 labels"):
        CrossEncoder.from_folder(tmp_path / "three")
    with pytest.raises(Unsupported, match="well two texts belong together, and no classes"):
        TextClassifier.from_folder(ranker)
    tensors = load_file(ranker / "model.safetensors")
    for name, change, said in (
        ("lacks", {"classifier.bias": None}, r"lack the tensor 'classifier\.bias'"),
        ("shape", {"bert.pooler.dense.weight": torch.zeros(3, 3)}, r"'bert\.pooler\.dense\.weight' has shape \[3, 3\]"),
        ("more", {"classifier.more": torch.zeros(1)}, r"unknown tensor 'classifier\.more'"),
    ):
        folder = shutil.copytree(ranker, tmp_path / name)
        changed = {key: tensor for key, tensor in (tensors | change).items() if tensor is not None}
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(InputError, match=said):
            CrossEncoder.from_folder(folder)


def test_a_folder_tells_what_it_holds_and_a_server_serves_it(ranker: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    import httpx2 as httpx
    from engine_world import make_folder

    from windlass.serve.app import create_app
    from windlass.serve.encoders.embedder import SentenceEncoder
    from windlass.serve.encoders.opening import encoder_in
    from windlass.serve.run import ServerThread

    save_encoder(tmp_path / "bare", "ModernBert", "Model")
    found, bare = encoder_in(ranker), encoder_in(tmp_path / "bare")
    assert isinstance(found, CrossEncoder) and isinstance(bare, SentenceEncoder)
    assert encoder_in(make_folder(tmp_path / "decoder")) is None and encoder_in(tmp_path / "nothing") is None
    app = create_app({}, {bare.name: bare}, rerankers={found.name: found})
    with ServerThread(app) as server, httpx.Client(base_url=server.url, timeout=20) as http:
        body = {"model": found.name, "query": QUERY, "documents": DOCUMENTS}
        results = http.post("/v1/rerank", json=body).json()["results"]
        scores = found.rank(QUERY, DOCUMENTS).scores
        assert [one["index"] for one in results] == sorted(range(len(scores)), key=lambda i: -scores[i])
        made = http.post("/v1/embeddings", json={"model": "bare", "input": DOCUMENTS[0]}).json()["data"][0]["embedding"]
        assert np.allclose(made, bare.embed(DOCUMENTS[:1]).vectors[0], atol=1e-6)
