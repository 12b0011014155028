"""Norms, gates and largest numbers in one pass are what PyTorch computes, wherever the rows lie."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.norm import RMSNorm
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.fused import FusedNorm, largest, silu_gate

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def norm(width: int, offset: bool = False) -> RMSNorm:
    made = RMSNorm(width, 1e-6, offset).requires_grad_(False)
    made.weight.normal_(generator=torch.Generator().manual_seed(0))
    return made


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("width", [1, 16, 33, 700])
@pytest.mark.parametrize("offset", [False, True])
def test_a_norm(width: int, offset: bool) -> None:
    reference = norm(width, offset)
    for x in (rows(width), rows(2, 5, width), rows(60, width), rows(4, 3, 2 * width)[..., :width], rows(0, width)):
        torch.testing.assert_close(FusedNorm(reference)(x), reference(x), rtol=1e-5, atol=1e-6)


def test_what_the_kernel_cannot_read_goes_to_the_module() -> None:
    reference = norm(24)
    fused = FusedNorm(reference)
    for x in (rows(3, 24).bfloat16(), rows(3, 24).requires_grad_()):
        assert torch.equal(fused(x), reference(x))


def test_a_norm_of_rows_that_are_not_neighbours_has_the_same_bits() -> None:
    fused = FusedNorm(norm(24))
    for x in (rows(2, 5, 3, 24).transpose(1, 2), rows(24, 6).T):
        assert torch.equal(fused(x), fused(x.contiguous()))


@pytest.mark.parametrize("width", [1, 16, 33, 700])
def test_a_gate(width: int) -> None:
    joined = rows(3, 40, 2 * width)
    joined[0, 0, 0], joined[0, 0, -1] = 100, -100
    gate, up = joined.split(width, dim=-1)
    torch.testing.assert_close(silu_gate(gate, up), F.silu(gate) * up, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(silu_gate(gate * -20, up), F.silu(gate * -20) * up, rtol=1e-5, atol=1e-5)
    own = up.contiguous()
    torch.testing.assert_close(silu_gate(gate, own), F.silu(gate) * own)


def test_rows_do_not_hang_on_each_other() -> None:
    x, fused = rows(50, 700), FusedNorm(norm(700))
    assert torch.equal(torch.cat([fused(row[None]) for row in x]), fused(x))
    assert torch.equal(torch.cat([silu_gate(row[None], row[None]) for row in x]), silu_gate(x, x))


@pytest.mark.parametrize("width", [1, 15, 16, 33, 700])
def test_the_largest_of_each_row(width: int) -> None:
    for x in (rows(1, width), rows(60, width), rows(5, 3 * width)[:, width : 2 * width], rows(width, 6).T):
        for found, known in zip(largest(x), x.max(dim=-1), strict=True):
            assert torch.equal(found, known)


def test_the_first_of_several_that_are_largest() -> None:
    x = torch.full((3, 50), float("-inf"))
    x[1, [20, 31, 49]] = 2.0
    x[2] = float("inf")
    most, place = largest(x)
    assert most.tolist() == [float("-inf"), 2.0, float("inf")] and place.tolist() == [0, 20, 0]


@pytest.mark.parametrize("place", [0, 17, 49])
def test_what_is_not_a_number_is_the_largest(place: int) -> None:
    x = rows(3, 50)
    x[1, place] = float("nan")
    x[2] = float("nan")
    most, _ = largest(x)
    assert most.isnan().tolist() == [False, True, True]
