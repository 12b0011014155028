"""`windlass export` and `windlass import`: a model leaves as a file and comes back as an artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model
from windlass.build.transformer.init import initialise
from windlass.cli import main as cli
from windlass.core.workspace import Workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    decoder = Decoder(TransformerConfig(300, hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, ffn=32, context=32))
    initialise(decoder, 0)
    save_model(decoder, tmp_path / "model", bos=256, eos=256)
    tokens = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def test_there_and_back(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path).close()
    assert cli.main(["export", str(folder), "--type", "f32"]) == 0
    assert "model.gguf" in (said := capsys.readouterr().out) and "gpt-2" in said and "llama" in said
    assert cli.main(["import", "model.gguf", "--name", "back"]) == 0
    assert "back@1" in (said := capsys.readouterr().out) and "tokenizer: yes, chat template: no" in said
    with Workspace(tmp_path) as ws:
        artifact = ws.artifacts.get("back")
        assert artifact.card["parameters"] == sum(
            t.numel() for t in load_file(artifact.path / "model.safetensors").values()
        )
        mine, theirs = load_file(folder / "model.safetensors"), load_file(artifact.path / "model.safetensors")
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        ids = [Tokenizer.from_file(str(p / "tokenizer.json")).encode("Lift!").ids for p in (folder, artifact.path)]
        assert ids[0] == ids[1]
        assert json.loads((artifact.path / "config.json").read_text())["eos_token_id"] == 256
    assert cli.main(["export", "back", "-o", "again.gguf", "--type", "f32"]) == 0
    assert (tmp_path / "again.gguf").stat().st_size > 0


def test_refusals_are_two_lines(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Workspace(tmp_path).close()
    (tmp_path / "x.gguf").write_bytes(b"no")
    assert cli.main(["import", "x.gguf"]) == 2
    assert "not a sound GGUF file" in capsys.readouterr().err
    assert cli.main(["export", str(folder), "--type", "q2"]) == 2
    assert "Choose one of: f32" in capsys.readouterr().err
    with Workspace(tmp_path) as ws:
        assert not list(ws.store.artifacts("model"))
