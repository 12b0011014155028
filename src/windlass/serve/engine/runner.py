"""One step of the model: all planned tokens in one pass, then the next token of every sequence that read all it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.ragged import Kernel, Parts
from windlass.serve.engine.adapters.lora import Adapters
from windlass.serve.engine.arithmetic.blocks import blocks_of
from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.sampling.logprobs import reported
from windlass.serve.engine.sampling.sampler import Unsamplable, choose
from windlass.serve.engine.sampling.token import Token
from windlass.serve.engine.scheduler import Row, Scheduler, Task

TILE = 32
"""Rows of every matrix product in reproducible mode."""
_ROWS = 256
"""Prompt positions whose logits are in memory at once."""


class Runner:
    """Knows the model. `kernel` looks for all sequences at once, where it can; `reproducible`: no bit depends on what
    else is read in the same step. Native blocks promise that by themselves; otherwise every product has TILE rows, and
    every position looks by itself."""

    def __init__(self, decoder: Decoder, *, kernel: Kernel | None = None, reproducible: bool = False) -> None:
        self.decoder, self._kernel, self._reproducible = decoder, kernel, reproducible
        self._blocks = None if kernel is None else blocks_of(decoder)
        self.adapters: Adapters | None = None
        """Set with the first one that is loaded."""

    def run(self, scheduler: Scheduler, tasks: Sequence[Task]) -> None:
        """Reads the tasks' tokens and writes what follows them; sequences that end leave the scheduler."""
        writing = [task.writes for task in tasks]
        hidden = self._read(tasks)
        ahead: list[_Ahead] = []
        for task, writes, hidden_TC in zip(tasks, writing, hidden, strict=True):
            row = task.row
            if row.slab is not None and task.drafts:
                row.slab.cache.truncate(len(row.tokens))  # guesses count once they turn out right
            self._report_prompt(row)
            if task.new > 1:
                scheduler.remember(row)
            if writes and row.left == 0:  # only its prompt was to be read
                scheduler.end(row, "length")
            elif writes:
                ahead.append(_Ahead(row, hidden_TC[task.new - 1 :], task.drafts))
        if ahead:
            self._write(scheduler, ahead)

    def _read(self, tasks: Sequence[Task]) -> tuple[Tensor, ...]:
        """The hidden vectors, (T, C), of every task's tokens and guesses."""
        tokens: list[int] = []
        caches, lengths = [], []
        for row, new, drafts in tasks:
            assert row.slab is not None, "a planned sequence has memory"
            tokens += row.tokens[row.read : row.read + new]
            tokens += [guess.token for guess in drafts]
            caches.append(row.slab.cache)
            lengths.append(new + len(drafts))
        parts = Parts(lengths, caches, self._kernel, singly=self._reproducible)
        spans = [(task.row.lora, length) for task, length in zip(tasks, lengths, strict=True)]
        adapted = nullcontext() if self.adapters is None else self.adapters.rows(spans, singly=self._reproducible)
        with adapted:
            if self._blocks is not None and all(lora is None for lora, _ in spans):
                read = self._blocks(tokens, parts)
            else:
                read = self._read_by_modules(tokens, parts)
        hidden = torch.split(read, lengths)
        for task, hidden_TC in zip(tasks, hidden, strict=True):
            if (slab := task.row.slab) is not None:
                slab.hidden_SC[slab.cache.length - len(hidden_TC) : slab.cache.length] = hidden_TC
        return hidden

    def _read_by_modules(self, tokens: list[int], parts: Parts) -> Tensor:
        padding = [0] * (-len(tokens) % TILE if self._reproducible else 0)
        tokens_T = torch.tensor(tokens + padding, device=self.decoder.embedding.device)
        return self.decoder.hidden_of_parts(tokens_T, parts)[: len(tokens)]

    def _logits(self, hidden_NC: Tensor) -> Tensor:
        if self._blocks is not None or not self._reproducible:
            return self.decoder.logits(hidden_NC)
        padded_NC = F.pad(hidden_NC, (0, 0, 0, -len(hidden_NC) % TILE))
        tiles = [self.decoder.logits(tile_TC) for tile_TC in padded_NC.split(TILE)]  # type: ignore[no-untyped-call]
        return torch.cat(tiles)[: len(hidden_NC)]

    def _report_prompt(self, row: Row) -> None:
        """Log-probabilities of the prompt as far as it is read now, also of the part that was known."""
        top, prompt, report = row.asked.prompt_logprobs, row.asked.prompt, row.running.prompt_logprobs
        if top is None or row.slab is None:
            return
        first = row.asked.prompt_from + len(report)
        if first == 0:
            report.append(Token(prompt[0]))  # follows nothing
            first = 1
        for start in range(first, min(row.read + 1, len(prompt)), _ROWS):
            ids = prompt[start : min(start + _ROWS, row.read + 1)]
            logits_NV = self._logits(row.slab.hidden_SC[start - 1 : start - 1 + len(ids)])
            report += reported(logits_NV, ids, [top] * len(ids))

    def _write(self, scheduler: Scheduler, ahead: list[_Ahead]) -> None:
        """Chooses the next token of each, and the ones after it while the guesses were right.

        A guess is right when it is the very token that is chosen in its place, so guessing changes no distribution
        (`speculation.py`), and no text of a given seed.
        """
        logits_NV = self._logits(torch.cat([one.hidden_TC for one in ahead]))
        place = 0
        for one in ahead:
            one.place, place = place, place + len(one.hidden_TC)
        while ahead:
            whole = len(ahead) == len(logits_NV)
            logits_BV = logits_NV if whole else logits_NV[[one.place for one in ahead]]
            tokens = _choose(scheduler, logits_BV, ahead)
            ahead = [one for one, token in zip(ahead, tokens, strict=True) if token and one.write(scheduler, token)]


class _Ahead:
    """What follows one sequence: vectors of the places that tell its next token and, guess by guess, those after."""

    def __init__(self, row: Row, hidden_TC: Tensor, drafts: Sequence[Guess]) -> None:
        self.row, self.hidden_TC, self.drafts = row, hidden_TC, drafts
        self.place = 0
        """Of the next token's logits among all."""
        self._right = 0

    @property
    def guess(self) -> Guess | None:
        """Of the next token."""
        return self.drafts[self._right] if self._right < len(self.drafts) else None

    def write(self, scheduler: Scheduler, token: Token) -> bool:
        """Whether the token after this one can be chosen too."""
        row, slab = self.row, self.row.slab
        guessed = self.guess is not None and self.guess.token == token.id
        if guessed and slab is not None:
            self._right, self.place = self._right + 1, self.place + 1
            slab.cache.advance(1)
        scheduler.write(row, token)
        forced = row.running.finish is None and jump(scheduler, row)
        if guessed and not forced and row.running.finish is None:
            return True
        if row.drafter is not None and self.drafts:
            row.drafter.learn(len(self.drafts), self._right)
        return False


def jump(scheduler: Scheduler, row: Row) -> bool:
    """Writes the tokens that a sequence's constraint leaves no choice about; whether there were any. They are read in
    one step rather than chosen one by one. Where log-probabilities are asked for, every token is chosen."""
    constraint = row.asked.constraint
    if constraint is None or row.sampler.settings.logprobs is not None:
        return False
    try:
        forced = constraint.forced()
    except Exception as error:  # noqa: BLE001 - of one request; the batch must not suffer
        scheduler.end(row, "error", error)
        return False
    for token in forced:
        if row.running.finish is None:
            row.sampler.write(token)
            scheduler.write(row, Token(token))
    return bool(forced)


def _choose(scheduler: Scheduler, logits_BV: Tensor, ahead: Sequence[_Ahead]) -> list[Token | None]:
    """The next tokens. A sequence for which there is none ends with an error, and the others go on."""
    failed: dict[int, BaseException] = {}

    def mask(number: int, allow: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        def apply(logits_V: Tensor) -> None:
            try:
                allow(logits_V)
            except Exception as error:  # noqa: BLE001 - of one request; the batch must not suffer
                failed[number] = error

        return apply

    rows = [one.row for one in ahead]
    guesses = {number: guess for number, one in enumerate(ahead) if (guess := one.guess) is not None}
    constraints = [row.asked.constraint for row in rows]
    masks = [None if one is None else mask(number, one.allow) for number, one in enumerate(constraints)]
    tokens: list[Token | None]
    try:
        tokens = [*choose(logits_BV, [row.sampler for row in rows], masks, guesses)]
    except Unsamplable as error:
        failed |= dict.fromkeys(error.rows, error)
        good = [number for number in range(len(rows)) if number not in failed]
        tokens = [None] * len(rows)
        if good:
            chosen = _choose(scheduler, logits_BV[good], [ahead[number] for number in good])
            for number, token in zip(good, chosen, strict=True):
                tokens[number] = token
    for number, cause in failed.items():
        tokens[number] = None
        scheduler.end(rows[number], "error", cause)
    return tokens
