"""Answers of reinforcement learning, written by the engine that also serves, on the very weights that are trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from windlass.build.adapt.rl.rollouts import Rollout, Writing
from windlass.build.transformer.decoder import Decoder
from windlass.serve.engine.arithmetic.attention import kernel_here
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.sampling.token import Token


class EngineRollouts:
    """Implements `Rollouts` by an engine in reproducible mode, in which an answer hangs on nothing but the weights, its
    prompt and its seed; a mixture of experts cannot promise that in the last bit."""

    def __init__(self, decoder: Decoder, writing: Writing) -> None:
        """The decoder is the engine's alone, but its parameters may be the memory of another one (`rollouts.twin`)."""
        self._writing = writing
        if writing.temperature != 1:
            # In the model, so that what the engine reports are log-probabilities of what it draws from.
            plain, temperature = decoder.logits, writing.temperature

            def cooled(x_BTC: Tensor) -> Tensor:
                return plain(x_BTC) / temperature

            decoder.logits = cooled  # type: ignore[method-assign]
        on_cpu = decoder.embedding.device.type == "cpu"
        self._engine = Engine(
            decoder,
            max_batch=32,
            reproducible=decoder.config.experts is None,
            kernel=kernel_here() if on_cpu else None,
        )

    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Rollout]:
        """Draws from the model's whole distribution. Raises what goes wrong in the engine."""
        self._engine.forget()  # what was read with the weights of the last step
        writing = self._writing
        running = [
            self._engine.submit(
                Generation(
                    prompt=list(prompt),
                    max_tokens=writing.most,
                    sampling=Sampling(temperature=1.0, seed=seed, logprobs=0),
                    stop_tokens=writing.ends,
                )
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return [Rollout(*_written(list(one)), one.finish == "stop") for one in running]


def _written(tokens: Sequence[Token]) -> tuple[list[int], list[float]]:
    reported = [token.logprob for token in tokens if token.logprob is not None]
    assert len(reported) == len(tokens), "the engine was asked for the log-probability of every token"
    return [token.id for token in tokens], reported
