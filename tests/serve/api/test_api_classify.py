"""/v1/classify: any family's folder, recognised by its configuration, says what transformers says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("uvicorn")
from encoder_world import save_encoder  # noqa: E402

from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.encoders.cross_encoder import TextClassifier  # noqa: E402
from windlass.serve.encoders.opening import encoder_in  # noqa: E402
from windlass.serve.limits import Limits  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}}
FAMILIES = ["Bert", "Roberta", "XLMRoberta", "DistilBert", "ModernBert"]
TEXTS: list[Any] = ["pump moves water", "", "bread rises in the mat", ["the old pump", "water"], "日本 unknown"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("classifiers")
    for family in FAMILIES:
        save_encoder(root / family, family, "ForSequenceClassification", **LABELS)
    several = {"problem_type": "multi_label_classification", **LABELS}
    save_encoder(root / "several", "Bert", "ForSequenceClassification", **several)
    for name, count in (("grade", 1), ("grades", 2)):
        number = {"problem_type": "regression", "num_labels": count}
        save_encoder(root / name, "Bert", "ForSequenceClassification", **number)
    one = {"problem_type": "multi_label_classification", "id2label": {0: "urgent"}}
    save_encoder(root / "mark", "Bert", "ForSequenceClassification", **one)
    return root


@pytest.fixture(scope="module")
def http(root: Path) -> Iterator[httpx.Client]:
    found = {folder.name: encoder_in(folder) for folder in root.iterdir()}
    assert all(isinstance(one, TextClassifier) for one in found.values())
    app = create_app({}, {}, classifiers=found, limits=Limits(texts=8))  # type: ignore[arg-type]
    with ServerThread(app) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@torch.inference_mode()
def logits(folder: Path, texts: list[Any]) -> Any:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        first, second = (text, None) if isinstance(text, str) else text
        pair = ([first], None if second is None else [second])
        types = model.config.model_type == "bert"
        read = tokenizer(*pair, truncation=True, return_tensors="pt", return_token_type_ids=types)
        rows.append(model(**read).logits[0])
    return torch.stack(rows)


def classify(http: httpx.Client, model: str, texts: Any, path: str = "/v1/classify", **more: Any) -> httpx.Response:
    return http.post(path, json={"model": model, "input": texts, **more})


@pytest.mark.parametrize("family", FAMILIES)
def test_says_what_transformers_says(http: httpx.Client, root: Path, family: str) -> None:
    answer = classify(http, family, TEXTS).json()
    expected = logits(root / family, TEXTS).softmax(-1).numpy()
    assert [one["index"] for one in answer["data"]] == list(range(len(TEXTS)))
    assert np.allclose([one["probs"] for one in answer["data"]], expected, atol=1e-5)
    assert answer["windlass"] == {"labels": ["bad", "fair", "good"], "numbers": False, "truncated": 0}
    assert [one["label"] for one in answer["data"]] == [LABELS["id2label"][int(row.argmax())] for row in expected]
    assert {one["num_classes"] for one in answer["data"]} == {3} and np.ptp(expected) > 0.05
    assert answer["object"] == "list" and answer["model"] == family
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > len(TEXTS)


def test_labels_that_do_not_exclude_each_other(http: httpx.Client, root: Path) -> None:
    answer = classify(http, "several", TEXTS[:3]).json()
    expected = logits(root / "several", TEXTS[:3]).sigmoid().numpy()
    assert np.allclose([one["probs"] for one in answer["data"]], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["grade", "grades"])
def test_a_regression_gives_its_numbers_and_no_label(http: httpx.Client, root: Path, name: str) -> None:
    answer = classify(http, name, TEXTS).json()
    assert np.allclose([one["probs"] for one in answer["data"]], logits(root / name, TEXTS).numpy(), atol=1e-5)
    assert {one["label"] for one in answer["data"]} == {None} and answer["windlass"]["numbers"] is True


def test_one_label_that_holds_or_not_is_classified(http: httpx.Client, root: Path) -> None:
    answer = classify(http, "mark", TEXTS[:3]).json()
    expected = logits(root / "mark", TEXTS[:3]).sigmoid().numpy()
    assert np.allclose([one["probs"] for one in answer["data"]], expected, atol=1e-5)
    assert {one["label"] for one in answer["data"]} == {"urgent"}


def test_one_text_and_the_other_path(http: httpx.Client) -> None:
    one = classify(http, "Bert", TEXTS[0]).json()["data"]
    assert one == classify(http, "Bert", TEXTS[:1], "/classify").json()["data"] and len(one) == 1
    assert classify(http, "Bert", "a cat " * 50).json()["windlass"]["truncated"] == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"input": 3}, 400, "input"),
        ({"input": [3]}, 400, "input[0]"),
        ({"input": [[1, 2, 3]]}, 400, "input[0]"),
        ({"input": ["a", ["b"]]}, 400, "input[1]"),
        ({"input": ["a"] * 9}, 400, "input"),
        ({"model": "nobody"}, 404, "model"),
        ({"truncate_prompt_tokens": 3}, 400, "truncate_prompt_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    http: httpx.Client, body: dict[str, Any], status: int, param: str
) -> None:
    answer = http.post("/v1/classify", json={"model": "Bert", "input": "a", **body})
    assert answer.status_code == status and answer.json()["error"]["param"] == param


def test_models_and_document_tell_of_it(http: httpx.Client) -> None:
    cards = {one["id"]: one for one in http.get("/v1/models").json()["data"]}
    assert cards["Bert"]["windlass"]["kinds"] == ["classify"]
    body = http.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["model", "input"] and "Roberta" in schema["properties"]["model"]["enum"]
