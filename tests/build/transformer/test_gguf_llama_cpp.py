"""Against llama.cpp: the same logits within its own tolerance, the same tokens for the same text.

Needs an interpreter with llama-cpp-python: this one, or the one that WINDLASS_LLAMA_CPP names.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf_world import BASE, CONFIGS, random_decoder, save_random
from test_gguf_vocabulary import SIZE, TEXT, byte_level, sentencepiece
from tokenizers import Tokenizer

from windlass.build.transformer.gguf.exporting import export_gguf
from windlass.build.transformer.gguf.importing import load_gguf
from windlass.build.transformer.gguf.vocabulary import SPLITS
from windlass.build.transformer.hf import load_decoder, save_model

PYTHON = os.environ.get("WINDLASS_LLAMA_CPP") or (sys.executable if importlib.util.find_spec("llama_cpp") else None)
TOKENS = [(i * 7 + 3) % 288 for i in range(40)]
TEXTS = [
    *TEXT,
    "I'll we've you'd THEY'RE it'S",
    "a1b22c333d4444e55555 1/2 ½ ٣٤",
    "\n\n  \n\tx \r\n y  \n",
    "x = {'k': [1, 2.5e-3]}; // done!!",
    "ﬁne … “quoted” — dash–dash",
    " ",
    "é́e\u0301 नमस्ते สวัสดี",
]
SLACK = {"f32": 1e-3, "f16": 5e-3, "bf16": 4e-2, "q8_0": 1e-1, "q4_0": 0.2}
"""Typical difference of a logit, over their spread: llama.cpp rounds activations too, to a type that fits the weights'.
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="llama-cpp-python is not installed (pip install llama-cpp-python)"),
]


def ask(tmp_path: Path, models: list[Path], texts: list[str] = (), context: int = 64) -> dict[str, np.ndarray]:
    tokens = TOKENS[:context]
    question = {"models": [str(path) for path in models], "context": context, "tokens": tokens, "texts": list(texts)}
    (tmp_path / "ask.json").write_text(json.dumps(question), encoding="utf-8")
    peer = Path(__file__).with_name("llama_cpp_peer.py")
    answer = tmp_path / "answer.npz"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(PYTHON), str(peer), str(tmp_path / "ask.json"), str(answer)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(answer))


def difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float((ours - torch.from_numpy(theirs)).square().mean().sqrt() / ours.std())


def test_logits_are_equal(tmp_path):
    """In one process of theirs, since starting it takes longest."""
    ours = {name: save_random(name, tmp_path / name) for name in CONFIGS}
    paths = [tmp_path / f"{name}.gguf" for name in CONFIGS]
    for name, path in zip(CONFIGS, paths, strict=True):
        export_gguf(tmp_path / name, path, type="f32", tokenizer=False)
    answer = ask(tmp_path, paths)
    with torch.inference_mode():
        apart = {
            name: difference(ours[name](torch.tensor([TOKENS]))[0], answer[f"logits{number}"])
            for number, name in enumerate(CONFIGS)
        }
    assert {name: value for name, value in apart.items() if not value < SLACK["f32"]} == {}


def test_short_texts_keep_longropes_short_factors(tmp_path):
    """llama.cpp chooses by the window that it was started with, a multiple of 256, not by the text."""
    short = 256
    scaling = dataclasses.replace(CONFIGS["phi3-long"][1].rope_scaling, original_context=short)
    ours = random_decoder(dataclasses.replace(BASE, context=4 * short, rope_scaling=scaling))
    save_model(ours, tmp_path / "model", family="phi3", bos=1, eos=2)
    export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="f32", tokenizer=False, context=short)
    logits = ask(tmp_path, [tmp_path / "m.gguf"], context=short)["logits0"]
    with torch.inference_mode():
        assert difference(ours(torch.tensor([TOKENS]))[0], logits) < SLACK["f32"]


def test_every_type_is_read_by_both_alike(tmp_path):
    save_random("qwen3", tmp_path / "model")
    paths = [tmp_path / f"{type}.gguf" for type in SLACK]
    for type, path in zip(SLACK, paths, strict=True):
        export_gguf(tmp_path / "model", path, type=type, tokenizer=False)
    answer = ask(tmp_path, paths)
    with torch.inference_mode():
        apart = {
            type: difference(load_gguf(path)(torch.tensor([TOKENS]))[0], answer[f"logits{number}"])
            for number, (type, path) in enumerate(zip(SLACK, paths, strict=True))
        }
    assert {type: value for type, value in apart.items() if not value < SLACK[type]} == {}


def tokenized(tmp_path: Path, content: dict, bos: int) -> tuple[Tokenizer, dict[str, np.ndarray]]:
    config = dataclasses.replace(BASE, vocab_size=SIZE)
    save_model(random_decoder(config), tmp_path / "model", bos=bos, eos=bos + 1)
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    export_gguf(tmp_path / "model", tmp_path / "m.gguf", type="f32")
    answer = ask(tmp_path, [tmp_path / "m.gguf"], TEXTS)
    with torch.inference_mode():
        ours = load_decoder(tmp_path / "model")(torch.tensor([TOKENS]))[0]
    assert difference(ours, answer["logits0"]) < SLACK["f32"]
    return Tokenizer.from_str(json.dumps(content)), answer


@pytest.mark.parametrize("rule", SPLITS)
def test_the_same_text_becomes_the_same_tokens(rule, tmp_path):
    ours, answer = tokenized(tmp_path, byte_level(rule), 0)
    ours.encode_special_tokens = True
    for at, text in enumerate(TEXTS):
        assert ours.encode(text).ids == answer[f"text0_{at}"].tolist(), text


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_cuts_alike(prefix, tmp_path):
    ours, answer = tokenized(tmp_path, sentencepiece(prefix), 1)
    ours.encode_special_tokens = True
    for at, text in enumerate(TEXTS):
        assert ours.encode(text, add_special_tokens=False).ids == answer[f"text0_{at}"].tolist(), text
        assert ours.encode(text).ids == answer[f"whole0_{at}"].tolist(), text
