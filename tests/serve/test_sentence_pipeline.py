"""Any folder of sentence-transformers gives the vectors that the library gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_world import save_encoder

from windlass.core.errors import InputError, Unsupported
from windlass.serve.encoders.embedder import SentenceEncoder

TEXTS = ["pump moves water", "", "bread rises", "a cat " * 30, "the violin music is old"]


def settings_of(folder: Path, modules: list[tuple[str, str]], **files: Any) -> None:
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    for name, values in files.items():
        path = folder / name.replace("__", "/")
        path.mkdir(exist_ok=True, parents=True)
        (path / "config.json").write_text(json.dumps(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "model", "Bert", "Model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "pooling", ["mean", "cls", "max", "mean_sqrt_len_tokens", "lasttoken", ["cls", "mean"]], ids=str
)
@pytest.mark.parametrize("dense", ["", "Tanh", "GELU"])
@pytest.mark.filterwarnings("ignore")
def test_equals_sentence_transformers(tmp_path: Path, pooling: str | list[str], dense: str) -> None:
    library = pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers.sentence_transformer import modules as steps

    save_encoder(tmp_path / "bert", "Bert", "Model")
    transformer = steps.Transformer(str(tmp_path / "bert"))
    found = [transformer, steps.Pooling(32, pooling)]
    if dense:
        torch.manual_seed(1)
        activation = getattr(torch.nn, dense)()
        width = 32 if isinstance(pooling, str) else 64
        found.append(steps.Dense(width, 12, activation_function=activation))
    prompts = {"query": "the old: ", "document": "new "}
    peer = library.SentenceTransformer(modules=[*found, steps.Normalize()], prompts=prompts, device="cpu")
    peer.save_pretrained(str(tmp_path / "model"))
    ours = SentenceEncoder.from_folder(tmp_path / "model")
    for kind, theirs in (("query", peer.encode_query), ("passage", peer.encode_document)):
        made = ours.embed(TEXTS, kind)  # type: ignore[arg-type]
        assert made.vectors.shape == (len(TEXTS), ours.dimension) and made.truncated == 1
        assert np.abs(made.vectors - theirs(TEXTS, show_progress_bar=False)).max() < 1e-5


def test_the_digest_tells_poolings_prompts_and_dense_layers_apart(folder: Path, tmp_path: Path) -> None:
    digests = {SentenceEncoder.from_folder(folder).digest}
    for mode in ("cls", "mean"):
        settings_of(folder, [("Transformer", ""), ("Pooling", "pool")], pool={"pooling_mode": mode})
        digests.add(SentenceEncoder.from_folder(folder).digest)
    assert len(digests) == 2  # the mean is what a folder without settings gets
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    assert SentenceEncoder.from_folder(folder).digest not in digests


def test_the_default_prompt_stands_before_kinds_without_one(folder: Path) -> None:
    plain = SentenceEncoder.from_folder(folder)
    settings = {"prompts": {"query": "the ", "other": "violin "}, "default_prompt_name": "other"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompted = SentenceEncoder.from_folder(folder)
    for kind, prompt in (("query", "the "), ("passage", "violin ")):
        expected = plain.embed([prompt + "cat"]).vectors
        assert np.array_equal(prompted.embed(["cat"], kind).vectors, expected)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="list of texts"):
        prompted.embed("cat")
    with pytest.raises(InputError, match="Text 0 is of type int"):
        prompted.embed([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("modules", "files", "error", "said"),
    [
        ([("Transformer", ""), ("Router", "")], {}, Unsupported, "module Router"),
        ([("Pooling", "p")], {"p": {"pooling_mode": "weightedmean"}}, Unsupported, "pooling by weightedmean"),
        ([("Pooling", "p")], {"p": {"pooling_mode_weightedmean_tokens": True}}, Unsupported, "by weightedmean_tokens"),
        ([("Pooling", "p")], {"p": {"pooling_mode_cls_token": False}}, Unsupported, "pooling by nothing"),
        ([("Pooling", "p")], {"p": {"pooling_mode": "cls", "include_prompt": False}}, Unsupported, "include_prompt"),
        ([("Pooling", "p")], {}, InputError, "p/config.json is missing"),
        ([("Dense", "d")], {"d": {"activation_function": "os.system"}}, Unsupported, r"os\.system"),
        ([("Dense", "d")], {"d": {}}, InputError, "d/model.safetensors is missing"),
    ],
)
def test_what_is_not_known_is_refused_by_name(folder: Path, modules, files, error, said: str) -> None:
    settings_of(folder, modules, **files)
    with pytest.raises(error, match=said):
        SentenceEncoder.from_folder(folder)


def test_a_dense_layer_of_another_model_is_refused(folder: Path) -> None:
    from safetensors.torch import save_file
    from torch import zeros

    settings_of(folder, [("Transformer", ""), ("Dense", "d")], d={})
    save_file({"linear.weight": zeros(4, 31)}, folder / "d/model.safetensors")
    with pytest.raises(InputError, match="takes 31 numbers, but 32 come before"):
        SentenceEncoder.from_folder(folder)
    shutil.rmtree(folder / "d")
