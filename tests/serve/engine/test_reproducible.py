"""Reproducible mode: the same request gives the same bits, whatever else the engine does or did."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_decoders import ask, decoder, prompts  # noqa: E402

from windlass.build.transformer.config import Experts  # noqa: E402
from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.arithmetic.linears import prepare  # noqa: E402
from windlass.serve.engine.engine import Engine  # noqa: E402

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
def test_batch_cache_and_memory_change_no_bit(world, data):
    model, asked, alone = world
    order = data.draw(st.permutations(range(len(asked))))
    engine = Engine(
        model,
        max_batch=data.draw(st.sampled_from([2, 3, 5, 16])),
        kv_tokens=data.draw(st.sampled_from([128, 256, 2048])),
        reproducible=True,
        share=data.draw(st.booleans()),
    )
    for _ in range(2):  # cold, and warm
        runs = {number: engine.submit(full(asked[number], priority=data.draw(st.integers(0, 1)))) for number in order}
        for number, run in runs.items():
            assert bits(run) == alone[number], (number, engine.stats())
    engine.close()


def test_experts_cannot_promise_it():
    with pytest.raises(InputError, match="mixture of experts cannot run in reproducible mode"):
        Engine(decoder(experts=Experts(4, 2, 24)), reproducible=True)
