"""Whole models as one: against a naive merge of all tensors at once, loaded by transformers, refused where unfit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from windlass.build.adapt.merging.settings import METHODS, Merging
from windlass.build.adapt.merging.sources import Source
from windlass.build.adapt.merging.storing import write_folder
from windlass.build.adapt.merging.streaming import merge_folders
from windlass.build.transformer.hf import load_model
from windlass.cli.main import main
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

SHAPE = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": None,
}  # fmt: skip
TOKENS = torch.arange(2, 44, 2)[None] % 61
EXACT = [Merging(method, density=1.0 if method in ("ties", "dare_linear", "dare_ties") else None) for method in METHODS]
WORDS = {"[UNK]": 0, **{f"w{number}": number for number in range(1, 61)}}


def tokenizer(words: dict[str, int] = WORDS, **more: Any) -> str:
    content = {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
    }  # fmt: skip
    return json.dumps(content | more)


def made(folder: Path, seed: int, family: str = "Qwen2", dtype: torch.dtype = torch.float32, **more: Any) -> Source:
    """A random model near the one of seed 0, as a fine-tune of it would be."""
    shape = SHAPE | more
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**shape))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_((0.02 if seed else 0.0) * torch.randn(parameter.shape))
    model.to(dtype).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer())
    return Source(folder.name, folder)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def three(request, tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Base, and two that were trained from it."""
    folder = tmp_path_factory.mktemp("merging")
    names = ("base", "maths", "chat")
    return [made(folder / name, seed, tie_word_embeddings=request.param) for seed, name in enumerate(names)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else ["model.safetensors"]
    return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}


def merged(models: list[Source], base: Source | None, asked: Merging, folder: Path, **more: Any) -> dict:
    write_folder(models, base if asked.on_base else None, asked, folder, say=lambda line: None, **more)
    return weights(folder)


@pytest.mark.parametrize("asked", EXACT, ids=METHODS)
def test_a_model_with_itself_is_itself(three, asked: Merging, tmp_path) -> None:
    base, maths, _ = three
    found = merged([maths, maths], base, asked, tmp_path / "out")
    for name, tensor in weights(maths.folder).items():
        assert torch.allclose(found[name], tensor, rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("asked", EXACT, ids=METHODS)
@pytest.mark.parametrize("which", [0, 1])
def test_all_weight_on_one_is_that_one(three, asked: Merging, which: int, tmp_path) -> None:
    base, *models = three
    asked = Merging(asked.method, (1.0, 0.0) if which == 0 else (0.0, 1.0), asked.density)
    found = merged(models, base, asked, tmp_path / "out")
    for name, tensor in weights(models[which].folder).items():
        assert torch.allclose(found[name], tensor, rtol=1e-6, atol=1e-7), name


def test_each_method_is_its_definition(three, tmp_path) -> None:
    base, maths, chat = (weights(one.folder) for one in three)
    soup = merged(three[1:], None, Merging("linear", (1.0, 3.0)), tmp_path / "linear")
    ties = merged(three[1:], three[0], Merging("ties", (2.0, 1.0), 0.3, 0.7), tmp_path / "ties")
    dare = merged(three[1:], three[0], Merging("dare_linear", (1.0, 1.0), 0.5, seed=3), tmp_path / "dare")
    for name in base:
        one, two = maths[name] - base[name], chat[name] - base[name]
        assert torch.allclose(soup[name], 0.25 * maths[name] + 0.75 * chat[name], atol=1e-6)
        sizes = [delta.abs().flatten().sort().values for delta in (one, two)]
        kept = [
            delta * (delta.abs() >= size[-int(0.3 * len(size))]) for delta, size in zip((one, two), sizes, strict=True)
        ]
        votes = torch.stack([2 / 3 * kept[0], 1 / 3 * kept[1]])
        side = votes.sum(0).sign()
        for_it = (votes.sign() == side) & (votes != 0)
        total = (votes * for_it).sum(0) / (torch.tensor([2 / 3, 1 / 3]).view(2, *[1] * one.dim()) * for_it).sum(0)
        assert torch.allclose(ties[name], base[name] + 0.7 * total.nan_to_num(0.0), atol=1e-6), name
        change = dare[name] - base[name]
        choices = torch.stack([0 * one, 2 * one, 2 * two, 2 * one + 2 * two])
        assert ((choices - change).abs().min(0).values < 1e-5).all(), name
    assert not torch.allclose(dare["model.norm.weight"], base["model.norm.weight"] + 0)


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_order_does_not_matter(three, method: str, tmp_path) -> None:
    base, maths, chat = three
    one = merged([maths, chat], base, Merging(method, (1.0, 2.0)), tmp_path / "one")
    other = merged([chat, maths], base, Merging(method, (2.0, 1.0)), tmp_path / "other")
    assert all(torch.allclose(one[name], other[name], atol=1e-7) for name in one)


def test_the_same_seed_drops_the_same_and_files_do_not_matter(three, tmp_path) -> None:
    base, *models = three
    asked = Merging("dare_ties", density=0.5, seed=5)
    one = merged(models, base, asked, tmp_path / "one")
    (tmp_path / "small").mkdir()
    outcome = merge_folders(models, base, asked, tmp_path / "small", file_bytes=4000, say=print)
    assert outcome.files > 5 and outcome.kept is not None and all(abs(kept - 0.5) < 0.05 for kept in outcome.kept)
    other = weights(tmp_path / "small")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    another = merged(models, base, Merging("dare_ties", density=0.5, seed=6), tmp_path / "two")
    assert any(not torch.equal(one[name], another[name]) for name in one)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
def test_transformers_and_we_load_it_in_many_files_and_any_type(dtype: str | None, tmp_path) -> None:
    models = [made(tmp_path / f"m{seed}", seed, dtype=torch.bfloat16, tie_word_embeddings=True) for seed in (1, 2)]
    out = tmp_path / "out"
    shutil.copytree(models[0].folder, out)
    (out / "model.safetensors").unlink()
    merge_folders(models, None, Merging("slerp"), out, dtype=dtype, file_bytes=3000, say=print)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 3
    wanted = torch.float32 if dtype == "float32" else torch.bfloat16
    assert {tensor.dtype for tensor in weights(out).values()} == {wanted}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert theirs.lm_head.weight.data_ptr() == theirs.model.embed_tokens.weight.data_ptr()
    with torch.inference_mode():
        assert torch.allclose(load_model(out)(TOKENS), theirs(TOKENS).logits, atol=1e-4)


def test_a_tied_head_stays_tied_whether_files_hold_a_copy_or_not(three, tmp_path) -> None:
    base, *models = three
    copied = []
    for one in (base, *models):
        folder = tmp_path / f"copied-{one.name}"
        shutil.copytree(one.folder, folder)
        tensors = load_file(folder / "model.safetensors")
        if "lm_head.weight" in tensors:
            pytest.skip("has a head of its own")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        copied.append(Source(folder.name, folder))
    asked = Merging("dare_ties", density=0.5)
    plain = merged(models, base, asked, tmp_path / "plain")
    mixed = merged([models[0], copied[2]], copied[0], asked, tmp_path / "mixed")
    whole = merged(copied[1:], copied[0], asked, tmp_path / "whole")
    assert all(torch.equal(plain[name], mixed[name]) and torch.equal(plain[name], whole[name]) for name in plain)
    assert "lm_head.weight" not in mixed
    assert torch.equal(whole["lm_head.weight"], whole["model.embed_tokens.weight"])
    assert load_model(tmp_path / "whole").config.tied


def test_models_that_do_not_fit_together_are_refused_by_name(three, tmp_path) -> None:
    base, maths, _ = three
    tied = json.loads((base.folder / "config.json").read_text())["tie_word_embeddings"]

    def refused(other: Source, message: str) -> None:
        with pytest.raises(InputError, match=message):
            write_folder([maths, other], None, Merging(), tmp_path / "out", say=print)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))

    refused(made(tmp_path / "wide", 1, intermediate_size=32, tie_word_embeddings=tied), "ffn is 24 in one and 32")
    refused(made(tmp_path / "llama", 1, "Llama", tie_word_embeddings=tied), "model_type is 'qwen2' in one and 'llama'")
    refused(made(tmp_path / "untied", 1, tie_word_embeddings=not tied), "tied is")

    def copy(name: str) -> Source:
        shutil.copytree(maths.folder, tmp_path / name)
        return Source(name, tmp_path / name)

    other = copy("tokens")
    (other.folder / "tokenizer.json").write_text(tokenizer({**WORDS, "w60": 59, "w59": 60}))
    refused(other, "'w59' is number 59 in one and number 60 in the other")
    other = copy("splits")
    (other.folder / "tokenizer.json").write_text(tokenizer(pre_tokenizer=None))
    refused(other, "differ in their pre_tokenizer")
    for name, change, message in (
        ("shape", {"model.norm.weight": torch.ones(17)}, r"'model.norm.weight' has shape \[16\] in maths, but \[17\]"),
        ("more", {"value.weight": torch.ones(2)}, "more holds the tensor 'value.weight', which maths lacks"),
        (
            "broken",
            {"model.norm.weight": torch.full((16,), torch.nan)},
            "'model.norm.weight' holds numbers that are not",
        ),
        ("bits", {"model.norm.weight": torch.ones(16, dtype=torch.uint8)}, "is stored as F32, U8"),
    ):
        other = copy(name)
        tensors = load_file(other.folder / "model.safetensors") | change
        save_file(tensors, other.folder / "model.safetensors", {"format": "pt"})
        refused(other, message)
    other = copy("quantised")
    values = json.loads((other.folder / "config.json").read_text()) | {"quantization_config": {"bits": 4}}
    (other.folder / "config.json").write_text(json.dumps(values))
    refused(other, "quantization_config")
    with pytest.raises(InputError, match="exists already"):
        write_folder([maths, maths], None, Merging(), maths.folder, say=print)


@pytest.mark.parametrize("more", [{"id2label": {"0": "bad", "1": "good"}}, {"id2label": {"0": "a", "1": "b"}}])
def test_classifiers_are_merged_where_their_labels_are_the_same(more: dict[str, Any], tmp_path) -> None:
    shape = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
             "num_attention_heads": 2, "max_position_embeddings": 32}  # fmt: skip
    models = []
    for seed, labels in enumerate([{"id2label": {"0": "bad", "1": "good"}}, more]):
        torch.manual_seed(seed)
        config = transformers.BertConfig(**shape, **labels)
        transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / f"{seed}")
        models.append(Source(f"{seed}", tmp_path / f"{seed}"))
    if more["id2label"]["0"] != "bad":
        with pytest.raises(InputError, match="id2label is"):
            merged(models, None, Merging(), tmp_path / "out")
        return
    found = merged(models, None, Merging(), tmp_path / "out")
    assert "classifier.weight" in found and "bert.pooler.dense.weight" in found
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert torch.equal(theirs.classifier.weight, found["classifier.weight"])


def test_the_command_stores_a_model_with_its_lineage(three, tmp_path, capsys) -> None:
    with Workspace(tmp_path) as ws:
        for one in three:
            with ws.artifacts.build("model", one.name) as draft:
                for file in one.folder.iterdir():
                    shutil.copyfile(file, draft.path / file.name)
                draft.card["licence"] = "MIT"
        with ws.artifacts.build("adapter", "thin") as draft:
            (draft.path / "adapter_config.json").write_text("{}")
    options = ["--workspace", str(tmp_path)]
    ties = ["merge", "maths=0.5", "chat=0.5", "--method", "ties", "--base", "base", "--density", "0.3"]
    assert main([*ties, "--name", "both", *options]) == 0
    said = capsys.readouterr().out
    assert "away from the base, 29" in said and "both@1" in said and "merged by ties" in said
    with Workspace(tmp_path) as ws:
        both = ws.artifacts.get("both")
        roles = [(role, ws.artifacts.get(digest).record.name) for role, digest in both.record.parents]
        assert roles == [("model", "maths"), ("model", "chat"), ("base", "base")]
        assert both.card["density"] == 0.3 and both.card["licence"] == "MIT" and len(both.card["kept"]) == 2
        assert {"config.json", "tokenizer.json", "merge.json", "model.safetensors"} <= both.record.files.keys()
        load_model(both.path)
    assert main([*ties, "--out", str(tmp_path / "folder"), *options]) == 0
    assert torch.equal(weights(tmp_path / "folder")["model.norm.weight"], weights(both.path)["model.norm.weight"])
    capsys.readouterr()
    for wrong, message in (
        (["merge", "maths", "thin"], "of kind 'adapter', not a model"),
        (["merge", "maths=1", "chat"], "Some models have a weight"),
        (["merge", "maths", "chat", "--method", "ties"], "no base is named"),
        (["merge", "maths", "nobody"], "no artifact 'nobody'"),
    ):
        assert main([*wrong, *options]) != 0
        assert message in capsys.readouterr().err


def test_folders_are_merged_without_a_workspace(three, tmp_path, capsys) -> None:
    _, maths, chat = three
    where = tmp_path / "new" / "out"
    assert main(["merge", str(maths.folder), str(chat.folder), "--out", str(where)]) == 0
    assert "merged by linear" in capsys.readouterr().out
    load_model(where)
