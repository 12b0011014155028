"""Every policy gives what float32 gives, as nearly as it promises; one that does not is passed over, and says so."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError
from windlass.serve.engine.arithmetic import linears
from windlass.serve.engine.arithmetic.linears import AUTOMATIC, POLICIES, prepare

LLAMA = TransformerConfig(
    vocab_size=101, hidden=48, layers=2, heads=4, kv_heads=2, head_dim=12, ffn=80, context=64, qkv_bias=True
)
SHAPES = {
    "llama": LLAMA,
    "tied": dataclasses.replace(LLAMA, tied=True, qkv_bias=False),
    "plain": dataclasses.replace(LLAMA, gated=False, mlp_bias=True, output_bias=True, norm="layer", head_bias=True),
    "experts": dataclasses.replace(LLAMA, experts=Experts(count=4, active=2, ffn=32, shared_ffn=16)),
}
FAITHFUL = {"fp32": 0.0, "bf16": 1e-3, "int8": 1e-3, "int4": 0.1}
"""Nats per token by which each policy may differ from float32 on these models."""


def decoder(config: TransformerConfig = LLAMA) -> Decoder:
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval().requires_grad_(False)


def tokens(config: TransformerConfig, rows: int = 2, length: int = 20) -> Tensor:
    return torch.randint(config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(2))


def divergence(expected: Tensor, found: Tensor) -> float:
    p, q = expected.log_softmax(-1), found.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.fixture
def able(request: pytest.FixtureRequest) -> str:
    """A policy that this machine can do."""
    policy: str = request.param
    if policy in linears._CHOICES and (reason := linears._CHOICES[policy].unable()):
        pytest.skip(reason)
    return policy


@pytest.mark.parametrize("able", POLICIES, indirect=True)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_policy_is_as_faithful_as_it_promises(shape: str, able: str) -> None:
    config = SHAPES[shape]
    model, asked = decoder(config), tokens(config)
    with torch.inference_mode():
        expected = model(asked)
        report = prepare(model, able)
        found = model(asked)
    assert (report.policy, report.reasons) == (able, ())
    assert divergence(expected, found) <= FAITHFUL[able]
    assert able == "fp32" or not torch.equal(expected, found), "the policy was not in force"
    assert report.bytes > 0 and report.products >= 4 * config.layers


@pytest.mark.parametrize("able", POLICIES, indirect=True)
def test_reading_in_parts_gives_what_reading_at_once_gives(able: str) -> None:
    model, asked = decoder(), tokens(LLAMA)
    prepare(model, able)
    with torch.inference_mode():
        cache = model.new_cache(batch=2)
        model.prefill(asked[:, :13], cache)
        in_parts = [model.decode_step(asked[:, i], cache) for i in range(13, 20)][-1]
        at_once = model(asked)[:, -1]
    assert divergence(at_once, in_parts) < 1e-3


def test_auto_takes_what_the_report_says() -> None:
    report = prepare(decoder(), "auto")
    assert report.asked == "auto" and report.policy in POLICIES[POLICIES.index(AUTOMATIC) :]
    assert report.policy in str(report)


def test_a_wrong_kernel_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        bytes = 1

        def __init__(self, weight_NK: Tensor, bias_N: Tensor | None) -> None:
            self.weight, self.bias = weight_NK, bias_N

        def __call__(self, x: Tensor) -> Tensor:
            out = F.linear(x, self.weight, self.bias)
            out[..., -1] += 1  # as a kernel whose last column is off
            return out

    model, asked = decoder(), tokens(LLAMA)
    expected = model(asked)
    choice = dataclasses.replace(linears._CHOICES["bf16"], make=Wrong, unable=lambda: None)
    monkeypatch.setitem(linears._CHOICES, "bf16", choice)
    report = prepare(model, "bf16")
    assert report.policy == "fp32" and "wrong by" in report.reasons[0]
    assert torch.equal(model(asked), expected), "the decoder is not as it was"


def test_a_policy_that_moves_the_model_too_far_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = dataclasses.replace(linears._CHOICES["bf16"], divergence=1e-12, unable=lambda: None)
    monkeypatch.setitem(linears._CHOICES, "bf16", choice)
    report = prepare(decoder(), "bf16")
    assert report.policy == "fp32" and "nats per token" in report.reasons[0]


def test_what_a_machine_cannot_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, choice in linears._CHOICES.items():
        monkeypatch.setitem(linears._CHOICES, name, dataclasses.replace(choice, unable=lambda: "no such instructions"))
    report = prepare(decoder(), "int4")
    assert report.policy == "fp32" and len(report.reasons) == len(linears._CHOICES)
    assert "no such instructions" in str(report)


def test_unknown_policies_and_other_weights_are_refused() -> None:
    with pytest.raises(InputError, match="int3"):
        prepare(decoder(), "int3")
    with pytest.raises(InputError, match="bfloat16"):
        prepare(decoder().bfloat16(), "auto")


@pytest.mark.parametrize("able", ["int8"], indirect=True)
def test_outliers_are_found_out(able: str) -> None:
    """A few inputs of every product far larger than the rest, as large trained models have them; the same function."""
    model, asked = decoder(), tokens(LLAMA)
    with torch.no_grad():
        for block in model.blocks:
            block.attention_norm.weight[:2] *= 128
            for reader in (block.attention.query, block.attention.key, block.attention.value):
                reader.weight[:, :2] /= 128
            block.mlp_norm.weight[:2] *= 128
            for reader in (block.mlp.gate, block.mlp.up):
                reader.weight[:, :2] /= 128
        assert torch.equal(model(asked), decoder()(asked)), "not the same function"
        expected = model(asked)
        report = prepare(model, "auto")
    assert report.policy != able and report.reasons[0].startswith("not int8: ")
    assert divergence(expected, model(asked)) < 1e-3


def test_a_reason_keeps_the_decoder_as_it_is() -> None:
    model, asked = decoder(), tokens(LLAMA)
    expected = model(asked)
    report = prepare(model, "auto", keep="somebody said so")
    assert (report.policy, report.reasons) == ("fp32", ("somebody said so",))
    assert str(report).endswith("; somebody said so") and torch.equal(model(asked), expected)
    assert prepare(model, "bf16", keep="somebody said so").reasons != ("somebody said so",), "bf16 was asked for"
