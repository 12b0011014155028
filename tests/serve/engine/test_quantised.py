"""The kernel multiplies what `quantise` says, whatever the shape, the batch and the numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.native.__main__ import main as beforehand
from windlass.serve.engine.arithmetic.quantised import BLOCK, Quantised, quantise

needs_kernels = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def rounded(x: Tensor, block: int) -> Tensor:
    """Activations as the kernel sees them: 8 bits in blocks."""
    parts = F.pad(x, (0, -x.shape[-1] % block)).unflatten(-1, (-1, block))
    most = parts.abs().amax(-1, keepdim=True)
    numbers = (parts * (127 / most.clamp_min(1e-30))).round()
    return (numbers * (most / 127)).flatten(-2)[..., : x.shape[-1]]


def meant(x: Tensor, weight: Tensor, bias: Tensor | None, bits: int) -> Tensor:
    """What the kernel is to compute, in float64."""
    numbers, scale = quantise(weight, bits)
    restored = (numbers * scale[..., None]).flatten(1)[:, : weight.shape[1]]
    return F.linear(rounded(x, BLOCK[bits]).double(), restored.double(), None if bias is None else bias.double())


@needs_kernels
@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([8, 4]),
    rows=st.integers(1, 40),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 70),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_kernel_computes_what_is_meant(
    bits: int, rows: int, inputs: int, outputs: int, biased: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator)
    x[torch.rand(rows, inputs, generator=generator) < 0.01] *= 100  # outliers
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if biased else None
    found = Quantised(weight, bias, bits=bits)(x)
    expected = meant(x, weight, bias, bits)
    # A number half-way between two steps may be rounded either way: one step in a block, now and then.
    assert (found - expected).norm() <= 2e-3 * expected.norm() + 1e-5


@needs_kernels
@pytest.mark.parametrize("bits", [8, 4])
def test_a_row_is_the_same_in_any_batch_and_with_any_threads(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(130, 200, generator=generator)
    product = Quantised(torch.randn(90, 200, generator=generator), None, bits=bits)
    together = product(x)
    assert torch.equal(torch.cat([product(row[None]) for row in x]), together)
    for size in (3, 7, 20, 129):
        assert torch.equal(product(x[:size]), together[:size])
    for threads in (1, 3, 2):
        native.library().windlass_threads(threads)
        assert torch.equal(product(x), together)


@needs_kernels
def test_many_threads_call_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 200, generator=generator)
    product = Quantised(torch.randn(700, 200, generator=generator), None, bits=8)
    native.library().windlass_threads(3)
    expected = product(x)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: [product(x) for _ in range(200)], range(4)))
    assert all(torch.equal(one, expected) for part in found for one in part)


@needs_kernels
@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_and_leading_dimensions(bits: int) -> None:
    product = Quantised(torch.zeros(20, 30), torch.arange(20.0), bits=bits)
    assert torch.equal(product(torch.zeros(2, 3, 30)), torch.arange(20.0).expand(2, 3, 20))
    assert product(torch.zeros(0, 30)).shape == (0, 20)
    assert product(torch.ones(4, 30, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="30 inputs"):
        product(torch.ones(1, 31))


def test_an_outlier_spoils_its_own_block_only() -> None:
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(0))
    weight[:, 0] = 1000
    for bits in (8, 4):
        numbers, scale = quantise(weight, bits)
        restored = (numbers * scale[..., None]).flatten(1)
        step = 3.0 / (2 ** (bits - 1) - 1)  # of the other blocks: their numbers are of unit size
        assert (restored - weight)[:, BLOCK[bits] :].abs().max() < step


def reason_in(environment: dict[str, str]) -> str:
    """Why there are no kernels in a process with this environment."""
    code = "from windlass.serve.engine.arithmetic import native; print(native.unavailable())"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@needs_kernels
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    assert "compiler" in reason_in({"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(tmp_path)})


@needs_kernels
def test_what_was_compiled_beforehand_is_used_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beforehand([str(tmp_path / "kernels")]) == 0
    made = Path(capsys.readouterr().out.strip())
    there = {"CXX": "no-such-compiler", "WINDLASS_KERNELS": str(made.parent), "HOME": "/nonexistent"}
    assert reason_in(there) == "None"
    native._library.cache_clear()
    try:
        monkeypatch.setenv("WINDLASS_KERNELS", str(made.parent))
        known = native._processor()
        monkeypatch.setattr(native, "_processor", lambda: known - {"avx512_vnni", "avx512dq"})
        assert native.unavailable() == "this processor has no avx512_vnni, avx512dq", "it is not even loaded"
    finally:
        native._library.cache_clear()
    made.write_bytes(b"no library")
    assert "could not be loaded" in reason_in(there)


def test_it_says_what_keeps_it_from_compiling_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beforehand([]) == 2
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert beforehand([str(tmp_path)]) == 1 and "no C++ compiler" in capsys.readouterr().err
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert beforehand([str(tmp_path)]) == 0 and "no kernels for aarch64" in capsys.readouterr().out


@needs_kernels
def test_a_compiler_that_fails_is_reported(tmp_path: Path) -> None:
    broken = tmp_path / "cxx"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "out of luck" >&2\nexit 1\n')
    broken.chmod(0o755)
    assert "out of luck" in reason_in({"CXX": str(broken), "XDG_CACHE_HOME": str(tmp_path)})
    assert not list(tmp_path.glob("windlass/*")), "half a library was left behind"
