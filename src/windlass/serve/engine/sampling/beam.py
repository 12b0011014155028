"""Beam search: the likeliest whole answers that keeping several beginnings at a time can find.

    beams = beam_search(decoder, prompt, width=4, max_tokens=64, stop_tokens={eos}, turn=engine.turn)
    beams[0].tokens, beams[0].score

All beams are one tree behind one cache (`build.transformer.branches`): a step reads the newest token of each, which
sees its own ancestors only, so no keys or values are copied when beams part, and what they share is in memory once.
The rules are those of transformers' `generate(num_beams=...)`, step for step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from windlass.build.transformer.branches import Branches
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError

WIDEST = 64
CHUNK = 512
"""Tokens of the prompt read at once."""


@dataclass(frozen=True, slots=True)
class Beam:
    tokens: Sequence[int]
    """With the stop token, if there is one."""
    logprob: float
    """Of all its tokens together."""
    score: float
    """`logprob / len(tokens) ** length_penalty`, by which beams are ranked."""
    finish: Literal["stop", "length"]


def beam_search(
    decoder: Decoder,
    prompt: Sequence[int],
    *,
    width: int,
    max_tokens: int,
    stop_tokens: Collection[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    turn: Callable[[Callable[[], None]], None] | None = None,
) -> list[Beam]:
    """The best `width` answers found, best first.

    `length_penalty`: above 0 favours long answers, since logarithms are negative. `early_stopping`: True ends as soon
    as `width` answers are complete; False also when the best one in progress would not beat them if it ended here;
    "never" only when it could not even at its full length. `turn` runs each step where the model may be used (an
    engine's thread); left out: here and now. Raises `InputError` for what does not fit the model's window.
    """
    if not 1 <= width <= WIDEST:
        raise InputError(f"{width} beams are asked for, but must be between 1 and {WIDEST}.")
    if early_stopping not in (True, False, "never"):
        raise InputError(f"early_stopping is {early_stopping!r}, but must be true, false or 'never'.")
    if not prompt or max_tokens < 1:
        raise InputError("Beam search needs a prompt of at least one token, and room for at least one more.")
    if len(prompt) + max_tokens > decoder.config.context:
        raise InputError(
            f"A prompt of {len(prompt)} tokens and max_tokens of {max_tokens} make {len(prompt) + max_tokens}, but the "
            f"model reads at most {decoder.config.context}.",
            "Shorten the prompt, or ask for fewer tokens.",
        )
    search = _Search(decoder, prompt, width, max_tokens, frozenset(stop_tokens), length_penalty, early_stopping)
    turn = turn or (lambda step: step())
    for start in range(0, len(prompt), CHUNK):
        turn(lambda start=start: search.read_prompt(start))  # type: ignore[misc]
    while not search.over:
        turn(search.step)
    return search.done


class _Search:
    def __init__(
        self,
        decoder: Decoder,
        prompt: Sequence[int],
        width: int,
        max_tokens: int,
        stop_tokens: frozenset[int],
        length_penalty: float,
        early_stopping: bool | Literal["never"],
    ) -> None:
        self._decoder, self._prompt, self._width, self._max = decoder, list(prompt), width, max_tokens
        self._stops, self._penalty, self._early = stop_tokens, length_penalty, early_stopping
        self._device = decoder.embedding.device
        self._reach = len(prompt) + max_tokens
        self._cache = decoder.new_cache(capacity=len(prompt) + width)
        self._places_S = torch.empty(0, dtype=torch.int64, device=self._device)
        self._seen_KS = torch.empty(1, 0, dtype=torch.bool, device=self._device)
        """Which positions of the cache each beam consists of."""
        self._running: list[list[int]] = [[]]
        self._logprob_K = torch.zeros(1, device=self._device)
        self._logits_KV = torch.empty(0)
        self.done: list[Beam] = []
        """Complete answers, best first, at most `width`."""
        self.over = False

    @torch.inference_mode()
    def read_prompt(self, start: int) -> None:
        tokens = self._prompt[start : start + CHUNK]
        new = len(tokens)
        seen_TS = torch.ones(new, start + new, dtype=torch.bool, device=self._device).tril(start)
        hidden_TC = self._read(tokens, torch.arange(start, start + new, device=self._device), seen_TS)
        self._seen_KS = seen_TS[-1:]
        if start + new == len(self._prompt):
            self._logits_KV = self._decoder.logits(hidden_TC[-1:])

    @torch.inference_mode()
    def step(self) -> None:
        """Chooses the next token of the beams, and reads them."""
        length = len(self._running[0]) + 1
        candidates_KV = self._logits_KV.float().log_softmax(-1) + self._logprob_K[:, None]
        vocabulary = candidates_KV.shape[1]
        # Enough that `width` of them go on, even if every beam's likeliest ones are stop tokens.
        kept = min(max(2, 1 + len(self._stops)) * self._width, candidates_KV.numel())
        best, place = (found.tolist() for found in candidates_KV.flatten().topk(kept))
        parents: list[int] = []
        chosen: list[int] = []
        logprobs: list[float] = []
        for rank, (logprob, at) in enumerate(zip(best, place, strict=True)):
            parent, token = divmod(at, vocabulary)
            stops = token in self._stops
            if (stops or length == self._max) and rank < self._width:
                score = logprob / length**self._penalty
                self.done.append(Beam([*self._running[parent], token], logprob, score, "stop" if stops else "length"))
            elif not stops and len(chosen) < self._width:
                parents.append(parent)
                chosen.append(token)
                logprobs.append(logprob)
        self.done.sort(key=lambda beam: -beam.score)
        del self.done[self._width :]
        self.over = length == self._max or not chosen or not self._may_improve(logprobs[0], length)
        if not self.over:
            self._go_on(parents, chosen, logprobs)

    def _may_improve(self, logprob: float, length: int) -> bool:
        """Whether the best beam in progress could still enter those that are complete."""
        if len(self.done) < self._width:
            return True
        if self._early is True:
            return False
        reached = self._max if self._early == "never" and self._penalty > 0 else length
        return bool(logprob / reached**self._penalty > self.done[-1].score)

    def _go_on(self, parents: list[int], chosen: list[int], logprobs: list[float]) -> None:
        self._running = [[*self._running[parent], token] for parent, token in zip(parents, chosen, strict=True)]
        self._logprob_K = torch.tensor(logprobs, device=self._device)
        self._seen_KS = self._seen_KS[parents]
        self._prune()
        new = len(chosen)
        own_KK = torch.eye(new, dtype=torch.bool, device=self._device)
        self._seen_KS = torch.cat([self._seen_KS, own_KK], dim=1)
        place = len(self._prompt) + len(self._running[0]) - 1
        hidden_KC = self._read(chosen, torch.full((new,), place, device=self._device), self._seen_KS)
        self._logits_KV = self._decoder.logits(hidden_KC)

    def _prune(self) -> None:
        """Forgets what no beam consists of any more, once it is most of what was written."""
        alive_S = self._seen_KS.any(0)
        dead = len(alive_S) - int(alive_S.sum())
        if dead * 2 > len(alive_S) - len(self._prompt):
            self._cache.keep(alive_S.nonzero().flatten())
            self._seen_KS, self._places_S = self._seen_KS[:, alive_S], self._places_S[alive_S]

    def _read(self, tokens: list[int], places_T: Tensor, seen_TS: Tensor) -> Tensor:
        """Hidden vectors (T, C) of new tokens behind those in the cache."""
        if (wanted := self._cache.length + len(tokens)) > self._cache.capacity:
            self._cache.grow(max(wanted, self._cache.capacity * 3 // 2))
        self._places_S = torch.cat([self._places_S, places_T])
        branches = Branches(self._places_S, seen_TS, self._reach)
        return self._decoder.hidden_of_branches(torch.tensor(tokens, device=self._device), branches, self._cache)
