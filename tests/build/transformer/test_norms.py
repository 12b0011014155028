"""Norms compute in float32, whatever their input and their weights are kept in."""

from __future__ import annotations

import pytest
import torch

from windlass.build.transformer.norm import LayerNorm, RMSNorm


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [LayerNorm, RMSNorm])
def test_a_norm_gives_back_the_dtype_that_it_was_given(kind, given, kept):
    generator = torch.Generator().manual_seed(0)
    norm = kind(16, 1e-5)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(16, generator=generator).to(kept))
    x = torch.randn(3, 16, generator=generator).to(given)
    exact = norm(x.float())  # the weights hold rounded values: nothing else may be rounded but the result
    out = norm.to(kept)(x)
    assert out.dtype == given
    assert torch.equal(out, exact.to(given))
