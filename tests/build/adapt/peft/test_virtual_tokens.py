"""Prompt and prefix tuning against PEFT: files both ways, gradients, packed rows, writing with a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.adapt.settings import TuneSettings
from windlass.build.transformer.adapters.virtual_files import write_virtual
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder, load_links, load_model
from windlass.core.errors import InputError, Unsupported

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SHAPE),
    "qwen3": ("Qwen3", SHAPE),
    "gemma": ("Gemma2", SHAPE | {"sliding_window": 7}),
    "gpt2": ("GPT2", GPT2),
}
TOKENS = torch.arange(2, 44, 2)[None] % 61


def base_of(folder: Path, family: str) -> Any:
    name, shape = BASES[family]
    torch.manual_seed(0)
    head = "GPT2LMHeadModel" if family == "gpt2" else f"{name}ForCausalLM"
    model = getattr(transformers, head)(getattr(transformers, f"{name}Config")(**shape)).eval()
    model.save_pretrained(folder)
    return model


def config_of(kind: str) -> Any:
    made = peft.PrefixTuningConfig if kind == "prefix" else peft.PromptTuningConfig
    return made(task_type="CAUSAL_LM", num_virtual_tokens=5)


def attached(base: Path, kind: str, count: int = 5) -> Decoder:
    model = load_decoder(base)
    attach(model, AdapterSettings(kind, virtual_tokens=count), seed=3)
    return model


def said(wrapped: Any, kind: str, tokens_BT: torch.Tensor = TOKENS) -> torch.Tensor:
    """Logits of the real positions."""
    logits = wrapped(input_ids=tokens_BT).logits
    return logits[:, 5:] if kind == "prompt" else logits


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_files_go_both_ways_with_equal_logits(kind: str, family: str, tmp_path: Path) -> None:
    theirs = base_of(tmp_path / "base", family)
    model = attached(tmp_path / "base", kind)
    with torch.no_grad():
        model.get_parameter("virtual.vectors").add_(0.3 * torch.randn(model.get_parameter("virtual.vectors").shape))
        ours = model(TOKENS)
        assert (ours - load_decoder(tmp_path / "base")(TOKENS)).abs().max() > 0.1
        value = adapter_of(model).virtual
        write_virtual(tmp_path / "ours", value, model.config, base="base", task="CAUSAL_LM")
        wrapped = peft.PeftModel.from_pretrained(theirs, tmp_path / "ours").eval()
        assert torch.allclose(ours, said(wrapped, kind), atol=3e-4)

        made = peft.get_peft_model(base_of(tmp_path / "base", family), config_of(kind)).eval()
        made.save_pretrained(tmp_path / "theirs")
        other = load_decoder(tmp_path / "base")
        attach_adapter(other, read_for(other, tmp_path / "theirs", load_links(tmp_path / "base")))
        assert torch.allclose(other(TOKENS), said(made, kind), atol=3e-4)


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_gradients_are_those_of_peft(kind: str, family: str, tmp_path: Path) -> None:
    made = peft.get_peft_model(base_of(tmp_path / "base", family), config_of(kind)).train()
    made.save_pretrained(tmp_path / "theirs")
    model = load_decoder(tmp_path / "base").train()
    attach_adapter(model, read_for(model, tmp_path / "theirs", load_links(tmp_path / "base")))
    torch.manual_seed(2)
    weights = torch.randn(1, TOKENS.shape[1], 61)
    (model(TOKENS) * weights).sum().backward()
    (said(made, kind) * weights).sum().backward()
    expected = made.prompt_encoder.default.embedding.weight.grad
    found = model.get_parameter("virtual.vectors").grad
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()) + 1e-5)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["virtual.vectors"]


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_packed_texts_each_have_it_before_them(kind: str, family: str, tmp_path: Path) -> None:
    base_of(tmp_path / "base", family)
    model = attached(tmp_path / "base", kind)
    texts = [TOKENS[:, :9], TOKENS[:, 3:17], TOKENS[:, 5:6]]
    documents = torch.cat([torch.full_like(text, place) for place, text in enumerate(texts)], dim=1)
    with torch.inference_mode():
        packed = model(torch.cat(texts, dim=1), documents_BT=documents)
        alone = torch.cat([model(text) for text in texts], dim=1)
    assert torch.allclose(packed, alone, atol=2e-4)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_writing_with_a_cache_is_reading_at_once(kind: str, tmp_path: Path) -> None:
    base_of(tmp_path / "base", "llama")
    model = attached(tmp_path / "base", kind)
    with torch.inference_mode():
        cache = model.new_cache(batch=2, capacity=21)
        tokens_BT = torch.cat([TOKENS, TOKENS.flip(1)])
        steps = [
            model.prefill(tokens_BT[:, :4], cache),
            *(model.decode_step(token, cache) for token in tokens_BT.T[4:]),
        ]
        assert torch.allclose(torch.stack(steps, dim=1), model(tokens_BT)[:, 3:], atol=2e-4)


def test_a_prefix_begins_as_the_prompt_of_the_same_tokens(tmp_path: Path) -> None:
    base_of(tmp_path / "base", "llama")
    with torch.inference_mode():
        prompt, prefix = (attached(tmp_path / "base", kind)(TOKENS) for kind in ("prompt", "prefix"))
    assert torch.allclose(prompt, prefix, atol=1e-4)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    base_of(tmp_path / "base", "llama")
    model = attached(tmp_path / "base", "prefix")
    with pytest.raises(Unsupported, match="'prefix' cannot be merged"):
        merge(model)
    with pytest.raises(InputError, match=r"adapter\.merge is on"):
        TuneSettings(adapter=AdapterSettings("prompt", merge=True))
    with pytest.raises(InputError, match="longer than the 64"):
        model(TOKENS.repeat(1, 3), documents_BT=torch.zeros(1, 63, dtype=torch.int64))
    write_virtual(tmp_path / "adapter", adapter_of(model).virtual, model.config, base="base", task="CAUSAL_LM")
    shape = SHAPE | {"num_hidden_layers": 3}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).save_pretrained(tmp_path / "deep")
    with pytest.raises(InputError, match=r"has shape \[5, 64\], but 5 virtual tokens on this model need \[5, 96\]"):
        read_for(load_model(tmp_path / "deep"), tmp_path / "adapter", load_links(tmp_path / "deep"))
    bert = {key: SHAPE[key] for key in list(SHAPE)[:5]}
    transformers.BertModel(transformers.BertConfig(**bert)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="this model is no decoder"):
        attach(load_model(tmp_path / "bert"), AdapterSettings("prompt"), seed=0)
