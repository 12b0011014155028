"""What was tuned is served as it lies: the engine reads the artifact's folder beside its base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from windlass.build.adapt.peft.attaching import adapter_of, attach, merge
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.transformer.adapters.base import check_base
from windlass.build.transformer.adapters.virtual_files import write_virtual
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder, load_links, load_model, save_model, weights_digest
from windlass.build.transformer.init import initialise
from windlass.build.transformer.ragged import Parts
from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.adapters.lora import Adapters
from windlass.serve.engine.arithmetic.linears import prepare

TOKENS = torch.arange(2, 40)[None]


def base_in(folder: Path, seed: int = 0, **changes) -> Path:
    shape = {"vocab_size": 61, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 40}
    model = Decoder(TransformerConfig(**(shape | {"context": 64} | changes)))
    initialise(model, seed)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # among them what begins as zero
            parameter.add_(0.1 * torch.randn(parameter.shape))
    save_model(model, folder)
    return folder


def tuned(base: Path, folder: Path, kind: str, **settings) -> torch.Tensor:
    """An adapter of random numbers, and the logits of base and adapter as one model."""
    model = load_model(base)
    attach(model, AdapterSettings(kind, rank=3, alpha=6, **settings), seed=1)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    write_adapter(
        folder, adapter_of(model), load_links(base), model.state_dict(), base="base", digest=weights_digest(base)
    )
    merge(model)
    with torch.inference_mode():
        return model(TOKENS)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The length of the difference, as a share of the whole."""
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
@pytest.mark.parametrize("targets", [(), ("value",), ("blocks.1.*",)])
def test_the_engine_computes_what_the_merged_model_does(kind, targets, tmp_path: Path) -> None:
    expected = tuned(base_in(tmp_path / "base"), tmp_path / "adapter", kind, targets=targets)
    decoder = load_decoder(tmp_path / "base")
    adapters = Adapters(decoder)
    lora = adapters.load("tuned", tmp_path / "adapter")
    with torch.inference_mode(), adapters.rows([(lora, TOKENS.shape[1])]):
        assert off(decoder(TOKENS), expected) < 1e-5


@pytest.mark.parametrize("singly", [False, True])
@pytest.mark.parametrize("policy", ["fp32", "bf16"])
def test_all_kinds_are_read_side_by_side(singly, policy, tmp_path: Path) -> None:
    """In one batch, each as alone, whatever multiplies the base's matrices; a text without an adapter as the base."""
    base, length = base_in(tmp_path / "base", qkv_bias=True), TOKENS.shape[1]
    kinds = ("lora", "dora", "ia3", "rslora")
    expected = [tuned(base, tmp_path / kind, kind) for kind in kinds]
    decoder = load_decoder(base)
    if prepare(decoder, policy).policy != policy:
        pytest.skip(f"{policy} is not to be had here")
    with torch.inference_mode():
        plain = decoder(TOKENS)
    adapters = Adapters(decoder)
    loras = [adapters.load(kind, tmp_path / kind) for kind in kinds]
    spans = [(loras[0], length), (None, length), *((lora, length) for lora in loras[1:])]
    caches = [decoder.new_cache(capacity=length) for _ in spans]
    with torch.inference_mode(), adapters.rows(spans, singly=singly):
        x_TC = decoder.hidden_of_parts(TOKENS[0].repeat(len(spans)), Parts([length] * len(spans), caches))
        first, alone, *others = decoder.logits(x_TC).split(length)
    exact = 1e-5 if policy == "fp32" else 0.03
    assert off(alone, plain[0]) < exact
    for found, wanted in zip([first, *others], expected, strict=True):
        assert off(found, wanted[0]) < exact < 0.1 < off(found, plain[0])


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_what_the_engine_cannot_add_is_refused(kind, tmp_path: Path) -> None:
    model = load_decoder(base_in(tmp_path / "base"))
    attach(model, AdapterSettings(kind), seed=1)
    value = adapter_of(model).virtual
    assert value is not None
    write_virtual(tmp_path / "adapter", value, model.config, base="base")
    with pytest.raises(Unsupported, match="peft_type is 'P"):
        Adapters(load_decoder(tmp_path / "base")).load("tuned", tmp_path / "adapter")


def test_an_adapter_of_other_weights_or_shapes_is_refused(tmp_path: Path) -> None:
    tuned(base_in(tmp_path / "base"), tmp_path / "adapter", "lora")
    other = base_in(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
        check_base(tmp_path / "adapter", weights_digest(other), "other")
    wide = base_in(tmp_path / "wide", ffn=48)
    with pytest.raises(InputError, match="has shape"):
        Adapters(load_decoder(wide)).load("tuned", tmp_path / "adapter")
