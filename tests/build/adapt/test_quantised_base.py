"""Bases in 4 and 8 bits: numbers as bitsandbytes has them, and adapters that are kept as they were trained."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tuned_world import asked, echoes, make_home, write_rows

from windlass.build.adapt.checking import check_tuning, open_uncompiled
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.adapt.peft.artifacts import combine_stored, facts, merge_stored, stored
from windlass.build.adapt.peft.attaching import attach, attach_adapter, merge
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.peft.quantised import QuantisedLinear, numbers, quantise, quantised_maps, state_of
from windlass.build.adapt.peft.quantised_values import BLOCK, NF4, dequantised, quantised
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES, tune
from windlass.build.transformer.adapters.base import BASE, bits_of, measured_of
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_links, load_model, tied_head
from windlass.build.transformer.init import initialise
from windlass.build.transformer.linear import Linear
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.serve.engine.local import LocalModel

SHAPE = TransformerConfig(vocab_size=61, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=40, context=64)
TOKENS = torch.arange(2, 40)[None]


def decoder() -> Decoder:
    model = Decoder(SHAPE)
    initialise(model, 0)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def disturbed(model: torch.nn.Module) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))


def rounded(matrix: torch.Tensor) -> torch.Tensor:
    """NF4 by the definition: number for number, the nearest of 16 multiples of the block's largest."""
    found = []
    flat = matrix.flatten().tolist()
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        largest = max(map(abs, block))
        found += [min((value * largest for value in NF4), key=lambda one: abs(one - number)) for number in block]
    return torch.tensor(found).view(matrix.shape)


@pytest.mark.parametrize("shape", [(8, 64), (5, 24), (3, 7), (1, 1)])
def test_4_bits_are_the_nearest_of_16_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    assert torch.allclose(dequantised(quantised(matrix, 4)), rounded(matrix), atol=1e-6)


def test_8_bits_are_off_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(6, BLOCK)
    steps_61 = matrix.abs().amax(1, keepdim=True) / 127
    assert ((dequantised(quantised(matrix, 8)) - matrix).abs() <= steps_61 * 0.5001).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_of_zeros_stay_zeros(bits: int) -> None:
    matrix = torch.zeros(2, BLOCK)
    matrix[1, 3] = 1e-30
    found = dequantised(quantised(matrix, bits))
    assert torch.equal(found, matrix)


@pytest.mark.parametrize("shape", [(8, 64), (48, 40), (5, 24)])
def test_4_bits_are_those_of_bitsandbytes(shape: tuple[int, int]) -> None:
    """Both ways: its codes by our reading, ours by its own."""
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, at import
        from bitsandbytes import functional
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    theirs, state = functional.quantize_4bit(matrix, blocksize=BLOCK, quant_type="nf4")
    ours = quantised(matrix, 4)
    count = matrix.numel() // 2
    assert torch.equal(ours.codes[:count], theirs.flatten()[:count]) and torch.equal(ours.scales, state.absmax)
    expected = functional.dequantize_4bit(theirs, state)
    assert torch.equal(dequantised(ours), expected)
    assert torch.equal(dequantised(ours, torch.bfloat16), expected.bfloat16())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_map_computes_and_derives_with_rounded_numbers(bits: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = Linear(24, 40, bias=True)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.normal_()
    small = QuantisedLinear(plain, bits)
    x, other = (one.requires_grad_(True) for one in torch.randn(2, 3, 7, 24).to(dtype).unbind())
    other.data.copy_(x.data)
    weight, bias = small.weight.to(dtype), small.bias.to(dtype)
    out, expected = small(x), torch.nn.functional.linear(other, weight) + bias
    assert out.dtype == dtype and torch.equal(out, expected)
    out.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert torch.allclose(x.grad, other.grad, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert {name for name, _ in small.named_parameters()} == {"bias"} and not small.state_dict().keys() - {"bias"}


def test_nothing_of_the_size_of_a_weight_is_kept_for_the_way_back() -> None:
    small, kept = QuantisedLinear(decoder().blocks[0].mlp.up, 4), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one) or one, lambda one: one):
        small(torch.randn(1, 2, 32, requires_grad=True))
    assert kept and max(one.nbytes for one in kept) < 32 * 40


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_an_adapter_beside_it_is_that_beside_rounded_weights(bits: int, kind: str) -> None:
    """Outputs, gradients and the merge are those of a plain model whose weights were rounded beforehand."""
    plain, small = decoder(), decoder()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if "blocks." in name and parameter.ndim == 2:
                parameter.copy_(dequantised(quantised(parameter, bits)))
    count = numbers(small)
    quantise(small, bits)
    assert numbers(small) == count and len(quantised_maps(small)) == 14
    settings = AdapterSettings(kind, rank=2, alpha=4, targets=("query", "up", "down"), bits=bits)
    for model in (plain, small):
        attach(model, settings, seed=1)
        disturbed(model)
        model(TOKENS).square().sum().backward()
    theirs = {name: one.grad for name, one in plain.named_parameters() if one.requires_grad}
    ours = {name: one.grad for name, one in small.named_parameters() if one.requires_grad}
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-3) for name in ours)
    expected = plain(TOKENS)
    assert torch.allclose(small(TOKENS), expected, atol=1e-4)
    assert torch.equal(
        state_of(small)["blocks.0.attention.key.weight"], plain.state_dict()["blocks.0.attention.key.weight"]
    )
    merge(small)
    assert torch.allclose(small(TOKENS), expected, atol=1e-4)
    assert small.state_dict().keys() == decoder().state_dict().keys() and not quantised_maps(small)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("quantised"))


def heldout_beside_whole(ws: Workspace, settings: TuneSettings, adapter: Path) -> float:
    """Held-out loss of the adapter in a model that was never rounded."""
    whole = replace(settings, adapter=replace(settings.adapter, bits=None))
    prepared = OBJECTIVES["sft"](open_inputs(ws, whole))
    base = ws.artifacts.get("base").path
    model = prepared.model
    model.load_state_dict(load_model(base).state_dict(), strict=False)
    found = read_for(load_model(base), adapter, load_links(base), tied_head(base))
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            part, own = found.parts[name], module.part()
            own.down_RK.data.copy_(part.down_RK)
            own.up_NR.data.copy_(part.up_NR)
    return prepared.measure(prepared.loss, None, None).loss


def test_it_learns_is_stored_and_merged_as_it_was_trained(home: Path, tmp_path: Path) -> None:
    settings = asked(write_rows(tmp_path / "rows.jsonl", echoes(40)), adapter__bits=4, run__name="small")
    lines: list[str] = []
    with Workspace(home) as ws:
        rows = check_tuning(ws, open_uncompiled(ws, settings), say=lambda line: None).rows
        assert any("are frozen in 4 bits" in value for _, _, value in rows)
        made = tune(ws, settings, say=lines.append)
        assert made.card["settings"]["adapter"]["bits"] == 4 and bits_of(made.path) == 4
        losses = [point.value for point in ws.store.metrics(made.record.run) if point.name == "heldout_loss"]
        assert losses[-1] < losses[0]
        one = stored(ws, made.ref)
        assert facts(one)["base_bits"] == 4
        rounded, whole = measured_of(made.path) or (0.0, 0.0)
        assert rounded == losses[-1] and whole == made.card["heldout_loss_beside_whole_base"] != rounded
        assert whole == pytest.approx(heldout_beside_whole(ws, settings, made.path), rel=1e-5)
        served = LocalModel.load(ws.artifacts.get("base").path)
        caveat = served.load_adapter("small", made.path).caveat
        assert f"its held-out loss was {rounded:.4g} there, and {whole:.4g} beside the base as it is" in str(caveat)
        served.close()
        merged = merge_stored(ws, one, "whole")
        assert merged.card["merge_error"] < 1e-4 < merged.card["error_beside_whole_base"]
        body, adapter = one.read()
        base = body.model
        quantise(base, 4)
        attach_adapter(base, adapter)
        with torch.inference_mode():
            assert torch.allclose(load_model(merged.path)(TOKENS), base(TOKENS), atol=1e-4)
    assert any("are frozen in 4 bits" in line for line in lines)


def test_an_adapter_is_trained_further_beside_what_it_was_trained_beside(home: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", echoes(20))
    quick = {"schedule__steps": 2, "adapter__bits": 8}
    with Workspace(home) as ws:
        first = tune(ws, asked(rows, run__name="first", **quick), say=lambda line: None)
        further = asked(rows, run__name="further", model__adapter_from=first.ref, **quick)
        with pytest.raises(InputError, match=r"trained beside a base in 8 bits, but adapter\.bits is not set"):
            tune(ws, replace(further, adapter=replace(further.adapter, bits=None)), say=lambda line: None)
        assert bits_of(tune(ws, further, say=lambda line: None).path) == 8
        plain = tune(ws, asked(rows, run__name="plain", schedule__steps=2), say=lambda line: None)
        with pytest.raises(InputError, match="beside a base in few bits"):
            combine_stored(ws, [(stored(ws, one.ref), 0.5) for one in (first, plain)], "both")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"adapter__bits": 3}, r"adapter\.bits is 3"),
        ({"adapter__bits": 4, "adapter__merge": True}, "a merge may lose"),
        ({"adapter__bits": 4, "adapter__kind": "ia3"}, r"adapter\.kind 'ia3' does not heed"),
        ({"adapter__bits": 4, "adapter__kind": "none"}, r"adapter\.kind 'none' does not heed"),
        ({"adapter__bits": 4, "objective__kind": "grpo"}, "an engine answers"),
    ],
)
def test_what_cannot_be_quantised_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        asked("rows.jsonl", **changes)


def test_a_damaged_note_of_the_bits_is_refused(tmp_path: Path) -> None:
    for text in ('{"weights": "x", "bits": 5}', "[]"):
        (tmp_path / BASE).write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=BASE):
            bits_of(tmp_path)
