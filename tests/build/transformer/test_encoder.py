"""The encoder against itself: packed rows, documents, the head it may lack, and input that it cannot read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.init import initialise
from windlass.build.transformer.pooling import mean_pool
from windlass.core.errors import InputError

BERT = TransformerConfig(
    vocab_size=50, hidden=24, layers=3, heads=3, kv_heads=3, head_dim=8, ffn=40, context=16, causal=False, tied=True,
    position="learned", qkv_bias=True, output_bias=True, norm="layer", norm_placement="post", embedding_norm=True,
    activation="gelu", gated=False, mlp_bias=True, token_types=2, head_transform=True, head_bias=True,
)  # fmt: skip
MODERN = TransformerConfig(
    vocab_size=50, hidden=24, layers=3, heads=3, kv_heads=1, head_dim=8, ffn=40, context=16, causal=False, tied=True,
    window=4, pattern="GLL", local_rope_theta=100.0, norm="layer", norm_bias=False, embedding_norm=True,
    first_norm=False, activation="gelu", head_transform=True,
)  # fmt: skip
RELATIVE = replace(MODERN, position="relative", relative_buckets=8, relative_distance=6, local_rope_theta=None)


def make(config: TransformerConfig = BERT) -> Encoder:
    """All weights matter: initialisation leaves some at zero and norms at one."""
    model = Encoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("config", [BERT, MODERN, RELATIVE], ids=["bert", "modernbert", "relative"])
@pytest.mark.parametrize("lengths", [[3, 3, 7, 1, 16, 7], [5, 5, 5], [9]])
def test_a_text_gives_the_same_alone_packed_by_length_and_among_documents(
    config: TransformerConfig, lengths: list[int]
) -> None:
    model = make(replace(config, context=64))
    rows = [torch.randint(50, (1, length)) for length in lengths]
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    with torch.inference_mode():
        packed = model.hidden(torch.cat(rows, 1), lengths=lengths).split(lengths, dim=1)
        among = model.hidden(torch.cat(rows, 1), documents_BT=documents).split(lengths, dim=1)
        for row, one, other in zip(rows, packed, among, strict=True):
            alone = model.hidden(row)
            torch.testing.assert_close(one, alone, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(other, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [BERT, MODERN], ids=["bert", "modernbert"])
def test_gradients_reach_every_weight_through_the_head(config: TransformerConfig) -> None:
    model = make(config)
    types = torch.tensor([[0] * 8 + [1] * 8]) if config.token_types else None
    model(torch.randint(50, (1, 16)), types_BT=types).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("config", [BERT, MODERN, RELATIVE], ids=["bert", "modernbert", "relative"])
def test_initialised_encoders_start_at_a_uniform_guess_and_reproducibly(config: TransformerConfig) -> None:
    first, second, other = Encoder(config), Encoder(config), Encoder(config)
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(model, seed)
        assert all(weight.isfinite().all() for weight in model.parameters())
    x = torch.randint(50, (4, 16))
    assert torch.equal(first(x), second(x)) and not torch.equal(first(x), other(x))
    loss = torch.nn.functional.cross_entropy(first(x).flatten(0, 1), torch.randint(50, (64,)))
    assert abs(loss.item() - torch.log(torch.tensor(50.0))) < 0.3


@pytest.mark.parametrize("config", [BERT, MODERN, RELATIVE], ids=["bert", "modernbert", "relative"])
@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"headless": True, "head_transform": False}])
def test_parameter_count_is_exact(config: TransformerConfig, changes: dict[str, bool]) -> None:
    changes = changes | ({"head_bias": False} if "headless" in changes else {})
    config = replace(config, **changes)
    assert config.parameters == sum(weight.numel() for weight in Encoder(config).parameters())


def test_mean_pool_counts_real_positions_only() -> None:
    x = torch.randn(3, 16, 24)
    real = torch.arange(16) < torch.tensor([16, 5, 1])[:, None]
    for row, length, found in zip(x, (16, 5, 1), mean_pool(x, real), strict=True):
        torch.testing.assert_close(found, row[:length].mean(0))
    assert mean_pool(x, torch.zeros_like(real)).isnan().all()
    assert mean_pool(x.bfloat16(), real).dtype == torch.bfloat16


def test_an_encoder_without_a_head_says_so() -> None:
    model = make(replace(BERT, headless=True, head_transform=False, head_bias=False))
    assert model.hidden(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 24)
    with pytest.raises(InputError, match="no masked-LM head"):
        model(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(InputError, match="headless excludes"):
        replace(BERT, headless=True)


def test_a_causal_configuration_makes_no_encoder() -> None:
    with pytest.raises(InputError, match="an encoder is not causal"):
        Encoder(replace(BERT, causal=True))


@pytest.mark.parametrize("lengths", [[], [0, 4], [3], [5]])
def test_lengths_must_fit_the_tokens(lengths: list[int]) -> None:
    with pytest.raises(InputError, match="cannot be split"):
        make().hidden(torch.zeros(1, 4, dtype=torch.long), lengths=lengths)
    with pytest.raises(InputError, match="2 row"):
        make().hidden(torch.zeros(2, 4, dtype=torch.long), lengths=[4])


def test_longer_than_the_model_reads_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"17 tokens.*at most 16"):
        make().hidden(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(InputError, match=r"17 tokens.*at most 16"):
        make().hidden(torch.zeros(1, 20, dtype=torch.long), lengths=[3, 17])
    assert make().hidden(torch.zeros(1, 32, dtype=torch.long), lengths=[16, 16]).shape == (1, 32, 24)


def test_types_for_a_model_that_knows_none_are_refused() -> None:
    with pytest.raises(InputError, match="knows none"):
        make(MODERN).hidden(torch.zeros(1, 4, dtype=torch.long), types_BT=torch.zeros(1, 4, dtype=torch.long))
