"""The meters: a clock that the test turns, and FLOPs counted by torch itself while a real model trains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from windlass.build.training.objective import causal_lm

from windlass.build.training.meters import PEAKS_BF16, Meter, known_peak, measured_peak, peak
from windlass.build.transformer.config import DecoderConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0  # far from zero, so that dividing by a moment instead of a duration shows

    def __call__(self) -> float:
        return self.now


def test_a_step_is_divided_by_its_own_duration() -> None:
    clock = Clock()
    meter = Meter(flops_per_token=6e6, peak_flops=1e11, clock=clock)
    meter.start()
    clock.now += 2.0
    speed = meter.stop(8_192)
    assert speed.tokens_per_s == pytest.approx(4_096)
    assert speed.mfu == pytest.approx(4_096 * 6e6 / 1e11)


def test_time_between_steps_does_not_count() -> None:
    clock = Clock()
    meter = Meter(1.0, 1e6, clock=clock)
    for _ in range(3):
        meter.start()
        clock.now += 0.5
        meter.stop(100)
        clock.now += 60.0  # a checkpoint, an evaluation
    assert meter.overall.tokens_per_s == pytest.approx(200)
    assert (meter.tokens, meter.seconds) == (300, pytest.approx(1.5))


def test_recent_speed_forgets_the_first_steps() -> None:
    clock = Clock()
    meter = Meter(1.0, 1e6, window=2, clock=clock)
    for seconds in (30.0, 1.0, 3.0):
        meter.start()
        clock.now += seconds
        meter.stop(100)
    assert meter.recent.tokens_per_s == pytest.approx(50)
    assert meter.overall.tokens_per_s == pytest.approx(300 / 34)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 1e3)), min_size=1, max_size=20))
def test_overall_lies_between_slowest_and_fastest_step(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    clock.now = 0.0
    meter = Meter(1.0, 1e6, clock=clock)
    rates = []
    for tokens, seconds in steps:
        meter.start()
        clock.now += seconds
        rates.append(meter.stop(tokens).tokens_per_s)
    assert min(rates) * (1 - 1e-6) <= meter.overall.tokens_per_s <= max(rates) * (1 + 1e-6)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="without having been started"):
        Meter(1.0, 1.0).stop(1)
    for flops, most in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match="positive"):
            Meter(flops, most)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA A10G", 70e12),
    ],
)
def test_known_accelerators(name: str, flops: float) -> None:
    assert known_peak(name) == flops


def test_an_unknown_accelerator_has_no_known_peak() -> None:
    assert known_peak("Imaginary 9000") is None


def test_no_name_in_the_table_hides_a_longer_one() -> None:
    names = list(PEAKS_BF16)
    for i, name in enumerate(names):
        assert not any(name in later for later in names[i + 1 :]), f"{name} would be found instead of a later name"


def test_the_measured_peak_is_what_a_product_here_reaches() -> None:
    best = measured_peak(torch.float32, "cpu", torch.get_num_threads())
    assert 1e8 < best < 1e15
    assert peak(torch.float32).source == "measured"
    assert peak(torch.float32, devices=2).flops == pytest.approx(2 * best)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 1)])
def test_flops_are_those_that_torch_counts(tied: bool, heads: int, kv_heads: int) -> None:
    """The counter sees both triangles of attention; the formula counts the causal one, as the field does."""
    config = DecoderConfig(
        vocab_size=96, hidden=32, layers=2, heads=heads, kv_heads=kv_heads, head_dim=16, ffn=48, context=24, tied=tied
    )
    model = Decoder(config)
    initialise(model, 0)
    tokens = torch.randint(96, (3, 25))
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        torch.autograd.backward(causal_lm(model, tokens))
    other_triangle = 6 * config.layers * config.heads * config.head_dim * config.context
    assert counter.get_total_flops() == 3 * 24 * (config.flops_per_token + other_triangle)
