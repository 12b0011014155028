"""What is trained as it is beside an adapter: embeddings, heads, norms. None is lost on the way to PEFT and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.hf import load_links, load_model, tied_head
from windlass.core.errors import InputError, Unsupported

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
TOKENS = torch.arange(2, 44, 2)[None] % 61


def base_of(folder: Path, tied: bool) -> Any:
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SHAPE, tie_word_embeddings=tied)).eval()
    model.save_pretrained(folder)
    return model


def disturbed(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("also", [("embedding",), ("embedding", "head"), ("norm", "blocks.*_norm.weight")])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_it_goes_to_peft_and_back_and_is_merged(tied: bool, also: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    if tied:
        also = tuple(name for name in also if name != "head")
    base, folder = tmp_path / "base", tmp_path / "adapter"
    theirs = base_of(base, tied)
    model = load_model(base).train()
    attach(model, AdapterSettings(kind, rank=2, alpha=4, targets=("query", "down"), also=also), seed=1)
    disturbed(model)
    with torch.no_grad():
        ours = model(TOKENS)
    links, head = load_links(base), tied_head(base)
    assert (head is not None) == tied
    write_adapter(folder, adapter_of(model), links, model.state_dict(), base="base", tied=head)
    wrapped = peft.PeftModel.from_pretrained(theirs, folder).eval()
    again = load_model(base)
    attach_adapter(again, read_for(again, folder, links, head))
    with torch.no_grad():
        assert torch.allclose(ours, wrapped(TOKENS).logits, atol=3e-4)
        assert torch.allclose(ours, again(TOKENS), atol=3e-4)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == trained
        merge(model)
        assert torch.allclose(ours, model(TOKENS), atol=3e-4)
        assert model.state_dict().keys() == load_model(base).state_dict().keys()


def test_an_embedding_that_was_trained_apart_from_its_tied_head_is_refused(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", True), config)
    disturbed(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(Unsupported, match="trained apart, but are one matrix"):
        folder = tmp_path / "adapter"
        read_for(load_model(tmp_path / "base"), folder, load_links(tmp_path / "base"), tied_head(tmp_path / "base"))


def test_a_head_beside_an_adapter_comes_from_peft(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", False), config).eval()
    disturbed(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["modules_to_save"]
    model = load_model(tmp_path / "base")
    attach_adapter(model, read_for(model, tmp_path / "adapter", load_links(tmp_path / "base")))
    with torch.no_grad():
        assert torch.allclose(model(TOKENS), wrapped(TOKENS).logits, atol=3e-4)


@pytest.mark.parametrize("also", [("lm_head",), ("head", "nothing"), ("*.query.weight",)])
def test_what_the_base_does_not_have_to_train_is_refused(also: tuple[str, ...], tmp_path: Path) -> None:
    base_of(tmp_path / "base", False)
    with pytest.raises(InputError, match=r"adapter\.also names"):
        attach(load_model(tmp_path / "base"), AdapterSettings(rank=2, also=also), seed=1)
