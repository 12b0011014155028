"""What holds for every configuration, whatever its norms, positions, windows, biases, caps and experts."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.build.transformer.attention import visible
from windlass.build.transformer.config import Experts, RopeScaling, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model, save_model
from windlass.build.transformer.init import initialise
from windlass.build.transformer.ragged import Parts
from windlass.core.errors import InputError

CONTEXT = 24
SCALINGS = (
    None,
    RopeScaling("linear", factor=2.0),
    RopeScaling("llama3", factor=4.0, original_context=8),
    RopeScaling("yarn", factor=4.0, original_context=8),
    RopeScaling("longrope", factor=3.0, original_context=9, short_factors=(1.0, 1.2), long_factors=(1.5, 4.0)),
)

EXPERTS = (None, Experts(4, 2, 12), Experts(3, 1, 8, False, 6, 2), Experts(2, 2, 8, dense_layers=(0,)))
SHAPE = {"vocab_size": 9, "hidden": 8, "heads": 2, "kv_heads": 1, "head_dim": 4, "ffn": 8, "context": 9}


@st.composite
def configurations(draw) -> TransformerConfig:
    position = draw(st.sampled_from(["rope", "learned", "sinusoidal", "alibi", "relative", "none"]))
    placement = draw(st.sampled_from(["pre", "post", "sandwich"]))
    norm = draw(st.sampled_from(["rms", "layer"]))
    flags = {name: draw(st.booleans()) for name in (
        "tied", "qkv_bias", "output_bias", "mlp_bias", "norm_bias", "head_bias", "qk_norm", "gated", "embedding_norm",
        "first_norm",
    )}  # fmt: skip
    return TransformerConfig(
        vocab_size=31,
        hidden=16,
        layers=3,
        heads=4,
        kv_heads=draw(st.sampled_from([1, 2, 4])),
        head_dim=8,
        ffn=20,
        context=CONTEXT,
        position=position,
        rope_scaling=draw(st.sampled_from(SCALINGS)) if position == "rope" else None,
        rotary_share=0.5,
        local_rope_theta=draw(st.sampled_from([None, 100.0])),
        relative_buckets=8,
        relative_distance=12,
        window=draw(st.sampled_from([None, 1, 3, 10])),
        pattern=draw(st.sampled_from(["L", "LG", "GLL"])),
        attention_cap=draw(st.sampled_from([None, 2.0])),
        attention_scale=draw(st.sampled_from([None, 0.5])),
        norm=norm,
        norm_placement=placement,
        norm_offset=norm == "rms" and placement != "post" and draw(st.booleans()),
        activation=draw(st.sampled_from(["silu", "gelu", "gelu_tanh", "relu"])),
        token_types=draw(st.sampled_from([0, 2])),
        embedding_scale=draw(st.sampled_from([1.0, 4.0])),
        logit_cap=draw(st.sampled_from([None, 3.0])),
        experts=draw(st.sampled_from(EXPERTS)),
        **flags,
    )


def random_model(config: TransformerConfig) -> Decoder:
    """Every weight matters: initialisation would leave some at zero."""
    model = Decoder(config)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    return model


def tokens(length: int, batch: int = 1) -> torch.Tensor:
    return torch.randint(31, (batch, length), generator=torch.Generator().manual_seed(2))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@settings(max_examples=40, deadline=None)
@given(configurations(), st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_reading_in_pieces_equals_reading_at_once_and_nothing_looks_ahead(config, pieces):
    model = random_model(config)
    x = tokens(min(sum(pieces), CONTEXT), batch=2)
    with torch.inference_mode():
        cache = model.new_cache(batch=2)
        for piece in pieces:
            part = x[:, cache.length : cache.length + piece]
            if part.shape[1]:
                logits = model.prefill(part, cache)
                close(logits, model(x[:, : cache.length])[:, -1])
        before = x.shape[1] // 2
        changed = x.clone()
        changed[:, before:] = (changed[:, before:] + 1) % 31
        if not before:
            return
        close(model(changed)[:, :before], model(x)[:, :before])


@settings(max_examples=40, deadline=None)
@given(configurations(), st.lists(st.integers(1, 9), min_size=2, max_size=4).filter(lambda n: sum(n) <= CONTEXT))
def test_packed_documents_equal_separate_ones(config, lengths):
    model = random_model(config)
    x = tokens(sum(lengths))
    documents = torch.tensor([[number for number, length in enumerate(lengths) for _ in range(length)]])
    with torch.inference_mode():
        separate = torch.cat([model(part) for part in x.split(lengths, dim=1)], dim=1)
        close(model(x, documents_BT=documents), separate)


@settings(max_examples=40, deadline=None)
@given(configurations(), st.lists(st.lists(st.integers(0, 7), min_size=3, max_size=3), max_size=4), st.booleans())
def test_texts_read_on_in_one_row_equal_each_read_alone(config, steps, singly):
    model = random_model(config)
    texts, caches = tokens(CONTEXT, batch=3), [model.new_cache() for _ in range(3)]
    for cache, total in zip(caches, map(sum, zip(*steps, strict=True)), strict=False):
        cache.stretched = config.stretched(min(total, CONTEXT))
    with torch.inference_mode():
        for step in steps:
            new = [min(wanted, cache.room) for wanted, cache in zip(step, caches, strict=True)]
            rows = [row for row in range(3) if new[row]]
            if not rows:
                continue
            parts = Parts([new[row] for row in rows], [caches[row] for row in rows], singly=singly)
            read = [texts[row, caches[row].length :][: new[row]] for row in rows]
            found = torch.split(model.hidden_of_parts(torch.cat(read), parts), list(parts.lengths))
            for row, part in zip(rows, found, strict=True):
                total = sum(wanted[row] for wanted in steps)
                end = caches[row].length
                close(part, model.hidden(texts[row, None, : min(total, CONTEXT)])[0, end - new[row] : end])


@settings(max_examples=40, deadline=None)
@given(configurations())
def test_counts_are_exact_and_a_new_model_guesses_uniformly(config):
    model = Decoder(config)
    assert config.parameters == sum(p.numel() for p in model.parameters())
    blocks = dict(model.blocks.named_parameters())
    assert config.matrix_parameters == sum(p.numel() for p in blocks.values() if p.ndim > 1)
    idle = 0
    for parameter in blocks.values():
        if parameter.ndim == 3 and config.experts is not None:
            idle += parameter.numel() * (config.experts.count - config.experts.active) // config.experts.count
    assert config.active_parameters == config.parameters - idle

    initialise(model, 3)
    x = tokens(20, batch=4)
    logits = model(x)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(31), abs=1.7 if config.tied else 0.1)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    again = Decoder(config)
    initialise(again, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    if config.norm_placement != "post":  # every block begins as the identity
        with torch.inference_mode():
            start, _ = model.start(x)
            close(model.hidden(x), model.norm(start))


@settings(max_examples=25, deadline=None)
@given(configurations())
def test_any_model_survives_the_disk(config):
    model = random_model(config)
    with TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        again = load_model(Path(folder))
        assert again.config == config
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@settings(max_examples=40, deadline=None)
@given(configurations())
def test_the_explicit_formula_equals_the_fused_kernel(config):
    model = random_model(dataclasses.replace(config, attention_cap=None))
    x = tokens(20, batch=2)
    documents = torch.tensor([[0] * 9 + [1] * 11, [0] * 20]) if config.rope_scaling is None else None
    kernel = model(x, documents_BT=documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        close(model(x, documents_BT=documents), kernel)


@settings(max_examples=100, deadline=None)
@given(
    st.booleans(), st.sampled_from([None, 1, 2, 5, 30]), st.integers(1, 12), st.integers(0, 9),
    st.lists(st.integers(0, 2), min_size=12, max_size=12),
)  # fmt: skip
def test_what_is_visible_is_what_the_words_say(causal, window, new, old, numbers):
    total = new + old
    documents = None if old else torch.tensor([numbers[:new]])
    seen = visible(new, total, causal=causal, window=window, documents_BT=documents)
    for i, row in enumerate(seen.view(-1, total).tolist()):
        for key, found in enumerate(row):
            query = old + i
            expected = key <= query if causal else True
            if window is not None:
                expected &= query - key < window if causal else abs(query - key) <= window // 2
            if documents is not None:
                expected &= numbers[query] == numbers[key]
            assert found == expected


@settings(max_examples=50, deadline=None)
@given(st.booleans(), st.sampled_from([None, 1, 2, 7, 16, 40]), st.sampled_from(["L", "LG", "LLG"]))
def test_operations_count_the_positions_really_seen(causal, window, pattern):
    config = TransformerConfig(**SHAPE | {"context": 32}, layers=6, causal=causal, window=window, pattern=pattern)
    seen = 0.0
    for layer in range(6):
        near = window if pattern[layer % len(pattern)] == "L" else None
        seen += float(visible(32, 32, causal=causal, window=near).float().sum() / 32)
    attention = config.flops_per_token - 6 * (config.matrix_parameters + 9 * 8)
    assert attention / (12 * 2 * 4) == pytest.approx(seen, abs=6 * 1.0), "within one position per layer"


def test_equal_models_have_equal_configurations():
    plain = TransformerConfig(**SHAPE, layers=4)
    assert TransformerConfig(**SHAPE, layers=4, pattern="LG") == plain
    assert TransformerConfig(**SHAPE, layers=4, window=4, pattern="GGGG") == plain
    assert TransformerConfig(**SHAPE, layers=4, attention_scale=0.5, local_rope_theta=5.0) == plain
    alternating = TransformerConfig(**SHAPE, layers=4, window=4, pattern="LG")
    assert TransformerConfig(**SHAPE, layers=4, window=4, pattern="LGLGLG") == alternating != plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": "rotary"}, "position is 'rotary'"),
        ({"activation": "swish"}, "activation is 'swish'"),
        ({"pattern": "LX"}, "pattern is 'LX'"),
        ({"window": 0}, "window is 0"),
        ({"head_dim": 7}, "RoPE turns pairs, but 7 of head_dim 7"),
        ({"rotary_share": 0.1}, "0 of head_dim 4"),
        ({"kv_heads": 3}, "2 query heads cannot share 3"),
        ({"norm_placement": "post", "norm_offset": True}, "norm_offset"),
        ({"rope_scaling": RopeScaling("longrope", original_context=4)}, "short_factors has 0 numbers, but there are 2"),
    ],
)
def test_impossible_configurations_are_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        TransformerConfig(**SHAPE | {"layers": 2} | change)


def test_impossible_parts_are_refused_by_name():
    with pytest.raises(InputError, match="cannot visit 3 of 2 experts"):
        Experts(2, 3, 8)
    with pytest.raises(InputError, match="'yarn' needs original_context"):
        RopeScaling("yarn", factor=2.0)
    with pytest.raises(InputError, match="kind is 'ntk'"):
        RopeScaling("ntk")
