"""From logits to the next token of every request in a batch.

    sampler = Sampler(Sampling(temperature=0.8, top_p=0.95, seed=7), prompt)       # one for each request
    tokens = choose(logits_BV, samplers)                                         # one for each row, and remembered

What happens to a row, in this order (that of transformers' processors and warpers):

1. repetition penalty, over prompt and answer (CTRL: Keskar et al., arXiv 1909.05858)
2. presence and frequency penalty, over the answer (OpenAI's definition, as in vLLM)
3. logit bias; no stop token before min_tokens; the mask of a constraint
4. temperature; 0 takes the likeliest token and ends here
5. top-k, top-p, min-p, typical (`drawing.py`)
6. one uniform number, looked up in the cumulative distribution

That number is a function of the request's seed and of how many tokens it has written, nothing else. So a seed gives the
same text in any company, after a preemption, and whether or not tokens were guessed ahead.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from windlass.core.errors import WindlassError
from windlass.serve.engine.arithmetic.fused import largest
from windlass.serve.engine.sampling.drawing import Guess, distribution, draw, verified
from windlass.serve.engine.sampling.logprobs import reported
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.sampling.token import Token

Mask = Callable[[Tensor], None]
"""Sets what a row, shape (vocabulary,), must not become to -inf, in place."""


class Unsamplable(WindlassError):
    """Rows of a batch that hold no finite logit, or NaN. No sampler of the batch has moved."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(
            f"No token can be chosen: of {len(rows)} request(s) every logit is forbidden, or one is not a number.",
            "The constraint allows nothing, or the model's arithmetic overflows; try the policy fp32.",
        )
        self.rows = tuple(rows)


class Sampler:
    """The settings of one request, its random numbers, and what it has written. `seed` is the one in use."""

    def __init__(
        self, settings: Sampling, prompt: Sequence[int] = (), stop_tokens: Collection[int] = frozenset()
    ) -> None:
        self.settings = settings
        self.seed = secrets.randbits(32) if settings.seed is None else settings.seed
        self.prompt = prompt
        self._stop_tokens = sorted(stop_tokens) if settings.min_tokens else []
        self.written: list[int] = []
        self._seen_V: Tensor | None = None
        self._counts_V: Tensor | None = None

    def write(self, token: int) -> None:
        """Notes a token of the answer. `choose` does so itself; a token that was forced is noted by the caller."""
        self.written.append(token)
        if self._seen_V is not None and self._counts_V is not None:
            self._seen_V[token] = True
            self._counts_V[token] += 1

    def uniform(self, purpose: str = "token") -> float:
        """A number in [0, 1) for the next position, of 53 random bits: the same whenever it is asked for."""
        key = f"{self.seed} {len(self.written)} {purpose}".encode()
        return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 11) * 2.0**-53

    @property
    def penalises(self) -> bool:
        s = self.settings
        return s.repetition_penalty != 1 or s.presence_penalty != 0 or s.frequency_penalty != 0

    @property
    def edits(self) -> bool:
        """Whether a row's logits change before the temperature."""
        return self.penalises or bool(self.settings.logit_bias) or self._goes_on

    @property
    def _goes_on(self) -> bool:
        """Whether it is too early for a stop token."""
        return bool(self._stop_tokens) and len(self.written) < self.settings.min_tokens

    def edit(self, logits_V: Tensor) -> None:
        """Penalties, bias and stop tokens that come too early, in place."""
        s = self.settings
        if self.penalises:
            seen_V, counts_V = self._history(logits_V)
            if s.repetition_penalty != 1:
                punished_V = torch.where(logits_V < 0, logits_V * s.repetition_penalty, logits_V / s.repetition_penalty)
                logits_V.copy_(torch.where(seen_V, punished_V, logits_V))
            if s.presence_penalty or s.frequency_penalty:
                logits_V -= s.frequency_penalty * counts_V + s.presence_penalty * (counts_V > 0)
        if s.logit_bias:
            tokens = torch.tensor(list(s.logit_bias), device=logits_V.device)
            logits_V[tokens] += torch.tensor(list(s.logit_bias.values()), device=logits_V.device)
        if self._goes_on:
            logits_V[self._stop_tokens] = float("-inf")

    def _history(self, logits_V: Tensor) -> tuple[Tensor, Tensor]:
        """Which tokens prompt and answer hold, and how often the answer holds each; as wide as the vocabulary, so
        that a long history costs no more than a short one."""
        if self._seen_V is None or self._counts_V is None:
            self._seen_V = torch.zeros(len(logits_V), dtype=torch.bool, device=logits_V.device)
            self._seen_V[[*self.prompt, *self.written]] = True
            written = torch.tensor(self.written, dtype=torch.int64, device=logits_V.device)
            self._counts_V = torch.bincount(written, minlength=len(logits_V)).float()
        return self._seen_V, self._counts_V


def choose(
    logits_BV: Tensor,
    samplers: Sequence[Sampler],
    masks: Sequence[Mask | None] | None = None,
    guesses: Mapping[int, Guess] | None = None,
) -> list[Token]:
    """The next token of every row, noted in its sampler. `logits_BV` is left as it was.

    `masks`: one for each row, or None: what its constraint forbids. `guesses`: of some rows, a token that may come
    next; one that was drawn is chosen as often as can be without a change of the row's distribution. Reported
    log-probabilities are the model's own, before any of this. Raises `Unsamplable` with the rows from which nothing can
    be chosen.
    """
    edited_BV = logits_BV
    masks = masks or [None] * len(samplers)
    if any(mask is not None or sampler.edits for sampler, mask in zip(samplers, masks, strict=True)):
        edited_BV = logits_BV.float() if logits_BV.dtype != torch.float32 else logits_BV.clone()
        for row_V, sampler, mask in zip(edited_BV, samplers, masks, strict=True):
            if sampler.edits:
                sampler.edit(row_V)
            if mask is not None:
                mask(row_V)
    best_B, token_B = largest(edited_BV)
    if unusable := [row for row, best in enumerate(best_B.tolist()) if not math.isfinite(best)]:
        raise Unsamplable(unusable)
    if drawn := [row for row, sampler in enumerate(samplers) if sampler.settings.temperature > 0]:
        those = edited_BV if len(drawn) == len(samplers) else edited_BV[drawn]
        token_B[drawn] = draw(those, [samplers[i].settings for i in drawn], [samplers[i].uniform() for i in drawn])
    for row, guess in (guesses or {}).items():
        if guess.odds_V is not None:
            sampler = samplers[row]
            p_V = distribution(edited_BV[row : row + 1], [sampler.settings])[0]
            token_B[row] = verified(p_V, guess.odds_V, guess.token, sampler.uniform("accept"), sampler.uniform())
    ids = token_B.tolist()
    for sampler, token in zip(samplers, ids, strict=True):
        sampler.write(token)
    return reported(logits_BV, ids, [sampler.settings.logprobs for sampler in samplers])
