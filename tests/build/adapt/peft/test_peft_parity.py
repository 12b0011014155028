"""Adapters against PEFT on small random models of five families: its files and ours, outputs, gradients, merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.hf import load_links, load_model
from windlass.core.errors import InputError, Unsupported

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None,
    "pad_token_id": 0,
}  # fmt: skip
FEW = {"num_key_value_heads": 2, "head_dim": 8}
T5 = {
    "vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4, "n_positions": 64,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "dropout_rate": 0.0, "pad_token_id": 0,
    "decoder_start_token_id": 0, "initializer_factor": 0.5,
}  # fmt: skip
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("LlamaForCausalLM", SHAPE | FEW, ("q_proj", "v_proj", "down_proj")),
    "qwen3": ("Qwen3ForCausalLM", SHAPE | FEW, ("k_proj", "o_proj", "up_proj")),
    "gemma": ("Gemma2ForCausalLM", SHAPE | FEW, ("q_proj", "k_proj", "gate_proj")),
    "bert": ("BertForMaskedLM", SHAPE | STILL, ("query", "value", "intermediate.dense", "output.dense")),
    "t5": ("T5ForConditionalGeneration", T5, ("q", "v", "wo", "EncDecAttention.k")),
}
FUSED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "phi3": ("Phi3ForCausalLM", SHAPE | {"num_key_value_heads": 2}, ("qkv_proj", "gate_up_proj", "down_proj")),
    "gpt2": ("GPT2LMHeadModel", GPT2, ("c_attn", "c_fc", "c_proj")),
}
KINDS = ("lora", "rslora", "dora", "ia3")
TOKENS = torch.arange(2, 44, 2)[None] % 61
SOURCE = torch.arange(3, 30, 3)[None] % 61


def base_of(folder: Path, family: str) -> Any:
    """Random weights, saved. Without dropout, so that it can be trained beside ours."""
    name, shape, _ = (FAMILIES | FUSED)[family]
    torch.manual_seed(0)
    shape = shape | ({f"{part}_pdrop": 0.0 for part in ("attn", "embd", "resid")} if family == "gpt2" else {})
    model = getattr(transformers, name)(
        getattr(transformers, f"{name.split('For')[0].replace('LMHeadModel', '')}Config")(**shape)
    )
    model.save_pretrained(folder)
    return model.eval()


def theirs_said(model: Any, family: str) -> Tensor:
    """Logits of a model of transformers."""
    if family == "t5":
        return model(input_ids=SOURCE, decoder_input_ids=TOKENS).logits
    return model(input_ids=TOKENS).logits


def ours_said(model: nn.Module, family: str) -> Tensor:
    return model(SOURCE, TOKENS) if family == "t5" else model(TOKENS)


def config_of(kind: str, family: str) -> Any:
    targets = list((FAMILIES | FUSED)[family][2])
    transposed = family == "gpt2"
    if kind == "ia3":
        down = [name for name in targets if name in ("down_proj", "wo")]
        return peft.IA3Config(target_modules=targets, feedforward_modules=down, fan_in_fan_out=transposed)
    return peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, fan_in_fan_out=transposed, use_rslora=kind == "rslora",
        use_dora=kind == "dora",
    )  # fmt: skip


def disturbed(model: nn.Module) -> None:
    """Random numbers for all that is trained. Larger ones make T5, which does not scale its scores, choose one token
    by next to nothing: then roundings are all that is compared."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape))


def written(model: nn.Module, base: Path, folder: Path) -> Path:
    write_adapter(folder, adapter_of(model), load_links(base), model.state_dict(), base=str(base))
    return folder


@pytest.mark.parametrize("family", [*FAMILIES, *FUSED])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_what_we_write(kind: str, family: str, tmp_path: Path) -> None:
    theirs = base_of(tmp_path / "base", family)
    model = load_model(tmp_path / "base").train()
    attach(model, AdapterSettings(kind, rank=3, alpha=5), seed=1)
    before = ours_said(model, family).detach()
    disturbed(model)
    ours = ours_said(model, family).detach()
    wrapped = peft.PeftModel.from_pretrained(theirs, written(model, tmp_path / "base", tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert torch.allclose(ours, theirs_said(wrapped, family), atol=3e-4)
    assert (ours - before).abs().max() > 0.1
    merge(model)
    assert torch.allclose(ours, ours_said(model, family), atol=3e-4)
    assert {name for name, _ in model.named_parameters()} == {
        name for name, _ in load_model(tmp_path / "base").named_parameters()
    }


@pytest.mark.parametrize("family", [*FAMILIES, *FUSED])
@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_peft_writes(kind: str, family: str, tmp_path: Path) -> None:
    """And what we write of it again is the same to PEFT."""
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", family), config_of(kind, family)).eval()
    disturbed(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    model = load_model(tmp_path / "base")
    attach_adapter(model, read_for(model, tmp_path / "adapter", load_links(tmp_path / "base")))
    with torch.no_grad():
        expected = theirs_said(wrapped, family)
        assert torch.allclose(ours_said(model, family), expected, atol=3e-4)
        again = peft.PeftModel.from_pretrained(
            base_of(tmp_path / "base", family), written(model, tmp_path / "base", tmp_path / "again")
        ).eval()
        assert torch.allclose(theirs_said(again, family), expected, atol=3e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_peft(kind: str, family: str, tmp_path: Path) -> None:
    """Of every trained tensor, by what it is called in PEFT's file."""
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", family), config_of(kind, family)).train()
    disturbed(wrapped)
    wrapped.save_pretrained(tmp_path / "adapter")
    links = load_links(tmp_path / "base")
    model = load_model(tmp_path / "base").train()
    attach_adapter(model, read_for(model, tmp_path / "adapter", links))
    torch.manual_seed(2)
    weights = torch.randn(ours_said(model, family).shape)
    (ours_said(model, family) * weights).sum().backward()
    (theirs_said(wrapped, family) * weights).sum().backward()
    expected = {
        name.replace(".default", ""): parameter.grad.flatten()
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    names = {link.ours[0]: link.theirs[0].removesuffix(".weight") for link in links}
    kinds = {
        "down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector.weight",
        "factors": "ia3_l",
    }  # fmt: skip
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            place, _, own = name.rpartition(".")
            found[f"base_model.model.{names[f'{place}.weight']}.{kinds[own]}"] = parameter.grad.flatten()
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = expected[name].abs().max()
        assert scale > 0 and (gradient - expected[name]).abs().max() < 2e-4 * scale + 1e-5, name


def test_a_part_of_a_fused_module_is_written_as_the_whole(tmp_path: Path) -> None:
    """Phi-3's query, key and value are one module: what only one of them learned must not touch the others."""
    theirs = base_of(tmp_path / "base", "phi3")
    for kind, targets in (("lora", ("value",)), ("dora", ("query", "up")), ("ia3", ("key",))):
        model = load_model(tmp_path / "base")
        attach(model, AdapterSettings(kind, rank=2, targets=targets), seed=1)
        disturbed(model)
        folder = written(model, tmp_path / "base", tmp_path / kind)
        wrapped = peft.PeftModel.from_pretrained(theirs, folder).eval()
        with torch.no_grad():
            assert torch.allclose(ours_said(model, "phi3"), theirs_said(wrapped, "phi3"), atol=3e-4)
        theirs = wrapped.unload()


@pytest.mark.parametrize(
    ("targets", "modules"),
    [
        ((), ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.k_proj", "self_attn.o_proj",
              "self_attn.q_proj", "self_attn.v_proj"]),
        (("value",), ["self_attn.v_proj"]),
        (("blocks.1.*.query", "blocks.1.mlp.*"), ["model.layers.1.mlp.down_proj", "model.layers.1.mlp.gate_proj",
                                                  "model.layers.1.mlp.up_proj", "model.layers.1.self_attn.q_proj"]),
    ],
)  # fmt: skip
def test_target_modules_are_said_briefly_where_that_is_exact(targets, modules, tmp_path: Path) -> None:
    import json

    base_of(tmp_path / "base", "llama")
    model = load_model(tmp_path / "base")
    attach(model, AdapterSettings(rank=2, targets=targets), seed=1)
    values = json.loads((written(model, tmp_path / "base", tmp_path / "a") / "adapter_config.json").read_text())
    assert values["target_modules"] == modules


def test_only_one_of_the_joined_maps_is_adapted_and_nothing_is_lost(tmp_path: Path) -> None:
    """Query, key and value are computed as one product: with an adapter beside any subset of them, and with many rows
    or few, each map gives what it gives alone."""
    base_of(tmp_path / "base", "llama")
    for targets in (("value",), ("query",), ("key", "up"), ("gate",)):
        model = load_model(tmp_path / "base")
        attach(model, AdapterSettings(rank=2, targets=targets), seed=1)
        disturbed(model)
        many = TOKENS[:, :20].repeat(9, 1)  # more rows than are "few"
        together = model(many)
        merge(model)
        assert torch.allclose(together, model(many), atol=3e-4)
        assert torch.allclose(together[:1], model(many[:1]), atol=3e-4)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"hidden_size": 64}, InputError, "has shape"),
        ({"num_hidden_layers": 1}, InputError, r"layers\.1\..* which this model does not have"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(change, error, said, tmp_path: Path) -> None:
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", "llama"), config_of("lora", "llama"))
    wrapped.save_pretrained(tmp_path / "adapter")
    other = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(SHAPE | FEW | change)))
    other.save_pretrained(tmp_path / "other")
    model = load_model(tmp_path / "other")
    with pytest.raises(error, match=said):
        read_for(model, tmp_path / "adapter", load_links(tmp_path / "other"))


def test_a_kind_that_is_not_computed_is_refused(tmp_path: Path) -> None:
    wrapped = peft.get_peft_model(base_of(tmp_path / "base", "llama"), peft.LoHaConfig(r=2, target_modules=["q_proj"]))
    wrapped.save_pretrained(tmp_path / "adapter")
    with pytest.raises(Unsupported, match="peft_type is 'LOHA'"):
        read_for(load_model(tmp_path / "base"), tmp_path / "adapter", load_links(tmp_path / "base"))
