"""The engine: requests come from any thread, one thread of its own computes for all of them.

    engine = Engine(decoder)
    running = engine.submit(Generation(prompt=ids, max_tokens=64, sampling=Sampling(temperature=0)))
    for token in running: ...
    engine.close()

Each step reads some tokens of every running sequence in one pass (`scheduler.py` says which, `runner.py` does it), so a
matrix is read from memory once for all of them; sequences come and go between steps (continuous batching, Orca: Yu et
al., OSDI 2022). What a sequence has read is kept for others that begin alike (`kv.py`).

A failure of one request ends that request, one of a step those that took part, and any other all requests, but never
the engine. The thread exists while there is work, and a few seconds longer.
"""

from __future__ import annotations

import atexit
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.ragged import Kernel
from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.memory import give_back_freed_memory
from windlass.serve.engine.adapters.lora import MAX_BYTES, Adapters
from windlass.serve.engine.adapters.lora_files import LoRA
from windlass.serve.engine.arithmetic.linears import prepare
from windlass.serve.engine.kv import BLOCK, KVStore, no_memory, out_of_memory
from windlass.serve.engine.memory import positions_to_keep
from windlass.serve.engine.request import Generation, Running
from windlass.serve.engine.runner import TILE, Runner, jump
from windlass.serve.engine.sampling.sampler import Sampler
from windlass.serve.engine.scheduler import Counts, Row, Scheduler, Task
from windlass.serve.engine.speculation.speculation import Speculating, Speculation

_LINGER = 2.0
"""Seconds that the thread waits for more work; a new one costs it the warm-up of its arithmetic."""


_open: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that is still within PyTorch when the interpreter goes would abort the process."""
    for engine in list(_open):
        engine.close()


class Closed(WindlassError):
    """The engine takes no more requests."""


@dataclass(kw_only=True, slots=True)
class Stats(Counts):
    """What an engine is doing, and has done since it was made."""

    waiting: int
    running: int
    kv_tokens: int
    """Positions that there is memory for,"""
    kv_held: int
    """that running sequences take,"""
    kv_cached: int
    """and that are kept for others."""
    requests: int
    """Accepted."""
    steps: int
    speculation: Speculating | None

    @property
    def hit_rate(self) -> float | None:
        """Share of prompt tokens that were found; None before there were any."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None


class Engine:
    def __init__(
        self,
        decoder: Decoder,
        *,
        policy: str = "fp32",
        max_batch: int = 16,
        token_budget: int = 512,
        kv_tokens: int | None = None,
        reproducible: bool = False,
        share: bool = True,
        kernel: Kernel | None = None,
        speculation: Speculation | None = None,
        adapter_bytes: int = MAX_BYTES,
    ) -> None:
        """`policy`: the arithmetic of the matrices (`linears.prepare`); "fp32" leaves the decoder as it is, as is right
        on a GPU, and so does "auto" in reproducible mode. `max_batch` sequences run at once and read at most
        `token_budget` tokens in a step. `kv_tokens`: positions to keep in memory, running and cached (None: twice the
        model's context for each sequence of the batch, at most 65,536 and half of the memory that is free). `share`:
        keep a prefix cache. `kernel` looks for all sequences at once. `speculation`: guesses ahead where that pays.

        `adapter_bytes`: memory that all adapters may take.

        `reproducible`: the same request gives the same bits in any batch, with any part of it cached, read in chunks
        of any size. Raises `InputError` for a model that cannot promise this.
        """
        config = decoder.config
        if reproducible and config.experts is not None:
            raise InputError(
                "A mixture of experts cannot run in reproducible mode: how many tokens visit an expert, and so how its "
                "products are computed, depends on the whole batch.",
                "Leave reproducible mode off, or choose a dense model.",
            )
        if reproducible:
            max_batch, token_budget = min(max_batch, TILE), min(token_budget, TILE)
        if max_batch < 1 or token_budget < max_batch:
            raise InputError(f"A step of {token_budget} tokens cannot serve {max_batch} sequences.")
        weight = decoder.embedding
        if kv_tokens is None:
            most = min(2 * max_batch * config.context, 65_536)
            kv_tokens = positions_to_keep(config, most, weight.device, weight.element_size())
        elif kv_tokens < BLOCK:
            raise InputError(
                f"A memory of {kv_tokens} tokens serves nobody: it is given out {BLOCK} at a time.",
                f"Let the engine keep at least the window of the model, {config.context}.",
            )
        keep = "reproducible mode takes no arithmetic that hangs on the machine" if reproducible else None
        self.report = prepare(decoder, policy, keep=keep) if policy != "fp32" else None
        """What became of the policy; None: the decoder is as it was given."""
        if self.report is not None:
            give_back_freed_memory()  # of the weights that were replaced
        self.decoder = decoder.eval().requires_grad_(False)
        self.context = config.context
        """Tokens of a prompt and its answer together."""
        self._room = partial(KVStore, config, kv_tokens, share=share, dtype=weight.dtype, device=weight.device)
        self._limits: dict[str, Any] = {
            "max_batch": max_batch, "token_budget": token_budget, "stretched": config.stretched,
        }  # fmt: skip
        self._store = self._room()
        self._scheduler = Scheduler(self._store, **self._limits)
        self._runner = Runner(decoder, kernel=kernel, reproducible=reproducible)
        if speculation is not None:
            speculation.check(decoder)
        self._speculation = speculation
        self._adapter_bytes = adapter_bytes
        self._changed = threading.Condition()
        self._inbox: list[Row] = []
        self._jobs: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._arrivals = itertools.count()
        self._requests = self._steps = 0
        _open.add(self)

    def submit(self, generation: Generation) -> Running:
        """Accepts a request, from any thread. Raises `InputError` for what can never be served, `Closed` after
        `close`."""
        self.check(generation)
        sampler = Sampler(generation.sampling, generation.prompt, generation.stop_tokens)
        running = Running(generation, self._wake, sampler.seed)
        drafter = self._speculation.drafter(generation) if self._speculation is not None else None
        lora = None if generation.adapter is None else self._adapter(generation.adapter)
        with self._changed:
            if self._closing:
                raise Closed("The engine is closed.", "Ask another one.")
            self._inbox.append(Row(running, next(self._arrivals), time.monotonic(), sampler, drafter, lora))
            self._requests += 1
            self._start()
        return running

    def load_adapter(self, name: str, folder: Path) -> str:
        """Reads a PEFT folder, so that requests can name it, while others run; gives its digest. Raises what
        `Adapters.load` raises."""

        def wrap() -> None:
            if self._runner.adapters is None:
                self._runner.adapters = Adapters(self.decoder, max_bytes=self._adapter_bytes)

        self.turn(wrap)
        assert self._runner.adapters is not None, "made between two steps"
        return self._runner.adapters.load(name, folder).digest

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; requests that were accepted with it finish with it. Raises `NotFound`."""
        self._adapter(name)
        assert self._runner.adapters is not None, "it holds what was just found"
        self._runner.adapters.unload(name)

    @property
    def adapters(self) -> dict[str, str]:
        """Name and digest of each adapter that requests may ask for."""
        adapters = self._runner.adapters
        return {} if adapters is None else {name: lora.digest for name, lora in adapters.loaded.items()}

    def _adapter(self, name: str) -> LoRA:
        if self._runner.adapters is None:
            raise NotFound(f"There is no adapter '{name[:200]}'.", "None is loaded.")
        return self._runner.adapters[name]

    def stats(self) -> Stats:
        with self._changed:
            return Stats(
                waiting=len(self._scheduler.waiting) + len(self._inbox),
                running=len(self._scheduler.running),
                kv_tokens=self._store.total * BLOCK,
                kv_held=self._store.held * BLOCK,
                kv_cached=self._store.cached * BLOCK,
                requests=self._requests,
                steps=self._steps,
                speculation=self._speculation.stats() if self._speculation is not None else None,
                **asdict(self._scheduler.counts),
            )

    def turn(self, work: Callable[[], None]) -> None:
        """Runs something that uses the model between two steps, in the engine's thread, and waits for its end. Raises
        what it raises."""
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

        def job() -> None:
            try:
                work()
                done.put(None)
            except BaseException as error:  # noqa: BLE001 - belongs to the one who waits
                done.put(error)

        with self._changed:
            if self._closing:
                raise Closed("The engine is closed.", "Ask another one.")
            self._jobs.append(job)
            self._start()
        if (error := done.get()) is not None:
            raise error

    def forget(self) -> None:
        """Drops what is kept of texts that were read, between two steps: for one who has changed the model's weights.
        Sequences that are running go on with what they have read."""
        self.turn(lambda: self._store.clear())

    def close(self, *, drain: bool = False) -> None:
        """Takes no more requests, and waits until those accepted have ended: with `drain` by themselves, else
        cancelled."""
        with self._changed:
            self._closing = True
            if not drain:
                for row in [*self._inbox, *self._scheduler.waiting, *self._scheduler.running]:
                    row.running.cancelled = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is None)

    def check(self, asked: Generation) -> None:
        """Raises `InputError` for what can never be served."""
        prompt, config = asked.prompt, self.decoder.config
        if not prompt:
            raise InputError("The prompt is empty.", "Give at least one token.")
        if not 0 <= min(prompt) <= max(prompt) < config.vocab_size:
            raise InputError(f"The prompt holds a token outside of the model's {config.vocab_size}.")
        if asked.max_tokens < 0:
            raise InputError(f"max_tokens is {asked.max_tokens}, but must be at least 0.")
        asked.sampling.check(config.vocab_size)
        if unknown := [token for token in asked.stop_tokens if not 0 <= token < config.vocab_size]:
            raise InputError(f"{unknown[0]} is to stop the answer, but is no token of the model's {config.vocab_size}.")
        total = len(prompt) + asked.max_tokens
        for most, what in ((config.context, "the model reads"), (self._store.total * BLOCK, "the engine has room for")):
            if total > most:
                raise InputError(
                    f"A prompt of {len(prompt)} tokens and max_tokens of {asked.max_tokens} make {total}, but {what} "
                    f"at most {most}.",
                    "Shorten the prompt, or ask for fewer tokens.",
                )

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="windlass-engine", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @torch.inference_mode()
    def _serve(self) -> None:
        try:
            while self._collect():
                self._step()
        except BaseException as error:  # noqa: BLE001 - nobody must wait for a thread that is gone
            self._begin_anew(error)

    def _begin_anew(self, error: BaseException) -> None:
        """After what no request can be blamed for: all of them hear of it, and the next finds empty memory."""
        with self._changed:
            lost = [*self._inbox, *self._scheduler.waiting, *self._scheduler.running]
            counts = self._scheduler.counts
            self._store = self._room()
            self._scheduler = Scheduler(self._store, **self._limits)
            self._scheduler.counts = counts
            self._inbox, self._thread = [], None
            if self._jobs:
                self._start()
            self._changed.notify_all()
        for row in lost:
            if row.running.finish is None:
                counts.ended += 1
                row.running.end("error", error)

    def _collect(self) -> bool:
        """Takes in what was submitted, waiting for it if there is nothing else to do; False: the thread may go."""
        with self._changed:
            while True:
                for row in self._inbox:
                    self._scheduler.add(row)
                new, self._inbox = self._inbox, []
                jobs, self._jobs = self._jobs, []
                if self._scheduler.waiting or self._scheduler.running or jobs:
                    break
                if self._closing or (not self._changed.wait(_LINGER) and not self._inbox and not self._jobs):
                    self._thread = None
                    self._changed.notify_all()
                    return False
        for job in jobs:
            job()
        for row in new:
            self._guarded(partial(jump, self._scheduler, row), [row])
        return True

    def _step(self) -> None:
        tasks: list[Task] = []
        every = [*self._scheduler.waiting, *self._scheduler.running]
        written = self._scheduler.counts.written_tokens
        if self._speculation is not None:
            self._speculation.begin(len(self._scheduler.running))
        self._guarded(lambda: tasks.extend(self._scheduler.plan(time.monotonic())), every)
        if tasks:
            self._steps += 1
            self._guarded(lambda: self._runner.run(self._scheduler, tasks), [task.row for task in tasks])
            if self._speculation is not None:
                read = sum(task.new + len(task.drafts) for task in tasks)
                wrote = self._scheduler.counts.written_tokens - written
                self._speculation.end(len(tasks), read, wrote, alike=all(task.new == 1 for task in tasks))

    def _guarded(self, work: Callable[[], object], rows: Sequence[Row]) -> None:
        """What goes wrong ends the sequences that took part, and nothing else."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the engine outlives it; those who asked are told
            if out_of_memory(error):
                self._store.clear()  # what is kept for others is what can be spared
            for row in [row for row in rows if row.running.finish is None]:
                self._scheduler.end(row, "error", no_memory(error))
