"""Small random decoders and helpers for the tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation, Running
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.sampling.token import Token

VOCABULARY = 97


def decoder(**fields: object) -> Decoder:
    """A random one that does not repeat itself."""
    shape = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "context": 128}
    model = Decoder(TransformerConfig(**{"vocab_size": VOCABULARY, **shape, **fields}))
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model.eval().requires_grad_(False)


def prompts(*lengths: int, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def ask(prompt: Sequence[int], max_tokens: int = 12, *, temperature: float = 0.0, **more: object) -> Generation:
    sampling = Sampling(temperature=temperature, seed=len(prompt), logprobs=more.pop("logprobs", None))
    return Generation(prompt=prompt, max_tokens=max_tokens, sampling=sampling, **more)


def answers(engine: Engine, requests: Sequence[Generation]) -> list[list[Token]]:
    """All submitted at once."""
    running = [engine.submit(request) for request in requests]
    return [list(one) for one in running]


def ids(running: Running) -> list[int]:
    return [token.id for token in running]


@torch.inference_mode()
def greedy(model: Decoder, prompt: Sequence[int], length: int) -> list[int]:
    """What the model writes when it reads everything anew for every token, as in training."""
    tokens = list(prompt)
    for _ in range(length):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]
