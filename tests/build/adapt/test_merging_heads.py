"""An adapter trained with a head, a pooling or a score is merged later into what training would have stored at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from encoder_rows import asked, rows_for, written
from encoder_world import save_encoder
from safetensors.torch import load_file, save_file
from tuned_world import make_home

from windlass.build.adapt.peft.artifacts import combine_stored, facts, merge_stored, stored
from windlass.build.adapt.sections import AdapterSettings, BaseSettings
from windlass.build.adapt.tuning import tune
from windlass.build.transformer.embedder_files import Embedder, read_limit, read_recipe
from windlass.build.transformer.hf import load_encoder
from windlass.build.transformer.reward_model import load_reward_model
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, Unsupported
from windlass.core.workspace import Workspace
from windlass.serve.encoders.embedder import SentenceEncoder
from windlass.serve.encoders.opening import encoder_in

AUTO = {
    "classify": transformers.AutoModelForSequenceClassification,
    "regress": transformers.AutoModelForSequenceClassification,
    "rank": transformers.AutoModelForSequenceClassification,
    "tag": transformers.AutoModelForTokenClassification,
    "extract": transformers.AutoModelForQuestionAnswering,
    "embed": transformers.AutoModel,
}
LORA = AdapterSettings("lora", rank=2)


def quiet(line: str) -> None:
    pass


def same(later: Path, at_once: Path) -> None:
    """Equal weights and, apart from the card, equal files."""
    one, other = (load_file(folder / "model.safetensors") for folder in (later, at_once))
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        assert torch.allclose(one[name], tensor, atol=1e-6), name
    configs = [json.loads((folder / "config.json").read_text()) for folder in (later, at_once)]
    for field in ("architectures", "id2label", "problem_type", "vocab_size", "hidden_size", "pad_token_id"):
        assert configs[0].get(field) == configs[1].get(field), field
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (later, at_once)]
    assert files[1] - files[0] <= {"README.md"} and files[0] - files[1] <= {"generation_config.json"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked-language model, whose own head no adapter here has a use for, with the pooling of an embedder."""
    folder = tmp_path_factory.mktemp("heads") / "base"
    save_encoder(folder, "Bert", "ForMaskedLM", initializer_range=0.1)
    modules = [{"path": "", "type": "st.models.Transformer"}, {"path": "1_Pooling", "type": "st.models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "cls"}), encoding="utf-8")
    prompts = {"prompts": {"query": "the old ", "document": "a "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    return folder


def tuned(home: Path, base: Path, kind: str, adapter: AdapterSettings) -> Artifact:
    rows = written(home / f"{kind}.jsonl", rows_for(kind, 40))
    with Workspace(home) as ws:
        return tune(ws, asked(base, rows, kind, adapter=adapter), say=quiet)


@pytest.mark.parametrize("kind", AUTO)
def test_a_stored_adapter_of_an_encoder_is_merged_as_training_would_have(base, tmp_path, kind: str) -> None:
    beside = tuned(tmp_path, base, kind, LORA)
    at_once = tuned(tmp_path, base, kind, replace(LORA, merge=True))
    with Workspace(tmp_path) as ws:
        one = stored(ws, beside.ref, str(base))
        later = merge_stored(ws, one, "later")
        assert facts(one)["ranks"] == [2]
    assert later.card["merge_error"] < 1e-4
    same(later.path, at_once.path)
    _, told = AUTO[kind].from_pretrained(later.path, output_loading_info=True)
    assert not told["unexpected_keys"] and all("pooler" in key for key in told["missing_keys"])
    if kind == "embed":
        assert read_recipe(later.path) == read_recipe(base) and read_limit(later.path) == read_limit(at_once.path)
        served = encoder_in(later.path)
        assert isinstance(served, SentenceEncoder)
        assert abs(float((served.embed(["the cat"], "query").vectors ** 2).sum()) - 1) < 1e-5


def test_adapters_of_embedders_are_combined_and_keep_their_pooling(base, tmp_path) -> None:
    with Workspace(tmp_path) as ws:
        rows = written(tmp_path / "embed.jsonl", rows_for("embed", 40))
        for seed, name in enumerate(("french", "legal")):
            settings = asked(base, rows, "embed", adapter=LORA)
            tune(ws, replace(settings, run=replace(settings.run, name=name, seed=seed)), say=quiet)
        ones = [(stored(ws, name, str(base)), 0.5) for name in ("french", "legal")]
        both = combine_stored(ws, ones, "both")
        assert read_recipe(both.path).pooling == "cls"
        whole, alone = merge_stored(ws, stored(ws, "both", str(base)), "whole"), merge_stored(ws, ones[0][0], "alone")
    tokens = torch.tensor([[2, 5, 6, 7, 8, 9, 3]])
    with torch.inference_mode():
        vectors = [Embedder(load_encoder(one.path), "cls")(tokens, [7]) for one in (whole, alone)]
    assert not torch.allclose(*vectors, atol=1e-5)
    weights = [load_file(one.path / "model.safetensors") for one in (whole, alone)]
    assert weights[0].keys() == weights[1].keys()


def test_an_adapter_without_the_head_it_was_trained_with_is_refused(base, tmp_path) -> None:
    beside = tuned(tmp_path, base, "classify", LORA)
    shutil.copytree(beside.path, tmp_path / "headless")
    path = tmp_path / "headless/adapter_model.safetensors"
    path.chmod(0o644)
    tensors = {name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}
    save_file(tensors, path, {"format": "pt"})
    with Workspace(tmp_path) as ws:
        with pytest.raises(InputError, match="trained with a head, but holds none"):
            merge_stored(ws, stored(ws, str(tmp_path / "headless"), str(base)), "whole")
        with pytest.raises(Unsupported, match="trained as they are"):  # whose heads would be a mixture of nothing
            combine_stored(ws, [(stored(ws, beside.ref, str(base)), 0.5)] * 2, "both")


def test_a_reward_adapter_is_merged_as_training_would_have(tmp_path) -> None:
    make_home(tmp_path)
    rows = [{"prompt": f"red {word}", "chosen": "blue", "rejected": "black white"} for word in ("a", "b", "c", "d") * 3]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = asked(Path("base"), tmp_path / "rows.jsonl", "reward", adapter=LORA)
    with Workspace(tmp_path) as ws:
        beside = tune(ws, settings, say=quiet)
        at_once = tune(ws, replace(settings, adapter=replace(LORA, merge=True)), say=quiet)
        later = merge_stored(ws, stored(ws, beside.ref), "later")
        assert later.parent("base") == ws.artifacts.get("base").digest
    same(later.path, at_once.path)
    texts = torch.arange(5, 12)
    scores = [load_reward_model(one.path)(texts, [4, 3]) for one in (later, at_once)]
    assert torch.allclose(*scores, atol=1e-5) and scores[0][0] != scores[0][1]


@pytest.mark.parametrize("kind", ["classify", "embed"])
def test_marks_of_words_become_tokens_of_an_encoder(base, tmp_path, kind: str) -> None:
    rows = rows_for(kind, 40)
    for row in rows:
        name = "text" if kind == "classify" else "query"
        row[name] = f"[A] {row[name]} [/A]"
    path = written(tmp_path / "rows.jsonl", rows)
    model = BaseSettings(str(base), new_tokens=("[A]", "[/A]"))
    with Workspace(tmp_path) as ws:
        beside = tune(ws, asked(base, path, kind, adapter=LORA, model=model), say=quiet)
        at_once = tune(ws, asked(base, path, kind, adapter=replace(LORA, merge=True), model=model), say=quiet)
        later = merge_stored(ws, stored(ws, beside.ref), "later")
        grown = load_encoder(ws.artifacts.get(beside.parent("base")).path).embedding
    same(later.path, at_once.path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(later.path)
    marks = tokenizer.convert_tokens_to_ids(["[A]", "[/A]"])
    assert set(marks) < set(tokenizer("[A] the cat [/A]")["input_ids"])
    table = next(tensor for name, tensor in load_file(later.path / "model.safetensors").items() if "word_emb" in name)
    moved = [number for number in range(len(grown)) if not torch.allclose(table[number], grown[number], atol=1e-7)]
    assert moved == sorted(marks)
