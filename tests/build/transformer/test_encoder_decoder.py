"""The encoder-decoder against itself: cache, memory, documents, initialisation, and input that it cannot read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.generating import generate
from windlass.build.transformer.hf import load_model, save_model
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError

T5 = TransformerConfig(
    vocab_size=53, hidden=24, layers=2, decoder_layers=3, heads=3, kv_heads=3, head_dim=8, ffn=40, context=32,
    tied=True, position="relative", relative_buckets=8, relative_distance=12, attention_scale=1.0,
    activation="gelu_tanh", logit_scale=24**-0.5,
)  # fmt: skip
MODERN = TransformerConfig(
    vocab_size=53, hidden=24, layers=2, decoder_layers=2, heads=4, kv_heads=2, head_dim=8, ffn=40, context=32,
    qk_norm=True, window=6, pattern="LG",
)  # fmt: skip
"""No published family: rotary positions, grouped heads and windows work in an encoder-decoder too."""

SPARSE = replace(T5, experts=Experts(count=4, active=2, ffn=16, every=2))

BOTH = pytest.mark.parametrize("config", [T5, MODERN], ids=["t5", "rotary"])


def make(config: TransformerConfig) -> EncoderDecoder:
    model = EncoderDecoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval()


def tokens(length: int, batch: int = 2, seed: int = 7) -> torch.Tensor:
    return torch.randint(2, 53, (batch, length), generator=torch.Generator().manual_seed(seed))


@BOTH
def test_writing_step_by_step_equals_one_pass(config: TransformerConfig) -> None:
    model, source, target = make(config), tokens(20), tokens(32, seed=8)
    padded = torch.where(torch.arange(20) < torch.tensor([20, 11])[:, None], 0, -1)
    with torch.inference_mode():
        whole = model(source, target, source_documents_BS=padded)
        memory, cache = model.remember(source, source_documents_BS=padded), model.new_cache(batch=2)
        steps = [model.decode_step(target[:, i], memory, cache) for i in range(32)]
    torch.testing.assert_close(torch.stack(steps, 1), whole, atol=1e-5, rtol=1e-4)
    with torch.inference_mode(), pytest.raises(InputError, match="33 tokens"):
        model.decode_step(target[:, 0], memory, cache)


@BOTH
def test_the_source_is_read_once_however_much_is_written(config: TransformerConfig, monkeypatch) -> None:
    model = make(config)
    reads = []
    through = model.encoder.through
    monkeypatch.setattr(model.encoder, "through", lambda *args: reads.append(1) or through(*args))
    assert len(generate(model, tokens(9, 1), start=0, end=-1, most=12)[0]) == 12
    assert len(reads) == 1


@BOTH
def test_pairs_packed_in_a_row_do_not_see_each_other(config: TransformerConfig) -> None:
    model, source, target = make(config), tokens(20, 1), tokens(18, 1, seed=8)
    documents = {
        "source_documents_BS": torch.tensor([[0] * 8 + [1] * 10 + [-1] * 2]),
        "target_documents_BT": torch.tensor([[0] * 5 + [1] * 10 + [-1] * 3]),
    }
    with torch.inference_mode():
        together = model(source, target, **documents)
        first, second = model(source[:, :8], target[:, :5]), model(source[:, 8:18], target[:, 5:15])
        torch.testing.assert_close(together[:, :5], first, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together[:, 5:15], second, atol=1e-5, rtol=1e-4)
        for changed, place in ((source, 3), (target, 2)):
            changed[0, place] = (changed[0, place] + 1) % 53
        moved = model(source, target, **documents)
    assert torch.equal(moved[:, 5:15], together[:, 5:15]) and not torch.equal(moved[:, :5], together[:, :5])


@BOTH
def test_padding_without_a_source_spoils_no_gradient(config: TransformerConfig) -> None:
    model = make(config)
    logits = model(
        tokens(6),
        tokens(9, seed=8),
        source_documents_BS=torch.zeros(2, 6, dtype=torch.long),
        target_documents_BT=torch.tensor([[0] * 9, [0] * 4 + [-1] * 5]),
    )
    logits.square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any(), name


def test_documents_of_the_target_alone_are_refused() -> None:
    with pytest.raises(InputError, match="source_documents_BS"):
        make(T5)(tokens(6), tokens(9), target_documents_BT=torch.zeros(2, 9, dtype=torch.long))


@BOTH
def test_initialised_models_start_at_a_uniform_guess_and_learn_from_every_weight(config: TransformerConfig) -> None:
    first, second = EncoderDecoder(config), EncoderDecoder(config)
    initialise(first, 3)
    initialise(second, 3)
    source, target = tokens(20), tokens(16, seed=8)
    assert torch.equal(first(source, target), second(source, target))
    optimizer = torch.optim.Adam(first.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(first(source, target)[:, :-1].flatten(0, 1), target[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - math.log(53)) < 0.3 and losses[-1] < 0.75 * losses[0]
    assert all(weight.grad.any() for weight in first.parameters())


@pytest.mark.parametrize(
    "config",
    [
        T5,
        MODERN,
        SPARSE,
        replace(T5, tied=False),
        replace(MODERN, qkv_bias=True, output_bias=True, mlp_bias=True, gated=False),
    ],
)
def test_parameter_count_is_exact(config: TransformerConfig) -> None:
    assert config.parameters == sum(weight.numel() for weight in EncoderDecoder(config).parameters())


def test_flops_count_every_matrix_of_both_halves() -> None:
    """Against the products that the model really does, as `torch.utils.flop_counter` counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    model = make(replace(T5, position="none", attention_scale=None))
    tokens_B32 = tokens(32, 1)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens_B32, tokens_B32).sum().backward()
    causal_half = 6 * 3 * 3 * 8 * 32 * 32  # the mathematical kernel multiplies what the mask then hides
    assert counter.get_total_flops() == pytest.approx(model.config.flops_per_token * 64 + causal_half, rel=0.02)


def test_save_and_load_keep_every_bit(tmp_path) -> None:
    model = make(T5)
    save_model(model, tmp_path, bos=0, eos=1, pad=0)
    again = load_model(tmp_path)
    assert again.config == T5
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(InputError, match=r"t5 cannot express.*window 6"):
        save_model(make(MODERN), tmp_path, family="t5")


def test_sampling_repeats_with_its_generator_and_differs_without() -> None:
    model, source = make(T5), tokens(12, 3)

    def sample(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return generate(model, source, start=0, end=1, most=15, temperature=1.0, generator=generator)

    assert sample(1) == sample(1) != sample(2)
    cold = generate(model, source, start=0, end=1, most=15, temperature=1e-6, generator=torch.Generator())
    assert cold == generate(model, source, start=0, end=1, most=15)


def test_what_cannot_be_read_or_written_is_refused_with_its_numbers() -> None:
    model = make(T5)
    with pytest.raises(InputError, match=r"33 tokens.*at most 32"):
        model(tokens(33), tokens(4))
    with pytest.raises(InputError, match=r"33 tokens.*at most 32"):
        model(tokens(4), tokens(33))
    with pytest.raises(InputError, match="writes 1 to 32"):
        generate(model, tokens(4), start=0, end=1, most=33)
    with pytest.raises(InputError, match=r"temperature is -1\.0"):
        generate(model, tokens(4), start=0, end=1, most=3, temperature=-1.0)
    with pytest.raises(InputError, match="relative_buckets is 24"):
        replace(T5, relative_buckets=24)
    with pytest.raises(InputError, match="decoder_layers is 0"):
        EncoderDecoder(replace(T5, decoder_layers=0))


@BOTH
def test_training_calls_blocks_only_so_that_their_weights_may_be_spread(config: TransformerConfig) -> None:
    """FSDP gathers a block's weights while the block is called: whoever uses one of its parts elsewhere would fail."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    plain, spread = make(config), make(config)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        for stack in (spread.encoder, spread.decoder):
            for block in stack.blocks:
                fully_shard(block, mesh=mesh)
        source, target = tokens(9), tokens(7, seed=8)
        for model in (plain, spread):
            model(source, target).square().mean().backward()
        for (name, one), other in zip(plain.named_parameters(), spread.parameters(), strict=True):
            gradient = other.grad.full_tensor() if hasattr(other.grad, "full_tensor") else other.grad
            torch.testing.assert_close(gradient, one.grad, atol=1e-5, rtol=1e-4, msg=name)
    finally:
        dist.destroy_process_group()


def test_experts_of_both_halves_report_their_balance() -> None:
    routing: list[torch.Tensor] = []
    make(SPARSE)(tokens(9), tokens(7, seed=8), routing=routing)
    assert len(routing) == 2, "the second layer of the encoder's two, and of the decoder's three"
    assert all(1 <= loss <= 8 for loss in routing)
