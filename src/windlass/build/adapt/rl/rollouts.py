"""Answers to train on, and who writes them.

Whoever writes reports the log-probability of each token in the distribution that it was drawn from, which nothing was
cut off from: a sampler that keeps only likely tokens (top-k, top-p) draws from another distribution than is trained,
and the ratio of the two then says something about the cut, and not about the arithmetic.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from windlass.build.transformer.decoder import Decoder

M = TypeVar("M", bound=nn.Module)


class Rollout(NamedTuple):
    tokens: Sequence[int]
    """What was written, the token that ends it included."""
    logprobs: Sequence[float]
    """Of each, as the sampler drew it."""
    ended: bool
    """By a token that ends an answer; else it was cut."""


class Writing(NamedTuple):
    """How answers are written."""

    most: int
    """Tokens of an answer."""
    ends: frozenset[int]
    temperature: float = 1.0


class Rollouts(Protocol):
    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Rollout]:
        """An answer to each prompt, by the weights as they are now: a function of them, the prompt and the seed."""
        ...


OpenRollouts = Callable[[Decoder, Writing], Rollouts]
"""Rollouts of a decoder that changes from step to step; its parameters are the very memory that is trained."""


def twin(model: M, instead: Mapping[str, Tensor] | None = None) -> M:
    """A second model over the memory of the first, without gradients and dropout: it follows every update. Parameters
    that `instead` names have those values, and stay as they are."""
    given = instead or {}
    memo: dict[int, object] = {
        id(p): nn.Parameter(given[name].to(p.device) if name in given else p.data, requires_grad=False)
        for name, p in model.named_parameters()
    }
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    made = copy.deepcopy(model, memo)
    for module in made.modules():
        module.__dict__.pop("forward", None)  # a compiled one, of the first model
    return made.eval()


class PlainRollouts:
    """The plainest sampler there is, for tests and for want of an engine: all answers to one prompt side by side, token
    by token."""

    def __init__(self, decoder: Decoder, writing: Writing) -> None:
        self._decoder, self._writing = decoder, writing

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Rollout]:
        found: list[Rollout] = []
        for prompt, group in groupby(zip(prompts, seeds, strict=True), key=lambda one: list(one[0])):
            found += self._side_by_side(prompt, [seed for _, seed in group])
        return found

    def _side_by_side(self, prompt: list[int], seeds: Sequence[int]) -> list[Rollout]:
        writing, device = self._writing, self._decoder.embedding.device
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        cache = self._decoder.new_cache(len(seeds), len(prompt) + writing.most)
        token_BT = torch.tensor([prompt] * len(seeds), device=device)
        written: list[list[int]] = [[] for _ in seeds]
        logprobs: list[list[float]] = [[] for _ in seeds]
        open_ = set(range(len(seeds)))
        for _ in range(writing.most):
            scores_BV = self._decoder.prefill(token_BT, cache).double().cpu() / writing.temperature
            logprob_BV = scores_BV.log_softmax(-1)
            uniform_B1 = torch.stack([torch.rand(1, generator=draw, dtype=torch.float64) for draw in draws])
            token_B1 = _drawn(logprob_BV, uniform_B1)
            for row in sorted(open_):
                token = int(token_B1[row])
                written[row].append(token)
                logprobs[row].append(float(logprob_BV[row, token]))
                if token in writing.ends:
                    open_.remove(row)
            if not open_:
                break
            token_BT = token_B1.to(device)
        return [Rollout(*one, row not in open_) for row, one in enumerate(zip(written, logprobs, strict=True))]


def _drawn(logprob_BV: Tensor, uniform_B1: Tensor) -> Tensor:
    """The token of each row in whose part of the cumulative distribution its number falls."""
    found_B1 = torch.searchsorted(logprob_BV.exp().cumsum(-1), uniform_B1, right=True)
    return found_B1.clamp(max=logprob_BV.shape[-1] - 1)  # sums that stop short of 1 by rounding
