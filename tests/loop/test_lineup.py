"""What a server offers: every folder by what it holds, adapters on their base, and no name twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("starlette")
from encoder_world import save_encoder
from engine_world import make_folder, make_lora

from windlass.build.transformer.hf import weights_digest
from windlass.core.errors import ConfigError, InputError, NotFound
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.lineup import load_lineup

ASKED = ChatRequest([Message("user", "the cat sat")], temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lineup")
    make_folder(root / "base")
    make_folder(root / "again/base")
    make_lora(root / "lora")
    (root / "empty").mkdir()
    (root / "model.gguf").write_text("GGUF")
    save_encoder(root / "vectors", "Bert", "Model")
    save_encoder(root / "ranker", "Bert", "ForSequenceClassification", num_labels=1)
    save_encoder(root / "sorter", "Bert", "ForSequenceClassification", num_labels=3)
    return root


def test_folders_are_recognised_and_adapters_are_models(root: Path, tmp_path: Path) -> None:
    names = [str(root / name) for name in ("base", "vectors", "ranker", "sorter")]
    with Workspace(tmp_path) as ws:
        lineup = load_lineup(ws, names, adapters=[("french", str(root / "lora"))], max_batch=2)
        assert list(lineup.models) == ["base"] and lineup.adapters == ["french"]
        assert list(lineup.rerankers) == ["ranker"] and list(lineup.classifiers) == ["sorter"]
        assert list(lineup.embedders)[:1] == ["vectors"]
        base = lineup.models["base"]
        french = base.adapters["french"]  # type: ignore[attr-defined]
        assert french.complete(ASKED).message.text != base.complete(ASKED).message.text
        assert french.complete(ASKED).model == "french"
        base.close()  # type: ignore[attr-defined]


def test_an_adapter_of_a_rounded_base_comes_with_a_caveat(root: Path, tmp_path: Path) -> None:
    rounded = tmp_path / "rounded"
    shutil.copytree(root / "lora", rounded)
    trained_on = {"name": "base", "weights": weights_digest(root / "base")}
    (rounded / "base.json").write_text(json.dumps(trained_on | {"bits": 4}))
    adapters = [("whole", str(root / "lora")), ("rounded", str(rounded))]
    lineup = load_lineup(None, [str(root / "base")], adapters=adapters, policy="fp32")
    (caveat,) = lineup.caveats
    for said in ("'rounded'", "in 4 bits", "'base' in fp32", "windlass adapters merge"):
        assert said in caveat
    base: Any = lineup.models["base"]
    assert base.adapters["rounded"].caveat == caveat and base.adapters["whole"].caveat is None
    base.unload_adapter("rounded")
    (rounded / "base.json").write_text(json.dumps(trained_on))
    assert base.load_adapter("rounded", rounded).caveat is None, "the same name, of another folder"
    (rounded / "base.json").write_text(json.dumps(trained_on | {"bits": 3}))
    with pytest.raises(InputError, match="bits is 3"):
        base.load_adapter("third", rounded)
    base.close()


def test_without_a_workspace_there_is_what_lies_in_folders(root: Path) -> None:
    lineup = load_lineup(None, [str(root / "ranker")])
    assert list(lineup.rerankers) == ["ranker"]
    base = [str(root / "base")]
    for names, wishes, said in (
        ([], {}, "no models but in folders"),
        (["nobody"], {}, "no folder nobody"),
        ([str(root / "empty")], {}, "holds no config.json"),
        (base, {"adapters": [("one", "nowhere")]}, "nowhere.* is missing"),
        (base, {"speculate": "nothing"}, "nothing.* is missing"),
    ):
        with pytest.raises(InputError, match=said):
            load_lineup(None, names, **wishes, **({"policy": "fp32"} if names == base else {}))


def test_an_adapter_may_be_an_artifact(root: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("adapter", "french") as draft:
            shutil.copytree(root / "lora", draft.path, dirs_exist_ok=True)
        lineup = load_lineup(ws, [str(root / "base")], adapters=[("one", "french@1")])
        assert lineup.adapters == ["one"]
        with pytest.raises(NotFound, match="no artifact 'german'"):
            load_lineup(ws, [str(root / "base")], adapters=[("one", "german")])


@pytest.mark.parametrize(
    ("names", "adapters", "error", "said"),
    [
        (["base", "again/base"], [], InputError, "Two models are called 'base'"),
        (["base"], [("base", "lora")], InputError, "Two models are called 'base'"),
        (["base"], [("one", "lora"), ("one", "lora")], InputError, "Two models are called 'one'"),
        (["base", "sorter"], [("sorter", "lora")], InputError, "Two models are called 'sorter'"),
        (["sorter"], [("one", "lora")], ConfigError, "0 take adapters"),
        (["nowhere"], [], InputError, "There is no folder .*nowhere"),
        (["empty"], [], InputError, r"empty holds no config\.json"),
        (["model.gguf"], [], InputError, "is a file, not a model's folder"),
        (["base"], [("one", "sorter")], InputError, "adapter_model.safetensors is missing"),
    ],
)
def test_what_is_not_clear_is_refused(
    root: Path, tmp_path: Path, names: list[str], adapters: list[tuple[str, str]], error: type[Exception], said: str
) -> None:
    with Workspace(tmp_path) as ws, pytest.raises(error, match=said):
        placed = [(name, str(root / folder)) for name, folder in adapters]
        load_lineup(ws, [str(root / name) for name in names], adapters=placed)


def test_models_guess_ahead_where_that_is_asked_for(root: Path, tmp_path: Path) -> None:
    texts = []
    with Workspace(tmp_path) as ws:
        for how in (None, "lookup", str(root / "again/base")):
            lineup = load_lineup(ws, [str(root / "base")], speculate=how, policy="fp32")
            base = lineup.models["base"]
            texts.append(base.complete(replace(ASKED, max_tokens=80)).message.text)
            stats = base.stats()  # type: ignore[attr-defined]
            assert ("speculation_offered" in stats) == (how is not None)
            assert how != str(root / "again/base") or stats["speculation_offered"] >= stats["speculation_accepted"] > 0
            base.close()  # type: ignore[attr-defined]
        assert texts[0] == texts[1] == texts[2]
        other = json.loads((root / "again/base/tokenizer.json").read_text())
        other["model"]["vocab"] = {token: 279 - number for token, number in other["model"]["vocab"].items()}
        shutil.copytree(root / "again/base", tmp_path / "other")
        (tmp_path / "other/tokenizer.json").write_text(json.dumps(other))
        with pytest.raises(InputError, match="has other tokens than the model that is served: '"):
            load_lineup(ws, [str(root / "base")], speculate=str(tmp_path / "other"))
        with pytest.raises(NotFound, match="no artifact 'nothing'"):
            load_lineup(ws, [str(root / "base")], speculate="nothing")
