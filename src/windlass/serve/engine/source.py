"""The engine of encoder-decoders (T5): a source is read once, and its answer written into a window of its own.

Asked and followed as `Engine` is, adapters included. One thread computes, a token of every running request in each
round; the tokens of a round are chosen together. A failure of one request ends that request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from windlass.build.transformer.encoder_decoder import EncoderDecoder, Memory
from windlass.core.errors import InputError, Unsupported
from windlass.serve.engine.adapters.lora import MAX_BYTES, Adapters
from windlass.serve.engine.adapters.lora_files import LoRA
from windlass.serve.engine.engine import Closed
from windlass.serve.engine.request import Finish, Generation, Running
from windlass.serve.engine.sampling.sampler import Mask, Sampler, Unsamplable, choose
from windlass.serve.engine.sampling.token import Token


@dataclass(kw_only=True, slots=True)
class SourceStats:
    waiting: int
    running: int
    requests: int
    """Accepted."""
    written_tokens: int


class SourceEngine:
    """`start` is the token that every answer begins with (decoder_start_token_id); it is not part of the answer.

    `adapter_bytes`: memory that all adapters may take.
    """

    def __init__(
        self, model: EncoderDecoder, *, start: int, max_batch: int = 16, adapter_bytes: int = MAX_BYTES
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.context = model.config.context
        """Tokens of a source, and again of an answer."""
        self._start_token, self._max_batch = start, max_batch
        self._adapters = Adapters(self.model, max_bytes=adapter_bytes)
        self._changed = threading.Condition()
        self._waiting: list[_Row] = []
        self._running: list[_Row] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._requests = self._written = 0

    def submit(self, generation: Generation) -> Running:
        """Accepts a request, from any thread. Raises `InputError` for what can never be served, `NotFound` for an
        adapter that is not loaded, `Unsupported` for what encoder-decoders cannot do here, `Closed` after `close`."""
        self._check(generation)
        lora = None if generation.adapter is None else self._adapters[generation.adapter]
        sampler = Sampler(generation.sampling, [self._start_token])
        running = Running(generation, self._wake, sampler.seed)
        with self._changed:
            if self._closing:
                raise Closed("The engine is closed.", "Ask another one.")
            self._waiting.append(_Row(running, sampler, self._start_token, self._adapters, lora))
            self._waiting.sort(key=lambda row: row.due)  # stable: equals stay in order of arrival
            self._requests += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="windlass-source-engine", daemon=True)
                self._thread.start()
        return running

    def load_adapter(self, name: str, folder: Path) -> str:
        """Reads a PEFT folder, so that requests can name it, while others run; gives its digest. Raises what
        `Adapters.load` raises."""
        return self._adapters.load(name, folder).digest

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; requests that were accepted with it finish with it. Raises `NotFound`."""
        self._adapters.unload(name)

    @property
    def adapters(self) -> dict[str, str]:
        """Name and digest of each adapter that requests may ask for."""
        return {name: lora.digest for name, lora in self._adapters.loaded.items()}

    def stats(self) -> SourceStats:
        with self._changed:
            return SourceStats(
                waiting=len(self._waiting),
                running=len(self._running),
                requests=self._requests,
                written_tokens=self._written,
            )

    def close(self, *, drain: bool = False) -> None:
        """Takes no more requests, and waits until those accepted have ended: with `drain` by themselves, else
        cancelled."""
        with self._changed:
            self._closing = True
            if not drain:
                for row in [*self._waiting, *self._running]:
                    row.running.cancelled = True
            self._changed.wait_for(lambda: self._thread is None)

    def _check(self, asked: Generation) -> None:
        vocabulary = self.model.config.vocab_size
        if not asked.prompt:
            raise InputError("The source is empty.", "Give at least one token.")
        if not 0 <= min(asked.prompt) <= max(asked.prompt) < vocabulary:
            raise InputError(f"The source holds a token outside of the model's {vocabulary}.")
        for what, count in (("The source", len(asked.prompt)), ("max_tokens", asked.max_tokens)):
            if not 1 <= count <= self.context:
                raise InputError(f"{what} has {count} tokens, but the model takes 1 to {self.context}.", "Shorten it.")
        if asked.prompt_logprobs is not None:
            raise Unsupported("The parameter 'prompt_logprobs' is not supported by encoder-decoders.", "Leave it out.")
        asked.sampling.check(vocabulary)

    def _wake(self) -> None:
        """A cancelled request is seen in the next round, which is under way as long as any request is."""

    @torch.inference_mode()
    def _serve(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                self._waiting = [row for row in self._waiting if not row.ended(now)]
                self._running = [row for row in self._running if not row.ended(now)]
                while self._waiting and len(self._running) < self._max_batch:
                    self._running.append(self._waiting.pop(0))
                if not self._running:
                    self._thread = None
                    self._changed.notify_all()
                    return
                rows = list(self._running)
            try:
                self._round(rows)
            except Exception as error:  # noqa: BLE001 - the engine outlives it; those who asked are told
                for row in rows:
                    if row.running.finish is None:
                        row.running.end("error", error)

    def _round(self, rows: Sequence[_Row]) -> None:
        ready = [(row, logits_1V) for row in rows if (logits_1V := row.logits(self.model)) is not None]
        while ready:
            try:
                tokens = choose(
                    torch.cat([logits_1V for _, logits_1V in ready]),
                    [row.sampler for row, _ in ready],
                    [row.mask for row, _ in ready],
                )
            except Unsamplable as error:
                for number in error.rows:
                    ready[number][0].running.end("error", error)
                ready = [one for one in ready if one[0].running.finish is None]
                continue
            for (row, _), token in zip(ready, tokens, strict=True):
                row.write(token)
            self._written += len(ready)
            return


class _Row:
    """One request on its way."""

    def __init__(self, running: Running, sampler: Sampler, start: int, adapters: Adapters, lora: LoRA | None) -> None:
        self.running, self.sampler, self.asked = running, sampler, running.generation
        self._adapters, self._lora = adapters, lora
        self.due = self.asked.due(time.monotonic())
        self._last, self._count = start, 0
        self._memory: Memory | None = None

    @property
    def mask(self) -> Mask | None:
        return None if self.asked.constraint is None else self.asked.constraint.allow

    def ended(self, now: float) -> bool:
        """Ends what was cancelled or is late."""
        if self.running.finish is None:
            if self.running.cancelled:
                self.running.end("cancelled")
            elif self.asked.deadline is not None and self.asked.deadline <= now:
                self.running.end("deadline")
        return self.running.finish is not None

    def logits(self, model: EncoderDecoder) -> Tensor | None:
        """Of the next token, (1, V); None when it failed, and so ended."""
        try:
            device = model.embedding.device
            if self._memory is None:
                with self._adapters.rows([(self._lora, len(self.asked.prompt))]):
                    self._memory = model.remember(torch.tensor([list(self.asked.prompt)], device=device))
                self._cache = model.new_cache(capacity=self.asked.max_tokens)
            with self._adapters.rows([(self._lora, 1)]):
                return model.decode_step(torch.tensor([self._last], device=device), self._memory, self._cache)
        except Exception as error:  # noqa: BLE001 - of one request; the others must not suffer
            self.running.end("error", error)
            return None

    def write(self, token: Token) -> None:
        self._last, self._count = token.id, self._count + 1
        self.running.deliver(token)
        if (finish := self._finish(token.id)) is not None:
            self.running.end(finish)

    def _finish(self, token: int) -> Finish | None:
        constraint = self.asked.constraint
        if token in self.asked.stop_tokens:
            return "stop"
        if constraint is not None:
            constraint.accept(token)
            if constraint.ended:
                return "stop"
        return "length" if self._count == self.asked.max_tokens else None
