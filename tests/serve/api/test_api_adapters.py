"""Adapters come and go over HTTP, and the scores that evaluation harnesses ask for are those of the scorer."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from engine_world import make_folder, make_lora  # noqa: E402
from serving_fakes import Letters  # noqa: E402

from windlass.build.transformer.hf import load_decoder, weights_digest  # noqa: E402
from windlass.core.errors import InputError  # noqa: E402
from windlass.core.protocols import Adaptable  # noqa: E402
from windlass.core.values import ChatRequest, Message  # noqa: E402
from windlass.core.workspace import Workspace  # noqa: E402
from windlass.serve.adapter_folders import AdapterFolders  # noqa: E402
from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.engine.local import LocalModel  # noqa: E402
from windlass.serve.engine.scoring.scorer import Scorer  # noqa: E402
from windlass.serve.errors import HttpError  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("adapters")
    make_folder(root / "base")
    config = json.loads((make_lora(root / "lora") / "adapter_config.json").read_text())
    allowed = root / "allowed"
    for name in ("lora", "mismatched", "unreadable"):
        shutil.copytree(root / "lora", allowed / name)
    (allowed / "mismatched/adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    (allowed / "unreadable/adapter_config.json").write_text("{")
    shutil.copytree(root / "lora", allowed / "rounded")
    trained_on = {"name": "base", "weights": weights_digest(root / "base"), "bits": 8}
    (allowed / "rounded/base.json").write_text(json.dumps(trained_on))
    (allowed / "empty").mkdir()
    (allowed / "away").symlink_to(root / "lora")
    return root / "base", root / "lora"


@pytest.fixture(scope="module")
def http(folders: tuple[Path, Path]) -> Iterator[httpx.Client]:
    models = {name: LocalModel.load(folders[0], name=name, policy="fp32") for name in ("base", "other")}
    assert isinstance(models["base"], Adaptable)
    app = create_app(models, {"letters": Letters()}, adapter_folders=AdapterFolders([folders[1].parent / "allowed"]))
    with ServerThread(app) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
    for model in models.values():
        model.close()


def write(http: httpx.Client, model: str = "base", **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": "the cat sat", "temperature": 0, "max_tokens": 12, **more}
    return http.post("/v1/completions", json=body)


def load(http: httpx.Client, name: str = "french", **more: Any) -> httpx.Response:
    return http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": "lora", "model": "base", **more})


def unload(http: httpx.Client, name: str = "french") -> httpx.Response:
    return http.post("/v1/unload_lora_adapter", json={"lora_name": name})


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def error(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["message"])


def test_what_was_trained_beside_a_rounded_base_says_so(http: httpx.Client) -> None:
    caveat = load(http, "rounded", lora_path="rounded").json()["windlass"]["caveat"]
    assert "in 8 bits" in caveat and "adapters merge" in caveat
    told = {one["id"]: one["windlass"].get("caveat") for one in http.get("/v1/models").json()["data"]}
    assert told["rounded"] == caveat and told["base"] is None
    assert unload(http, "rounded").status_code == 200


def test_an_adapter_is_a_model_that_comes_and_goes(http: httpx.Client, folders: tuple[Path, Path]) -> None:
    plain = text(write(http))
    assert write(http, "french").status_code == 404
    loaded = load(http)
    card = loaded.json()
    assert loaded.status_code == 200 and (card["id"], card["parent"], card["root"]) == ("french", "base", "base")
    listed = {one["id"]: one for one in http.get("/v1/models").json()["data"]}
    assert listed["french"] == card == http.get("/v1/models/french").json()
    assert listed["base"]["parent"] is None and listed["base"]["root"] == "base"
    assert card["windlass"]["digest"] != listed["base"]["windlass"]["digest"]
    assert card["windlass"]["context"] == listed["base"]["windlass"]["context"]
    answer = write(http, "french")
    assert answer.json()["model"] == "french" and text(answer) != plain == text(write(http))
    model = LocalModel.load(folders[0], policy="fp32")
    request = ChatRequest([Message("user", "the cat sat")], temperature=0, max_tokens=12)
    assert text(answer) == model.load_adapter("x", folders[1]).complete(request).message.text
    model.close()
    asked = {"prompt": "the cat"}
    assert http.post("/tokenize", json={"model": "french", **asked}).json()["tokens"]
    gone = unload(http)
    assert gone.json() == {"id": "french", "object": "model", "deleted": True}
    assert unload(http).status_code == write(http, "french").status_code == 404
    assert "french" not in [one["id"] for one in http.get("/v1/models").json()["data"]]


def test_adapters_under_ever_new_names_leave_nothing_behind(http: httpx.Client, folders: tuple[Path, Path]) -> None:
    for name in ("one", "two", "three"):
        assert load(http, name).status_code == 200
        text(write(http, name))
        assert unload(http, name).status_code == 200
        assert f'model="{name}"' in http.get("/metrics").text, "who reads them later sees the last counts"
    text(write(http))
    assert load(http, "four").status_code == 200
    said = http.get("/metrics").text
    assert not any(f'model="{name}"' in said for name in ("one", "two", "three"))
    assert 'windlass_tokens_total{direction="output",model="base"}' in said
    assert unload(http, "four").status_code == 200


def test_an_unloaded_adapter_takes_its_template_along(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model = LocalModel.load(folders[0], policy="fp32")
    shutil.copytree(folders[1], tmp_path / "lora")
    (tmp_path / "lora/chat_template.jinja").write_text("{{ messages[0].content }} it says:")
    prompt = weakref.ref(model.load_adapter("x", tmp_path / "lora").prompt)
    assert prompt() is not None and prompt() is not model.prompt
    model.unload_adapter("x")
    gc.collect()
    assert prompt() is None
    model.close()


def test_the_document_names_the_adapters_of_the_moment(http: httpx.Client) -> None:
    def known() -> list[str]:
        paths = http.get("/openapi.json").json()["paths"]
        body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        return list(body["properties"]["model"]["enum"])

    assert known() == ["base", "other"]
    load(http)
    assert known() == ["base", "other", "french"]
    unload(http)
    assert known() == ["base", "other"]


def test_the_field_adapter_is_no_second_way(http: httpx.Client) -> None:
    answer = write(http, adapter="french")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "adapter"


def test_what_was_accepted_finishes_with_the_adapter_that_was_unloaded(http: httpx.Client) -> None:
    load(http)
    expected = text(write(http, "french", max_tokens=100))
    pieces, status = [], []
    body = {"model": "french", "prompt": "the cat sat", "temperature": 0, "max_tokens": 100, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                pieces.append(json.loads(line[6:])["choices"][0]["text"])
                if not status:
                    status.append(unload(http).status_code)
    assert status == [200] and "".join(pieces) == expected
    assert write(http, "french").status_code == 404


def test_names_are_given_once(http: httpx.Client) -> None:
    assert load(http).status_code == 200
    for name in ("french", "base", "other", "letters"):
        taken = load(http, name, model="other")
        assert taken.status_code == 400 and f"a model '{name}' already" in error(taken)
        assert taken.json()["error"]["code"] == "name_taken"
    assert load(http, "german", model="other").json()["parent"] == "other"
    assert unload(http).status_code == unload(http, "german").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"lora_path": "missing"}, 400, "no folder 'missing'"),
        ({"lora_path": "empty"}, 400, "adapter_model.safetensors is missing"),
        ({"lora_path": "mismatched"}, 400, "but rank 4 on this model needs [4, "),
        ({"lora_path": "unreadable"}, 400, "is not valid JSON"),
        ({"lora_path": ".."}, 403, "folder from which this server loads"),
        ({"lora_path": "../lora"}, 403, "folder from which this server loads"),
        ({"lora_path": "/etc"}, 403, "folder from which this server loads"),
        ({"lora_path": "/no/such/folder"}, 403, "folder from which this server loads"),
        ({"lora_path": "away"}, 403, "folder from which this server loads"),
        ({"lora_path": "a\0b"}, 400, "is not a path"),
        ({"lora_path": "a" * 5000}, 400, "is not a path"),
        ({"lora_path": None}, 400, "lora_path"),
        ({"lora_name": ""}, 400, "lora_name"),
        ({"lora_name": "x" * 201}, 400, "at most 200"),
        ({"model": None}, 400, "Models that take adapters: base, other"),
        ({"model": "nobody"}, 404, "no model 'nobody'"),
    ],
)
def test_what_cannot_be_loaded_is_never_200(http: httpx.Client, body: dict[str, str], status: int, said: str) -> None:
    answer = load(http, **body) if "lora_name" not in body else load(http, body["lora_name"])
    assert answer.status_code == status and said in error(answer)
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["base", "other", "letters"]


def test_without_a_folder_only_the_workspaces_adapters_are_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("adapter", "french") as draft:
            shutil.copytree(folders[1], draft.path, dirs_exist_ok=True)
        with ws.artifacts.build("dataset", "german") as draft:
            shutil.copytree(folders[1], draft.path, dirs_exist_ok=True)
        found = AdapterFolders(artifacts=ws.artifacts)
        assert (found.find("french@1") / "adapter_config.json").is_file()
        for name in ("german", "spanish", str(folders[1])):
            with pytest.raises(HttpError, match="neither an adapter of the workspace") as refused:
                found.find(name)
            assert refused.value.status == 403
    with pytest.raises(InputError, match="nowhere is not a folder"):
        AdapterFolders([tmp_path / "nowhere"])


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
