"""Tokens that a base lacks: added, trained beside an adapter, stored as PEFT reads it, merged, served; never lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.peft.artifacts import facts, merge_stored, stored
from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.adapt.tuning import tune
from windlass.build.adapt.vocabulary import grow
from windlass.build.tokenizer import load_tokenizer
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.hf import load_decoder, load_links, load_model, tied_head
from windlass.core.errors import InputError, Unsupported
from windlass.core.workspace import Workspace
from windlass.serve.engine.adapters.lora_files import read_lora
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
MARKS = ("<|im_start|>", "<|im_end|>")
TOKENS = torch.tensor([[2, 4, 59, 6, 8, 60, 10, 59]])


def quiet(line: str) -> None:
    pass


def words(count: int) -> str:
    content = {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"w{number}": number for number in range(count)}, "unk_token": "w0"},
    }  # fmt: skip
    return json.dumps(content)


def base_of(folder: Path, tied: bool = False, known: int = 61, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SHAPE, tie_word_embeddings=tied)).eval()
    model.to(dtype).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(words(known))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return model


def disturbed(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape))


@pytest.mark.parametrize(
    ("tied", "known", "dtype"),
    [(False, 61, torch.float32), (True, 61, torch.bfloat16), (True, 50, torch.float32), (False, 60, torch.bfloat16)],
)
def test_a_base_with_more_tokens_is_the_same_for_all_others(tied: bool, known: int, dtype, tmp_path: Path) -> None:
    base_of(tmp_path / "base", tied, known, dtype)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    told = grow(tmp_path / "base", tmp_path / "grown", MARKS)
    size = max(61, known + 2)
    assert told == {"tokens": {MARKS[0]: known, MARKS[1]: known + 1}, "known": known, "vocabulary": size}
    model = load_model(tmp_path / "grown")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "grown", dtype=torch.float32).eval()
    assert model.config.vocab_size == again.config.vocab_size == size and model.config.tied == tied
    tokens = torch.arange(2, 40)[None]
    with torch.inference_mode():
        ours = model(tokens)
        assert torch.allclose(ours, again(tokens).logits, atol=1e-4)
        assert torch.allclose(ours[..., :known], theirs(tokens).logits[..., :known], atol=1e-4)
    table, old = model.embedding, theirs.model.embed_tokens.weight
    mean = old[:known].mean(0).to(dtype).float()
    assert torch.equal(table[:known], old[:known]) and torch.allclose(table[known : known + 2], mean.expand(2, -1))
    assert torch.equal(table[known + 2 :], old[known + 2 :])
    assert {one.dtype for one in load_file(tmp_path / "grown/model.safetensors").values()} == {dtype}
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "grown")
    assert tokenizer("w5<|im_end|>w6")["input_ids"] == [5, known + 1, 6]
    assert tokenizer.decode([5, known + 1], skip_special_tokens=True) == "w5"


def test_encoders_grow_with_all_that_has_a_row_for_each_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1,
             "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
    model = transformers.BertForMaskedLM(transformers.BertConfig(**shape)).eval()
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "base/tokenizer.json").write_text(words(61))
    grow(tmp_path / "base", tmp_path / "grown", MARKS)
    again = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "grown").eval()
    tokens = torch.arange(2, 40)[None]
    with torch.inference_mode():
        found, wanted = again(input_ids=tokens).logits, model(input_ids=tokens).logits
    assert found.shape[-1] == 63 and torch.allclose(found[..., :61], wanted, atol=1e-5)
    assert torch.allclose(found[..., 61], wanted.mean(-1), atol=1e-4)  # mean row and mean bias: the mean logit
    load_model(tmp_path / "grown")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_rows_go_to_peft_and_back_and_are_merged(tied: bool, kind: str, tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    theirs = base_of(base, tied)
    model = load_model(base).train()
    attach(model, AdapterSettings(kind, rank=2, targets=("query", "down")), seed=1, tokens=[59, 60])
    start = model(TOKENS).detach()
    with torch.inference_mode():
        assert torch.allclose(start, theirs(TOKENS).logits, atol=1e-4)
    model(TOKENS).sum().backward()
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    tables = [one for name, one in trained.items() if "vectors" in name]
    assert [tuple(one.shape) for one in tables] == [(2, 32)] * (1 if tied else 2)
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in tables)
    disturbed(model)
    with torch.no_grad():
        ours = model(TOKENS)
    links, head = load_links(base), tied_head(base)
    write_adapter(folder, adapter_of(model), links, model.state_dict(), base="base", tied=head)
    assert sum(one.numel() for one in load_file(folder / "adapter_model.safetensors").values()) < 1500  # no table
    wrapped = peft.PeftModel.from_pretrained(theirs, folder).eval()
    again = load_model(base)
    attach_adapter(again, read_for(again, folder, links, head))
    with torch.no_grad():
        assert (ours - start).abs().max() > 0.1
        assert torch.allclose(ours, wrapped(TOKENS).logits, atol=3e-4)
        assert torch.allclose(ours, again(TOKENS), atol=3e-4)
        merge(model)
        assert torch.allclose(ours, model(TOKENS), atol=3e-4)
        plain = load_model(base).state_dict()
        assert model.state_dict().keys() == plain.keys()
        assert torch.equal(model.state_dict()["embedding"][:59], plain["embedding"][:59])
    with pytest.raises(Unsupported, match="trainable_token_indices"):  # the engine shares one table
        read_lora(folder, again.config, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("indices", [[59, 3], {"embed_tokens": [59, 3], "lm_head": [59, 3]}])
def test_rows_come_from_peft(tied: bool, indices: Any, tmp_path: Path) -> None:
    base = tmp_path / "base"
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=indices)
    wrapped = peft.get_peft_model(base_of(base, tied), config).eval()
    disturbed(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    model = load_model(base)
    attach_adapter(model, read_for(model, tmp_path / "adapter", load_links(base), tied_head(base)))
    with torch.no_grad():
        assert torch.allclose(model(TOKENS), wrapped(TOKENS).logits, atol=3e-4)


def test_an_adapter_of_another_vocabulary_is_refused_with_the_reason(tmp_path: Path) -> None:
    base, grown = tmp_path / "base", tmp_path / "grown"
    base_of(base)
    grow(base, grown, MARKS)
    for name, settings, tokens, message in (
        ("rows", AdapterSettings(rank=2), [61, 62], "a token of number 62, but this base has a vocabulary of 61"),
        ("whole", AdapterSettings(rank=2, also=("embedding", "head")), [], "Its base had another vocabulary"),
    ):
        model = load_model(grown)
        attach(model, settings, seed=0, tokens=tokens)
        write_adapter(tmp_path / name, adapter_of(model), load_links(grown), model.state_dict(), base="grown")
        with pytest.raises(InputError, match=message):
            read_for(load_model(base), tmp_path / name, load_links(base))
    path = tmp_path / "rows/adapter_config.json"
    for wrong in ({"embed_tokens": [1]}, {"nothing": [1, 2]}, {"embed_tokens": [1, 1]}, {"embed_tokens": ["a", "b"]}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"trainable_token_indices": wrong}))
        with pytest.raises(InputError, match="adapter_config"):
            read_for(load_model(grown), tmp_path / "rows", load_links(grown))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A decoder that knows no chat format."""
    return make_home(tmp_path_factory.mktemp("home"), chat=False)


def chat(rows: Path, **changes: Any):
    return asked(rows, **{"model__template": "chatml", "model__new_tokens": list(MARKS), **changes})


@pytest.mark.parametrize("also", [(), ("embedding",)])
def test_a_chat_format_of_new_tokens_is_learned_merged_and_served(home, tmp_path, also) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", echoes(40))
    said: list[str] = []
    with Workspace(home) as ws:
        made = tune(ws, chat(rows, adapter__also=list(also)), say=said.append)
        grown = ws.artifacts.get(made.parent("base"))
        assert ws.artifacts.get(grown.parent("base")).record.name == "base"
        one = stored(ws, made.ref)
        assert facts(one)["tokens"] if not also else facts(one)["whole"]
        assert "--lora" not in (made.path / "README.md").read_text(encoding="utf-8")  # one table for all adapters
        whole = merge_stored(ws, one, "whole")
        before = len(ws.store.artifacts())
        again = tune(ws, chat(rows, adapter__also=list(also), adapter__merge=True), say=quiet)
        assert again.parent("base") == grown.digest and len(ws.store.artifacts()) == before + 1  # the base is made once
        with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
            merge_stored(ws, stored(ws, made.ref, "base"), "other")
    assert any("2 new tokens (<|im_start|>, <|im_end|>)" in line for line in said)
    assert made.card["heldout_loss"] < 0.8 * before_of(said)
    one, other = load_file(whole.path / "model.safetensors"), load_file(again.path / "model.safetensors")
    assert one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    tokenizer, model = load_tokenizer(whole.path), load_decoder(whole.path)
    marks = [tokenizer.token_to_id(mark) for mark in MARKS]
    old = load_decoder(grown.path).embedding
    moved = [number for number in range(len(old)) if not torch.allclose(model.embedding[number], old[number])]
    assert set(marks) <= set(moved) and (also or set(moved) == set(marks))
    prompt = [marks[0], *tokenizer.encode("user\nred blue", add_special_tokens=False).ids, marks[1]]
    engine = Engine(model)
    found = [
        step.id for step in engine.submit(Generation(prompt=prompt, max_tokens=6, sampling=Sampling(temperature=0.0)))
    ]
    engine.close()
    text = list(prompt)
    with torch.inference_mode():
        for token in found:
            assert token == int(model(torch.tensor([text]))[0, -1].argmax())
            text.append(token)


def before_of(said: list[str]) -> float:
    line = next(line for line in said if "before the first step" in line)
    return float(line.split("held-out")[1].split()[0])


def test_new_tokens_that_cannot_work_are_refused(home, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", echoes(20))
    with Workspace(home) as ws:
        for settings, message in (
            ({"model__new_tokens": ["<|endoftext|>"], "model__template": "plain"}, "token 0 of the base already"),
            (
                {"model__new_tokens": [], "adapter__tokens": ["<|nobody|>"], "model__template": "plain"},
                "is no token of",
            ),
            ({"model__new_tokens": []}, "has no token"),
        ):
            with pytest.raises(InputError, match=message):
                tune(ws, chat(rows, **settings), say=quiet)
    for settings, message in (
        ({"adapter__kind": "ia3"}, "nothing would train it"),
        ({"adapter__kind": "prompt"}, "nothing would train it"),
        ({"adapter__kind": "none", "adapter__targets": ["*.bias"]}, "nothing would train it"),
        ({"model__new_tokens": ["a", "a"]}, "named twice"),
        ({"objective__kind": "grpo"}, "rows of tokens cannot be trained"),
    ):
        with pytest.raises(InputError, match=message):
            chat(rows, **settings)
