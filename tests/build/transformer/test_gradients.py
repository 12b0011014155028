"""Gradients by hand are those that autograd finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from windlass.build.transformer.attention import Attention, Sight, visible
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.gradients import gated_silu, looked, rms_norm, rounded, turned
from windlass.build.transformer.rope import frequencies, rotations


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def the_same(found: Tensor, right: Tensor, inputs: list[Tensor], near: float = 1e-6) -> None:
    weights = torch.randn(right.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(right.dtype)
    torch.testing.assert_close(found, right, rtol=near, atol=near)
    for mine, theirs in zip(
        torch.autograd.grad((found * weights).sum(), inputs), torch.autograd.grad((right * weights).sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine, theirs, rtol=near, atol=near)


@pytest.mark.parametrize("trained", [True, False])
def test_the_norm(trained: bool) -> None:
    x, weight = (one.detach().float() for one in drawn((3, 5, 16), (16,)))
    x.requires_grad_()
    weight.requires_grad_(trained)
    right = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight
    the_same(rms_norm(x, weight, 1e-5), right, [x, weight] if trained else [x], 1e-5)


def test_the_gate() -> None:
    gate, up = drawn((4, 7), (4, 7))
    the_same(gated_silu(gate, up), torch.nn.functional.silu(gate) * up, [gate, up])


@pytest.mark.parametrize("packed", [False, True])
def test_the_turn(packed: bool) -> None:
    (x,) = drawn((2, 3, 6, 8))
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [3, 4, 5, 6, 7, 8]]) if packed else torch.arange(6)
    cos, sin = (one.double() for one in rotations(positions, frequencies(8, 100.0, None)[0]))
    if packed:
        cos, sin = cos[:, None], sin[:, None]
    first, second = x.chunk(2, dim=-1)
    the_same(turned(x, cos, sin), x * cos + torch.cat([-second, first], dim=-1) * sin, [x])


@pytest.mark.parametrize("length", [5, 130, 300])
@pytest.mark.parametrize("kind", ["all", "causal", "masked"])
def test_looking(length: int, kind: str) -> None:
    """Texts are filled up, and the longest are done in stripes."""
    q, k, v = drawn(*[(2, 2, length, 4)] * 3)
    documents = (torch.arange(length) * 3 // length)[None]
    if kind == "all":
        seen = torch.ones(length, length, dtype=torch.bool)
    else:
        seen = visible(length, length, causal=True, documents_BT=documents if kind == "masked" else None)
    added = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, float("-inf"))
    right = torch.softmax(q @ k.transpose(-1, -2) + added, -1) @ v
    mask = added.view(-1, 1, length, length) if kind == "masked" else None
    the_same(looked(q, k, v, mask, kind != "all"), right, [q, k, v])


@pytest.mark.parametrize("count", [1, 7, 31, 380, 2037, 5000])
def test_few_shapes(count: int) -> None:
    assert count <= rounded(count) <= max(count * 17 / 16 + 1, 8)
    assert len({rounded(near) for near in range(count, count + count // 16 + 1)}) <= 3


CONFIG = TransformerConfig(vocab_size=8, context=512, hidden=16, layers=1, heads=4, kv_heads=2, head_dim=4, ffn=16)


@pytest.mark.parametrize("sight_of", [
    lambda length: Sight(True),
    lambda length: Sight(False, visible(length, length, causal=True, window=7)),
], ids=["causal", "window"])  # fmt: skip
@pytest.mark.parametrize("length", [40, 300])
def test_attention_in_bfloat16_learns_what_it_learns_in_float32(sight_of: Callable[[int], Sight], length: int) -> None:
    attention = Attention(CONFIG, 0)
    generator = torch.Generator().manual_seed(0)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(2, length, 16, generator=generator)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        attention.zero_grad()
        out = attention(x.to(dtype), sight_of(length))
        out.float().square().sum().backward()  # type: ignore[no-untyped-call]
        found.append([out.detach().float(), *(p.grad.clone() for p in attention.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) == 5
    for exact, coarse in zip(*found, strict=True):
        assert float((exact - coarse).norm() / exact.norm()) < 0.02
