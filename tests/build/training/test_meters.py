"""The meters: a clock that the test turns, and FLOPs counted by torch itself while a real model trains."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from windlass.build.training import loop
from windlass.build.training.data.batches import IGNORE, Batch, Number
from windlass.build.training.distributed.parallel import Spread
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.measuring.flops import training_flops
from windlass.build.training.measuring.meters import PEAKS_BF16, Meter, known_peak, measured_peak, peak
from windlass.build.training.objectives import Loss, arithmetic, causal
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan
from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import derive
from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.model import model_of

ROWS, LENGTH, SOURCE, VOCABULARY = 3, 24, 20, 96


def test_a_step_is_divided_by_its_own_duration() -> None:
    speed = Meter(peak_flops=1e11).add(tokens=8_192, flops=8_192 * 6e6, seconds=2.0)
    assert speed.tokens_per_s == pytest.approx(4_096)
    assert speed.mfu == pytest.approx(4_096 * 6e6 / 1e11)


class Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000.0  # far from zero, so that dividing by a moment instead of a duration shows

    def __call__(self) -> float:
        return self.now


def test_the_loop_times_its_steps_and_nothing_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock))
    model = model_of(TransformerConfig(**BASE))
    assert isinstance(model, Decoder)
    initialise(model, 0)
    math = arithmetic(model)

    class Twos:
        """Examples of token 2."""

        def __len__(self) -> int:
            return 8

        def batch(self, numbers: Sequence[Number]) -> Batch:
            tokens = torch.full((len(numbers), LENGTH), 2)
            return Batch(tokens, tokens)

    def loss_of(batch: Batch) -> Loss:
        clock.now += 1.5
        return causal(model, batch, math)

    settings = read_recipe(changes={"data.batch": 4, "data.micro_batch": 2, "schedule.steps": 3})
    sizes, _ = derive(settings, VOCABULARY, model.config)
    state = loop.TrainState(
        model, Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer), Plan(3)
    )
    spread = Spread(model, loss_of, ALONE, "ddp")
    reports = []
    for report in loop.steps(state, Twos(), spread, sizes, settings.schedule, 0, None):
        reports.append(report)
        clock.now += 60.0  # a checkpoint, an evaluation
    assert [report.seconds for report in reports] == [3.0] * 3  # two passes a step
    assert [report.tokens for report in reports] == [4 * LENGTH] * 3
    whole = Twos().batch([(0, i) for i in range(4)])
    assert [report.flops for report in reports] == [training_flops(model, whole).total] * 3


def test_recent_speed_forgets_the_first_steps() -> None:
    meter = Meter(1e6, window=2)
    for seconds in (30.0, 1.0, 3.0):
        meter.add(100, 100.0, seconds)
    assert meter.recent.tokens_per_s == pytest.approx(50)
    assert meter.recent.mfu == pytest.approx(50e-6)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1e-3, 1e3)), min_size=1, max_size=20))
def test_recent_speed_lies_between_slowest_and_fastest_step(steps: list[tuple[int, float]]) -> None:
    meter = Meter(1e6)
    rates = [meter.add(tokens, 1.0, seconds).tokens_per_s for tokens, seconds in steps]
    assert min(rates) * (1 - 1e-6) <= meter.recent.tokens_per_s <= max(rates) * (1 + 1e-6)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="no step yet"):
        _ = Meter(1.0).recent
    with pytest.raises(ValueError, match="positive"):
        Meter(0.0)


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


BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 48,
    "context": LENGTH,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied, one key head": {"tied": True, "kv_heads": 1},
    "window": {"window": 8, "pattern": "LG"},
    "gpt-2": {
        "norm": "layer", "gated": False, "qkv_bias": True, "output_bias": True, "mlp_bias": True, "position": "learned"
    },
    "experts": {"experts": Experts(count=4, active=2, ffn=16)},
    "experts, one shared, every other layer": {"experts": Experts(count=4, active=1, ffn=16, shared_ffn=8, every=2)},
    "encoder": {"causal": False, "head_transform": True},
    "encoder-decoder": {"decoder_layers": 1, "position": "relative", "causal": False},
}  # fmt: skip


@pytest.mark.parametrize("shape", list(SHAPES))
def test_flops_are_those_that_torch_counts(shape: str) -> None:
    """Products of matrices exactly; attention too, once the pairs that see nothing are taken out of torch's count."""
    config = TransformerConfig(**{**BASE, **SHAPES[shape]})
    model = model_of(config)
    initialise(model, 0)
    targets = torch.randint(VOCABULARY, (ROWS, LENGTH))
    if not config.causal and not config.decoder_layers:
        targets[:, ::3] = IGNORE
    source = torch.randint(VOCABULARY, (ROWS, SOURCE)) if config.decoder_layers else None
    batch = Batch(torch.randint(VOCABULARY, (ROWS, LENGTH)), targets, source_BS=source)
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        if isinstance(model, EncoderDecoder):
            assert source is not None
            x_BTC = model.hidden(source, batch.inputs_BT)
        else:
            x_BTC = model.hidden(batch.inputs_BT)
        logits = model.logits(x_BTC[targets != IGNORE])
        torch.autograd.backward(torch.nn.functional.cross_entropy(logits, targets[targets != IGNORE]))
    found = {str(op).rpartition(".")[2]: count for op, count in counter.get_flop_counts()["Global"].items()}
    needed = training_flops(model, batch)
    assert found["mm"] + found.get("addmm", 0) == needed.matrices
    seen = needed.attention / (12 * config.heads * config.head_dim * ROWS)
    blind = 0.0
    for half, length in zip(config.halves, (SOURCE, LENGTH) if config.decoder_layers else (LENGTH,)):
        blind += sum(length - half.seen(layer, length) for layer in range(half.layers)) * length
    assert found["bmm"] == pytest.approx(needed.attention * (1 + blind / seen))


def test_idle_experts_need_nothing() -> None:
    few, many = (model_of(TransformerConfig(**{**BASE, "experts": Experts(count=n, active=2, ffn=16)})) for n in (4, 8))
    batch = Batch(*(torch.randint(VOCABULARY, (ROWS, LENGTH)) for _ in range(2)))
    router = 6 * 2 * 4 * 32 * ROWS * LENGTH  # four more rows in each of two layers
    assert training_flops(many, batch).total - training_flops(few, batch).total == router


def test_pairs_of_texts_are_both_read_and_nothing_is_predicted() -> None:
    model = model_of(TransformerConfig(**{**BASE, "causal": False}))
    tokens, nothing = torch.zeros(ROWS, LENGTH, dtype=torch.int64), torch.full((ROWS, LENGTH), IGNORE)
    one = training_flops(model, Batch(tokens, nothing))
    both = training_flops(model, Batch(tokens, nothing, source_BS=tokens))
    assert both.total == 2 * one.total
