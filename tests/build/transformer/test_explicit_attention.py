"""The formula in stripes against the fused kernel: values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.attention import Sight, _explicit, as_mask, visible

B, H, D = 2, 3, 8


def both(sight: Sight, mask: Tensor | None, length: int, keys: int) -> list[list[Tensor]]:
    """Output and gradients of queries, keys and values: ours, then the kernel's."""
    generator = torch.Generator().manual_seed(0)
    found = []
    shapes = ((B, H, length, D), (B, H, keys, D), (B, H, keys, D))
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    for ours in (True, False):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        if ours:
            out = _explicit(*inputs, sight, D**-0.5, None)
        else:
            out = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
        torch.autograd.backward(out, torch.arange(out.numel()).view_as(out) / out.numel())
        found.append([out, *(tensor.grad for tensor in inputs)])
    return found


@pytest.mark.parametrize("length", [1, 7, 127, 128, 130, 256])
@pytest.mark.parametrize("kind", ["causal", "documents", "window", "bias", "all"])
def test_stripes_change_nothing(length: int, kind: str) -> None:
    documents = torch.arange(length).div(50, rounding_mode="floor").expand(B, length)
    if kind == "causal":
        sight, mask = Sight(causal=True), visible(length, length, causal=True)
    elif kind == "all":
        sight, mask = Sight(), None
    elif kind == "bias":
        mask = torch.randn(1, H, length, length).masked_fill(~visible(length, length, causal=True), float("-inf"))
        sight = Sight(mask=mask, ordered=True)
    else:
        window = 20 if kind == "window" else None
        mask = visible(length, length, causal=True, window=window, documents_BT=documents)
        sight = Sight(mask=as_mask(mask), ordered=True)
    for ours, kernels in zip(*both(sight, mask, length, length), strict=True):
        torch.testing.assert_close(ours, kernels, atol=2e-5, rtol=1e-4)


def test_a_mask_that_looks_ahead_is_not_cut() -> None:
    mask = torch.rand(200, 300) > 0.3
    for ours, kernels in zip(*both(Sight(mask=mask), mask, 200, 300), strict=True):
        torch.testing.assert_close(ours, kernels, atol=2e-5, rtol=1e-4)
