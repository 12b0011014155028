"""Reproducible mode: the same request gives the same bits, whatever else the engine does or did."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine_world import make_folder  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_decoders import ask, decoder, prompts  # noqa: E402

from windlass.build.transformer.config import Experts  # noqa: E402
from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.arithmetic.linears import prepare  # noqa: E402
from windlass.serve.engine.engine import Engine  # noqa: E402
from windlass.serve.engine.reproducibility import NotReproducible, prove  # noqa: E402

KINDS = {
    "llama": {},
    "bf16": {},
    "window-cap": {"window": 9, "pattern": "LG", "attention_cap": 5.0, "norm_placement": "sandwich"},
    "alibi": {"position": "alibi"},
    "gpt2": {"position": "learned", "norm": "layer", "gated": False, "activation": "gelu_tanh", "tied": True},
}


@pytest.fixture(scope="module", params=KINDS)
def world(request):
    """A model, and what it writes and thinks of each prompt when each is alone in a cold engine."""
    model = decoder(hidden=64, ffn=96, **KINDS[request.param])
    if request.param == "bf16":
        report = prepare(model, "bf16")
        if report.policy != "bf16":
            pytest.skip(str(report))
    (shared,) = prompts(37)
    asked = [*prompts(3, 40, 71), *(shared + tail for tail in prompts(8, 20, seed=3))]
    alone = {}
    for number, prompt in enumerate(asked):
        engine = Engine(model, max_batch=1, kv_tokens=512, reproducible=True)
        alone[number] = bits(engine.submit(full(prompt)))
        engine.close()
    return model, asked, alone


def full(prompt: list[int], **more: object):
    return ask(prompt, 9, temperature=0.8, logprobs=3, prompt_logprobs=2, **more)


def bits(running) -> list[object]:
    """Tokens and log-probabilities, to the last bit."""
    answer = list(running)
    return [*running.prompt_logprobs, *answer]


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_batch_chunks_cache_and_memory_change_no_bit(world, data):
    model, asked, alone = world
    order = data.draw(st.permutations(range(len(asked))))
    batch = data.draw(st.sampled_from([2, 3, 5, 16]))
    engine = Engine(
        model,
        max_batch=batch,
        token_budget=data.draw(st.integers(batch, 40)),
        kv_tokens=data.draw(st.sampled_from([128, 256, 2048])),
        reproducible=True,
        share=data.draw(st.booleans()),
    )
    for _ in range(2):  # cold, and warm
        runs = {number: engine.submit(full(asked[number], priority=data.draw(st.integers(0, 1)))) for number in order}
        for number, run in runs.items():
            assert bits(run) == alone[number], (number, engine.stats())
    engine.close()


@pytest.mark.parametrize("chunk", [1, 5, 31])
def test_chunks_of_any_size_change_no_bit(world, chunk):
    model, asked, alone = world
    engine = Engine(model, max_batch=1, token_budget=chunk, kv_tokens=512, reproducible=True)
    for _ in range(2):
        assert bits(engine.submit(full(asked[1]))) == alone[1]
    steps = engine.stats().steps
    engine.close()
    assert steps >= -(-len(asked[1]) // chunk), "it was read in chunks"


def test_the_proof_holds_for_models_that_keep_it(world):
    model, _, _ = world
    prove(model)


def test_the_proof_refuses_a_model_whose_bits_depend_on_the_batch(monkeypatch):
    model = decoder(hidden=64, ffn=96)
    real = type(model).hidden_of_parts
    monkeypatch.setattr(
        type(model),
        "hidden_of_parts",
        lambda self, tokens, parts: real(self, tokens, parts) * (1 + 1e-5 * len(parts.lengths)),
    )
    with pytest.raises(NotReproducible, match=r"in a batch, in chunks of 32, .* other bits than alone"):
        prove(model)


def test_the_proof_refuses_a_model_whose_bits_depend_on_chunks(monkeypatch):
    model = decoder(hidden=64, ffn=96)
    real = type(model).hidden_of_parts
    monkeypatch.setattr(
        type(model), "hidden_of_parts",
        lambda self, tokens, parts: real(self, tokens, parts) * (1.5 if any(1 < n < 7 for n in parts.lengths) else 1.0),
    )  # fmt: skip
    with pytest.raises(NotReproducible, match="other bits than alone"):
        prove(model)


def test_experts_cannot_promise_it():
    with pytest.raises(InputError, match="mixture of experts cannot run in reproducible mode"):
        Engine(decoder(experts=Experts(4, 2, 24)), reproducible=True)


def test_a_model_that_cannot_keep_the_promise_is_not_loaded_with_it(tmp_path, monkeypatch):
    from windlass.serve.engine import local

    proved = []
    monkeypatch.setattr(local, "prove", lambda decoder, kernel: proved.append(decoder))
    folder = make_folder(tmp_path / "model")
    local.LocalModel.load(folder).close()
    assert not proved
    model = local.LocalModel.load(folder, reproducible=True)
    assert proved == [model.engine.decoder]
    model.close()
