"""Adapters come and go over HTTP, and the scores that evaluation harnesses ask for are those of the scorer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from engine_world import make_folder  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from windlass.build.transformer.hf import load_decoder  # noqa: E402
from windlass.core.protocols import Adaptable  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.engine.local import LocalModel  # noqa: E402
from windlass.serve.engine.scoring.scorer import Scorer  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("adapters")
    make_folder(root / "base")
    (root / "lora").mkdir()
    config = {"peft_type": "LORA", "r": 3, "lora_alpha": 9, "target_modules": ["q_proj", "down_proj"]}
    (root / "lora/adapter_config.json").write_text(json.dumps(config))
    generator, tensors = torch.Generator().manual_seed(0), {}
    for layer in range(2):
        for module, inputs in (("self_attn.q_proj", 32), ("mlp.down_proj", 64)):
            for which, shape in (("A", (3, inputs)), ("B", (32, 3))):
                key = f"base_model.model.model.layers.{layer}.{module}.lora_{which}.weight"
                tensors[key] = torch.randn(shape, generator=generator)
    save_file(tensors, root / "lora/adapter_model.safetensors")
    return root / "base", root / "lora"


@pytest.fixture(scope="module")
def http(folders: tuple[Path, Path]) -> Iterator[httpx.Client]:
    model = LocalModel.load(folders[0])
    assert isinstance(model, Adaptable)
    with (
        ServerThread(create_app({"base": model}, {})) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client
    model.close()


def write(http: httpx.Client, **more: Any) -> httpx.Response:
    body = {"model": "base", "prompt": "the cat sat", "temperature": 0, "max_tokens": 12, **more}
    return http.post("/v1/completions", json=body)


def test_an_adapter_comes_and_goes(http: httpx.Client, folders: tuple[Path, Path]) -> None:
    plain = write(http).json()["choices"][0]["text"]
    refused = write(http, adapter="french")
    assert refused.status_code == 404 and "'french'" in refused.json()["error"]["message"]
    where = {"lora_name": "french", "lora_path": str(folders[1])}
    loaded = http.post("/v1/load_lora_adapter", json=where)
    assert loaded.status_code == 200 and list(loaded.json()["adapters"]) == ["french"]
    assert http.post("/v1/load_lora_adapter", json=where).status_code == 400  # the name is taken
    changed = write(http, adapter="french").json()["choices"][0]["text"]
    assert changed != plain and write(http).json()["choices"][0]["text"] == plain
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "french"}).json()["adapters"] == {}
    assert http.post("/v1/unload_lora_adapter", json={"lora_name": "french"}).status_code == 404
    assert write(http, adapter="french").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"lora_name": "x", "lora_path": "/no/such/folder"}, 400, "adapter_model.safetensors is missing"),
        ({"lora_name": "x"}, 400, "lora_path"),
        ({"lora_name": "", "lora_path": "x"}, 400, "lora_name"),
        ({"model": "other", "lora_name": "x", "lora_path": "x"}, 404, "no model 'other'"),
    ],
)
def test_what_cannot_be_loaded_is_never_200(http: httpx.Client, body: dict[str, str], status: int, said: str) -> None:
    answer = http.post("/v1/load_lora_adapter", json=body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


@pytest.mark.parametrize("most", [0, 1])
def test_echoed_prompts_score_as_the_scorer_does(http: httpx.Client, folders: tuple[Path, Path], most: int) -> None:
    """As lm-evaluation-harness asks: prompts as tokens, several at once, `echo` and one alternative."""
    shots = [7 * i % 250 for i in range(40)]
    pairs = [([*shots, q, q + 1], [c, c + 3, 9]) for q in (5, 60) for c in (11, 12, 200)]
    body = {"model": "base", "echo": True, "logprobs": 1, "max_tokens": most, "temperature": 0, "seed": 1234}
    answer = http.post("/v1/completions", json=body | {"prompt": [[*c, *x] for c, x in pairs]})
    assert answer.status_code == 200
    expected = Scorer(load_decoder(folders[0])).loglikelihood(pairs)
    choices = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
    for (context, continuation), choice, (score, greedy) in zip(pairs, choices, expected, strict=True):
        span = slice(len(context), len(context) + len(continuation))
        logprobs = choice["logprobs"]["token_logprobs"][span]
        assert sum(logprobs) == pytest.approx(score, abs=1e-3)
        best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][span]]
        assert (logprobs == best) is greedy
