"""Which sequences read how many tokens in the next step.

Every sequence has tokens (its prompt, and what it has written) of which the model has read a beginning. A sequence in
the middle of its answer has one unread token, a new one its whole prompt; one that was set aside, both. So there is
one rule for all: a step reads up to `token_budget` unread tokens, those in the middle of an answer first, each prompt
as far as the budget goes (chunked prefill: Sarathi-Serve, arXiv 2403.02310), and whoever has nothing left to read
writes a token.

When memory runs out, the sequence of the worst rank is set aside: its slab goes, its tokens stay, and it waits again in
its old place. The rank is when a sequence is due: its arrival, and some seconds for each unit of its priority. It never
changes, so the best of all sequences always advances, and whoever waits long enough becomes the best. Nothing here
computes; time is given.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from windlass.core.errors import NoMemory
from windlass.serve.engine.adapters.lora_files import LoRA
from windlass.serve.engine.kv import BLOCK, KVStore, Slab, block_keys
from windlass.serve.engine.request import Finish, Generation, Running
from windlass.serve.engine.sampling.drawing import Guess
from windlass.serve.engine.sampling.sampler import Sampler
from windlass.serve.engine.sampling.token import Token


class Drafter(Protocol):
    """Guesses how one sequence goes on; several tokens are then verified in one step."""

    def propose(self, tokens: Sequence[int], most: int) -> Sequence[Guess]:
        """At most `most` tokens that may follow `tokens`; none where guessing would not gain."""
        ...

    def learn(self, guessed: int, right: int) -> None:
        """How many tokens were guessed, and how many of them the model then wrote."""
        ...


class Row:
    """A sequence on its way through the engine."""

    def __init__(
        self,
        running: Running,
        arrival: int,
        arrived: float,
        sampler: Sampler,
        drafter: Drafter | None = None,
        lora: LoRA | None = None,
    ) -> None:
        """`arrival` counts requests, `arrived` says when (seconds of any clock)."""
        self.running, self.sampler, self.drafter, self.lora = running, sampler, drafter, lora
        self.rank = running.generation.due(arrived), arrival
        """The lower is the better."""
        self.tokens = list(running.generation.prompt)
        """The prompt and what was written."""
        self.slab: Slab | None = None
        self.started = False
        """Whether it ever had one."""
        self._keys: dict[bytes, list[bytes]] = {}

    @property
    def asked(self) -> Generation:
        return self.running.generation

    @property
    def read(self) -> int:
        return 0 if self.slab is None else self.slab.cache.length

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.read

    @property
    def left(self) -> int:
        """How many tokens it may still write."""
        return len(self.asked.prompt) + self.asked.max_tokens - len(self.tokens)

    def keys(self, stretched: bool) -> list[bytes]:
        """Of the whole blocks of its tokens. Vectors also depend on the adapter, and on how LongRoPE turns them."""
        root = repr((self.lora and self.lora.digest, stretched)).encode()
        self._keys[root] = block_keys(self.tokens, root, self._keys.get(root, ()))
        return self._keys[root]


@dataclass(slots=True)
class Counts:
    """Of all sequences so far."""

    ended: int = 0
    cancelled: int = 0
    """Of those, by whoever asked,"""
    late: int = 0
    """and by their deadlines."""
    preemptions: int = 0
    prompt_tokens: int = 0
    """Of the sequences that were started,"""
    cached_tokens: int = 0
    """and those of them that were found instead of read."""
    written_tokens: int = 0


class Task(NamedTuple):
    """What one sequence does in a step."""

    row: Row
    new: int
    """Unread tokens that it reads,"""
    drafts: Sequence[Guess] = ()
    """and then what was guessed to follow."""

    @property
    def writes(self) -> bool:
        """Whether all that there is gets read, so that the next token can be chosen. To be asked before the step."""
        return self.new == self.row.unread


class Scheduler:
    def __init__(
        self, store: KVStore, *, max_batch: int, token_budget: int, stretched: Callable[[int], bool] = lambda _: False
    ) -> None:
        """`stretched`: whether a sequence of so many tokens is turned by LongRoPE's long factors."""
        if token_budget < max_batch:
            raise ValueError(f"a step of {token_budget} tokens leaves some of {max_batch} sequences without any")
        self.store, self.max_batch, self.token_budget, self._stretched = store, max_batch, token_budget, stretched
        self.waiting: list[Row] = []
        """Best rank first."""
        self.running: list[Row] = []
        self._aside: set[Row] = set()
        """Those set aside in this step: they wait for the next, since the step may have planned them already."""
        self.counts = Counts()

    def add(self, row: Row) -> None:
        insort(self.waiting, row, key=lambda row: row.rank)

    def end(self, row: Row, finish: Finish, error: BaseException | None = None) -> None:
        """Takes a sequence out, gives its memory back, and tells the one who asked. What it has read stays for others,
        unless it ended badly."""
        self._release(row, keep=finish in ("stop", "length"))
        (self.waiting if row in self.waiting else self.running).remove(row)
        self.counts.ended += 1
        self.counts.cancelled += finish == "cancelled"
        self.counts.late += finish == "deadline"
        row.running.end(finish, error)

    def write(self, row: Row, token: Token) -> None:
        """Adds a token to a sequence's answer, and ends it where that is its last one."""
        row.tokens.append(token.id)
        row.running.deliver(token)
        self.counts.written_tokens += 1
        constraint = row.asked.constraint
        try:
            if token.id in row.asked.stop_tokens:
                self.end(row, "stop")
            elif constraint is not None:
                constraint.accept(token.id)
                if constraint.ended:
                    self.end(row, "stop")
        except Exception as error:  # noqa: BLE001 - of one request; the batch must not suffer
            self.end(row, "error", error)
        if row.running.finish is None and row.left == 0:
            self.end(row, "length")

    def remember(self, row: Row) -> None:
        """Keeps what a sequence has read, for others that begin alike."""
        if row.slab is not None:
            self.store.save(row.slab, self._whole(row, row.slab))

    @staticmethod
    def _whole(row: Row, slab: Slab) -> list[bytes]:
        """The keys of the blocks that a sequence has read."""
        return row.keys(slab.cache.stretched)[: row.read // BLOCK]

    def plan(self, now: float) -> list[Task]:
        """The next step; empty when nothing is left to do. Ends what was cancelled or is late at `now`."""
        self._sweep(now)
        self._aside.clear()
        tasks: list[Task] = []
        budget = self.token_budget
        for row in self.running:
            self._turn(row)
        for row in sorted(self.running, key=lambda row: (row.unread > 1, row.rank)):
            budget -= self._schedule(row, budget, tasks)
        while budget > 0 and (admitted := self._admit()) is not None:
            budget -= self._schedule(admitted, budget, tasks)
        tasks = [task for task in tasks if task.row.slab is not None]  # without those set aside meanwhile
        return [planned for task in tasks if (planned := self._guess(task, budget // len(tasks))) is not None]

    def _schedule(self, row: Row, budget: int, tasks: list[Task]) -> int:
        """Adds the row's share of the step; how many tokens that is."""
        if row.slab is None or budget < 1:
            return 0
        count = min(row.unread, budget)
        try:
            room = self._room(row, row.slab, row.read + count)
        except NoMemory as error:
            self.end(row, "error", error)
            return 0
        if not room:
            return 0
        tasks.append(Task(row, count))
        return count

    def _guess(self, task: Task, most: int) -> Task | None:
        """Spare tokens of the budget verify what a drafter guesses, where that costs nobody else anything. None: the
        sequence has ended."""
        row, slab = task.row, task.row.slab
        most = min(most, row.left - 1)
        if row.drafter is None or slab is None or most < 1 or not task.writes:
            return task
        drafts = row.drafter.propose(row.tokens, most)[:most]
        total = len(row.tokens) + len(drafts)
        if not drafts or self._stretched(total) != slab.cache.stretched:
            return task
        try:
            return task._replace(drafts=drafts) if self.store.reserve(slab, total, total) else task
        except NoMemory as error:
            self.end(row, "error", error)
            return None

    def _admit(self) -> Row | None:
        """The best waiting sequence that can start, with memory for all its tokens and what is known of them."""
        coming = {
            key for row in self.running if row.slab and row.unread > 1 for key in row.keys(row.slab.cache.stretched)
        }
        for row in self.waiting:
            if row in self._aside:
                return None
            stretched = self._stretched(len(row.tokens))
            keys = row.keys(stretched)[: (len(row.tokens) - 1) // BLOCK]  # the last token is read, for its logits
            known = self.store.known(keys)
            if known < len(keys) and keys[known] in coming:
                continue  # another one is just reading what this one could use
            if len(self.running) >= self.max_batch and not self._set_aside(self._less_urgent(row)):
                return None
            most = len(row.asked.prompt) + row.asked.max_tokens
            try:
                slab = self.store.open(len(row.tokens), keys, most)
                while slab is None and self._set_aside(self._less_urgent(row)):
                    slab = self.store.open(len(row.tokens), keys, most)
            except NoMemory as error:
                self.end(row, "error", error)
                return None
            if slab is None:
                return None  # nobody overtakes: memory that frees up is for this one
            slab.cache.stretched = stretched
            found = self.store.lead(slab, keys)
            if not row.started:
                row.started, row.running.cached = True, found
                self.counts.prompt_tokens += len(row.asked.prompt)
                self.counts.cached_tokens += found
            row.slab = slab
            self.waiting.remove(row)
            self.running.append(row)
            return row
        return None

    def _room(self, row: Row, slab: Slab, positions: int) -> bool:
        """Memory for a running sequence, if need be of those with a worse rank; else it is itself set aside."""
        most = len(row.asked.prompt) + row.asked.max_tokens
        while not self.store.reserve(slab, positions, most):
            if not self._set_aside([other for other in self.running if other.rank > row.rank]):
                self._preempt(row)
                return False
        return True

    def _less_urgent(self, row: Row) -> list[Row]:
        """The running sequences that make way for a new one. Having waited long earns the next place, not another's,
        and a place that was earned so is kept."""
        priority = row.asked.priority
        return [other for other in self.running if other.asked.priority > priority and other.rank > row.rank]

    def _set_aside(self, rows: Sequence[Row]) -> bool:
        """Sets the one of the worst rank aside, if there is any."""
        worst = max(rows, key=lambda row: row.rank, default=None)
        if worst is None:
            return False
        self._preempt(worst)
        return True

    def _preempt(self, row: Row) -> None:
        self.counts.preemptions += 1
        self._aside.add(row)
        self._release(row, keep=True)
        self.running.remove(row)
        self.add(row)

    def _release(self, row: Row, *, keep: bool) -> None:
        """Gives a sequence's memory back; with `keep`, what is in it stays for others."""
        if (slab := row.slab) is not None:
            if keep:
                self.remember(row)
            self.store.close(slab, self._whole(row, slab) if keep else ())
            row.slab = None

    def _turn(self, row: Row) -> None:
        """A sequence that outgrew LongRoPE's original context has to be read again, turned differently."""
        stretched = self._stretched(len(row.tokens))
        if row.slab is not None and row.slab.cache.stretched != stretched:
            row.slab.cache.truncate(0)
            row.slab.cache.stretched = stretched

    def _sweep(self, now: float) -> None:
        for row in [*self.waiting, *self.running]:
            if row.running.cancelled:
                self.end(row, "cancelled")
            elif row.asked.deadline is not None and row.asked.deadline <= now:
                self.end(row, "deadline")
