"""The first weights of a run: a model to go on from keeps all it knows, less the head where pairs need none."""

from __future__ import annotations

import pytest
import torch

from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import derive
from windlass.build.training.start import Base, first_model
from windlass.build.transformer.hf import load_config, save_model
from windlass.core.errors import InputError


def test_an_encoder_trained_on_masks_becomes_one_for_pairs_with_the_same_vectors(tmp_path):
    small = {"model.architecture": "encoder", "model.depth": 2, "model.context": 32}
    sizes, _ = derive(read_recipe(None, small), 300)
    model = first_model(sizes.model, None, 3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    save_model(model, tmp_path)
    base = Base(tmp_path, load_config(tmp_path), None)
    pairs = read_recipe(None, {**small, "objective.kind": "contrastive", "model.init_from": str(tmp_path)})
    sizes, lines = derive(pairs, 300, base.config)
    assert "going on from" in lines[0]
    bare = first_model(sizes.model, base, 0)
    assert bare.config.headless
    assert not any("head" in name or "transform" in name for name in bare.state_dict())
    tokens = torch.randint(300, (2, 20), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(bare.hidden(tokens), model.hidden(tokens))


def test_without_a_base_the_seed_decides(tmp_path):
    sizes, _ = derive(read_recipe(None, {"model.depth": 1}), 300)
    first, again, other = (first_model(sizes.model, None, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path)
