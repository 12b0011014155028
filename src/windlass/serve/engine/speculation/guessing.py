"""Who guesses how a text goes on: the text itself, or a smaller model. `speculation.py` says when it is worth it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from windlass.build.transformer.decoder import Decoder
from windlass.serve.engine.sampling.drawing import Guess, distribution, draw
from windlass.serve.engine.sampling.sampler import Sampler
from windlass.serve.engine.sampling.settings import Sampling


class Guesser(Protocol):
    def catch_up(self, tokens: Sequence[int]) -> None:
        """Reads what it is far behind with: a prompt, or what was written while it paused."""
        ...

    def guess(self, tokens: Sequence[int], most: int) -> list[Guess]:
        """At most `most` tokens that may follow `tokens`, which only grows from call to call."""
        ...


class PromptLookup:
    """Copies on from the latest place where the last tokens stood before, the longest match first (Saxena, 2023)."""

    SIZES = (4, 3, 2)

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        """Where the text went on after these tokens the last time."""
        self._known = 0

    def catch_up(self, tokens: Sequence[int]) -> None:
        for end in range(self._known, len(tokens)):  # what ends here is followed by tokens[end]
            for size in self.SIZES:
                if end >= size:
                    self._after[tuple(tokens[end - size : end])] = end
        self._known = len(tokens)

    def guess(self, tokens: Sequence[int], most: int) -> list[Guess]:
        self.catch_up(tokens)
        for size in self.SIZES:
            start = self._after.get(tuple(tokens[len(tokens) - size :])) if len(tokens) >= size else None
            if start is not None:
                period = len(tokens) - start  # the copy may overtake its own beginning: a repetition goes on
                return [Guess(tokens[start + i % period]) for i in range(most)]
        return []


CLOSE = 16
"""Tokens that a draft model reads in about the time of one: more are a prompt, or what was written while it paused."""


class DraftModel:
    """Lets a smaller model write ahead, behind a cache of its own."""

    def __init__(self, decoder: Decoder, settings: Sampling) -> None:
        self._decoder = decoder
        self._cache = decoder.new_cache(capacity=1)
        self._read: list[int] = []
        self._draws = settings.temperature > 0 and settings.seed is None
        # The bias is the request's own; penalties hang on what was written, and guesses need not be that exact.
        self._settings = replace(settings, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
        self._sampler = Sampler(self._settings)
        self._random = random.Random()

    @torch.inference_mode()
    def catch_up(self, tokens: Sequence[int]) -> None:
        known = self._back_to(tokens)
        if len(tokens) - known <= CLOSE or len(tokens) > self._decoder.config.context:
            return
        self._reserve(len(tokens))
        self._decoder.prefill(self._row(tokens[known:-1]), self._cache)
        self._read = list(tokens[:-1])

    @torch.inference_mode()
    def guess(self, tokens: Sequence[int], most: int) -> list[Guess]:
        """Nothing where the text has outgrown the draft model's window."""
        if len(tokens) + most > self._decoder.config.context:
            return []
        known = self._back_to(tokens)
        self._reserve(len(tokens) + most)
        logits_1V = self._decoder.prefill(self._row(tokens[known:]), self._cache)
        guesses = [self._choose(logits_1V)]
        while len(guesses) < most:
            logits_1V = self._decoder.prefill(self._row([guesses[-1].token]), self._cache)
            guesses.append(self._choose(logits_1V))
        self._read = [*tokens, *(guess.token for guess in guesses[:-1])]
        return guesses

    def _back_to(self, tokens: Sequence[int]) -> int:
        """Forgets what was guessed wrong, at the end; how many of the tokens, without the last, have been read."""
        known = min(len(self._read), len(tokens) - 1)
        while self._read[:known] != list(tokens[:known]):
            known -= 1
        self._cache.truncate(known)
        return known

    def _reserve(self, positions: int) -> None:
        if positions > self._cache.capacity:
            self._cache.grow(min(max(positions, 3 * self._cache.capacity // 2), self._decoder.config.context))

    def _choose(self, logits_1V: Tensor) -> Guess:
        if self._sampler.edits:
            logits_1V = logits_1V.float().clone()
            self._sampler.edit(logits_1V[0])
        if not self._draws:
            return Guess(int(logits_1V.argmax()))
        odds_1V = distribution(logits_1V, [self._settings])
        return Guess(int(draw(logits_1V, [self._settings], [self._random.random()])), odds_1V[0])

    def _row(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([list(tokens)], device=self._decoder.embedding.device)
