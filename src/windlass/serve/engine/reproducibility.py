"""The proof of reproducible mode before it is promised: this model, on this machine, with this arithmetic.

That no bit depends on what else is computed rests on libraries that promise nothing of the kind (PyTorch's and oneDNN's
products choose other kernels for other shapes: He et al., Defeating Nondeterminism in LLM Inference, 2025), so a few
tokens are written in every way that must not matter.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.ragged import Kernel
from windlass.core.errors import WindlassError
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.sampling.token import Token

WRITE = 4
LENGTHS = (3, 21, 44)
"""Of what follows a beginning that two of the prompts share."""
CHUNKS = (32, 7)
"""Tokens that a step reads at most."""


class NotReproducible(WindlassError):
    """Reproducible mode was asked for, and does not hold here."""


def prove(decoder: Decoder, kernel: Kernel | None = None) -> None:
    """Writes a few answers alone, in a batch, with nothing and with all of the prompts cached, in large and in small
    chunks. Raises `NotReproducible` unless tokens and log-probabilities are the same bits in all cases."""
    prompts = _prompts(decoder)
    alone = [_written(decoder, kernel, [prompt], chunk=CHUNKS[0])[0] for prompt in prompts]
    for chunk in CHUNKS:
        found = _written(decoder, kernel, [*prompts, *prompts], chunk=chunk)
        for at, way in ((0, "in a batch"), (len(prompts), "with the prompt cached")):
            if found[at : at + len(prompts)] != alone:
                raise NotReproducible(
                    f"Reproducible mode does not hold for this model on this machine: {way}, in chunks of {chunk}, the "
                    "same request gave other bits than alone.",
                    "Choose another arithmetic with --policy, or leave reproducible mode off.",
                )


def _prompts(decoder: Decoder) -> list[list[int]]:
    draw = random.Random(0)
    room = max(1, decoder.config.context - WRITE)

    def some(count: int) -> list[int]:
        return [draw.randrange(decoder.config.vocab_size) for _ in range(count)]

    shared = some(40)
    first, *others = (some(length) for length in LENGTHS)
    return [prompt[:room] for prompt in (first, *(shared + other for other in others))]


def _written(
    decoder: Decoder, kernel: Kernel | None, prompts: Sequence[Sequence[int]], *, chunk: int
) -> list[list[Token]]:
    """What a new engine writes, with log-probabilities; the second half of several prompts is asked for once the first
    has been answered."""
    engine = Engine(
        decoder, reproducible=True, max_batch=min(4, chunk), token_budget=chunk, kv_tokens=1024, kernel=kernel
    )
    try:
        answers: list[list[Token]] = []
        half = -(-len(prompts) // 2)
        for part in (prompts[:half], prompts[half:]):
            sampling = Sampling(temperature=0.0, logprobs=2)
            asked = [Generation(prompt=prompt, max_tokens=WRITE, sampling=sampling) for prompt in part]
            answers += [list(running) for running in [engine.submit(one) for one in asked]]
        return answers
    finally:
        engine.close()
