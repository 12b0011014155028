"""What was tuned is served as it lies: the engine reads the artifact's folder beside its base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from windlass.build.adapt.peft.attaching import adapter_of, attach, merge
from windlass.build.adapt.settings import AdapterSettings
from windlass.build.transformer.adapters.files import write_adapter
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_links, load_model, save_model, weights_digest
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.adapters.lora import Adapters

TOKENS = torch.arange(2, 40)[None]


def base_in(folder: Path, seed: int = 0, **changes) -> Path:
    shape = {"vocab_size": 61, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 40}
    model = Decoder(TransformerConfig(**(shape | {"context": 64} | changes)))
    initialise(model, seed)
    save_model(model, folder)
    return folder


def tuned(base: Path, folder: Path, kind: str, **settings) -> torch.Tensor:
    """An adapter of random numbers, and the logits of base and adapter as one model."""
    model = load_model(base)
    attach(model, AdapterSettings(kind, rank=3, **settings), seed=1)
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


@pytest.mark.parametrize("kind", ["lora", "rslora"])
@pytest.mark.parametrize("targets", [(), ("value",), ("blocks.1.*",)])
def test_the_engine_computes_what_the_merged_model_does(kind, targets, tmp_path: Path) -> None:
    expected = tuned(base_in(tmp_path / "base"), tmp_path / "adapter", kind, targets=targets)
    decoder = load_model(tmp_path / "base")
    assert isinstance(decoder, Decoder)
    adapters = Adapters(decoder)
    lora = adapters.load("tuned", tmp_path / "adapter")
    with torch.inference_mode(), adapters.rows([(lora, TOKENS.shape[1])]):
        assert torch.allclose(decoder(TOKENS), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["dora", "ia3"])
def test_what_the_engine_cannot_add_is_refused_with_a_way_out(kind, tmp_path: Path) -> None:
    tuned(base_in(tmp_path / "base"), tmp_path / "adapter", kind)
    with pytest.raises(Unsupported, match=r"use_dora|IA3"):
        Adapters(load_model(tmp_path / "base")).load("tuned", tmp_path / "adapter")


def test_an_adapter_of_other_weights_or_shapes_is_refused(tmp_path: Path) -> None:
    from windlass.build.transformer.adapters.files import check_base

    tuned(base_in(tmp_path / "base"), tmp_path / "adapter", "lora")
    other = base_in(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
        check_base(tmp_path / "adapter", weights_digest(other), "other")
    wide = base_in(tmp_path / "wide", ffn=48)
    with pytest.raises(InputError, match="has shape"):
        Adapters(load_model(wide)).load("tuned", tmp_path / "adapter")
