"""What holds in every history of requests: each ends exactly once, memory is never lost or promised twice, the best
advances, equals are served in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from windlass.build.transformer.config import TransformerConfig  # noqa: E402
from windlass.core.errors import NoMemory  # noqa: E402
from windlass.serve.engine import kv, request  # noqa: E402
from windlass.serve.engine.kv import BLOCK, KVStore, Slab, block_keys  # noqa: E402
from windlass.serve.engine.request import Generation, Running  # noqa: E402
from windlass.serve.engine.sampling.sampler import Sampler  # noqa: E402
from windlass.serve.engine.sampling.settings import Sampling  # noqa: E402
from windlass.serve.engine.sampling.token import Token  # noqa: E402
from windlass.serve.engine.scheduler import Row, Scheduler  # noqa: E402

CONFIG = TransformerConfig(vocab_size=5, hidden=2, layers=1, heads=1, kv_heads=1, head_dim=2, ffn=2, context=200)
GREEDY = Sampling(temperature=0)


class Recorded(Running):
    """Remembers how often it ended."""

    ends = 0

    def end(self, finish, error=None):
        self.ends += 1
        super().end(finish, error)


class World:
    """A scheduler whose model reads by writing each token's number and place into the slab."""

    def __init__(self, blocks: int, *, max_batch: int, token_budget: int, share: bool = True) -> None:
        self.store = KVStore(CONFIG, blocks * BLOCK, share=share)
        self.scheduler = Scheduler(
            self.store, max_batch=max_batch, token_budget=token_budget, stretched=lambda length: length > 60
        )
        self.rows: list[Row] = []
        self.now = 0.0

    def add(self, prompt: list[int], max_tokens: int, **more) -> Row:
        asked = Generation(prompt=prompt, max_tokens=max_tokens, sampling=GREEDY, **more)
        row = Row(Recorded(asked, lambda: None), len(self.rows), self.now, Sampler(GREEDY, prompt))
        self.rows.append(row)
        self.scheduler.add(row)
        return row

    def step(self) -> int:
        """One step; how many tokens were read."""
        self.now += 1
        tasks = self.scheduler.plan(self.now)
        self.check()
        assert sum(task.new for task in tasks) <= self.scheduler.token_budget
        assert len({task.row for task in tasks}) == len(tasks) <= self.scheduler.max_batch
        if self.scheduler.running:
            best = min(self.scheduler.running + self.scheduler.waiting, key=lambda row: row.rank)
            waits = best in self.scheduler.waiting and best.slab is None
            assert waits or best in [task.row for task in tasks], "the best advances"
        for task in tasks:
            row, slab = task.row, task.row.slab
            assert slab is not None and 1 <= task.new <= row.unread
            assert slab.cache.capacity >= row.read + task.new
            writes = task.writes
            self.read(row, task.new)
            if task.new > 1:
                self.scheduler.remember(row)
            if writes and row.left == 0:
                self.scheduler.end(row, "length")
            elif writes:
                self.scheduler.write(row, Token(self.next_token(row)))
        self.check()
        return sum(task.new for task in tasks)

    @staticmethod
    def read(row: Row, new: int) -> None:
        """What a position holds depends on all tokens before it, as in a model."""
        slab = row.slab
        for place in range(row.read, row.read + new):
            said = hash((tuple(row.tokens[: place + 1]), slab.cache.stretched)) % 10_007
            slab.cache.keys[0, 0, 0, place], slab.cache.values[0, 0, 0, place] = said, said + 1
            slab.hidden_SC[place] = said
        slab.cache.advance(new)

    @staticmethod
    def next_token(row: Row) -> int:
        """Depends on everything that was read: a wrong block would change the answer."""
        held = row.slab.cache.keys[0, 0, 0, : row.read, 0].sum() + row.slab.hidden_SC[: row.read, 1].sum()
        return int(held) % 5

    def check(self) -> None:
        """Nothing is lost, nothing is promised twice."""
        store, scheduler = self.store, self.scheduler
        assert store.held == sum(row.slab.blocks for row in scheduler.running)
        spare, used = [slab for slab, _ in store._spare], [row.slab for row in scheduler.running]
        assert len({id(slab) for slab in (*spare, *used)}) == len(spare) + len(used), "a slab belongs to one"
        assert store.held + store.cached + sum(slab.blocks for slab in spare) <= store.total
        assert all(slab.cache.keys.shape == slab.cache.values.shape for slab in spare), "no torn slab is kept"
        assert store.held >= 0 and store.held + store.cached <= store.total
        assert all(row.slab is None for row in scheduler.waiting)
        assert not set(scheduler.running) & set(scheduler.waiting)
        living = {row for row in self.rows if row.running.finish is None}
        assert living == set(scheduler.running) | set(scheduler.waiting)
        assert [row.rank for row in scheduler.waiting] == sorted(row.rank for row in scheduler.waiting)


def answer(prompt: list[int], max_tokens: int) -> list[int]:
    """What the model of `World` writes for a request alone."""
    world = World(40, max_batch=1, token_budget=200, share=False)
    row = world.add(prompt, max_tokens)
    while row.running.finish is None:
        world.step()
    return row.tokens


@st.composite
def requests(draw):
    shared = draw(st.sampled_from([0, 10, 20, 40]))
    prompt = [1] * shared + draw(st.lists(st.integers(0, 4), min_size=1, max_size=40))
    return prompt, draw(st.integers(0, 25)), draw(st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(requests(), min_size=1, max_size=9),
    arrivals=st.lists(st.integers(0, 6), min_size=9, max_size=9),
    cancels=st.dictionaries(st.integers(0, 8), st.integers(0, 12), max_size=3),
    deadlines=st.dictionaries(st.integers(0, 8), st.integers(1, 15), max_size=2),
    blocks=st.integers(7, 20),
    max_batch=st.integers(1, 5),
    token_budget=st.integers(5, 60),
    share=st.booleans(),
    patience=st.sampled_from([0.0, 1.0, 10.0, 1e6]),
)
def test_every_history(asked, arrivals, cancels, deadlines, blocks, max_batch, token_budget, share, patience):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(request, "PATIENCE", patience)
        history(asked, arrivals, cancels, deadlines, blocks, max_batch, token_budget, share)


def history(asked, arrivals, cancels, deadlines, blocks, max_batch, token_budget, share):
    world = World(blocks, max_batch=max_batch, token_budget=token_budget, share=share)
    coming = [(sum(arrivals[: i + 1]), i, one) for i, one in enumerate(asked)]
    for step in range(4000):
        for at, number, (prompt, max_tokens, priority) in coming:
            if at == step:
                world.add(prompt, max_tokens, priority=priority, deadline=deadlines.get(number))
        for number, at in cancels.items():
            if at == step and number < len(world.rows):
                world.rows[number].running.cancelled = True
        world.step()
        if len(world.rows) == len(asked) and not world.scheduler.running and not world.scheduler.waiting:
            break
    assert [row.running.ends for row in world.rows] == [1] * len(asked), "every request ends exactly once"
    assert world.store.held == 0
    assert world.scheduler.counts.ended == len(asked)
    for number, (row, (prompt, max_tokens, _)) in enumerate(zip(world.rows, asked, strict=True)):
        told = [token.id for token in row.running]
        assert row.tokens == prompt + told
        expected = answer(prompt, max_tokens)
        assert row.tokens == expected[: len(row.tokens)]
        if row.running.finish == "length":
            assert row.tokens == expected
        else:
            assert number in (cancels if row.running.finish == "cancelled" else deadlines)
    if not share:
        assert world.store.cached == 0 and world.scheduler.counts.cached_tokens == 0


class Fragile(Slab):
    """A slab whose memory is refused whenever the next of `refusals` says so; growing then breaks half way."""

    refusals: ClassVar[Iterator[bool]]

    def __init__(self, *arguments):
        if next(self.refusals, False):
            raise MemoryError
        super().__init__(*arguments)

    def grow(self, blocks, context):
        if next(self.refusals, False):
            self.torn = True
            self.cache.keys = torch.cat([self.cache.keys] * 2, dim=3)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        super().grow(blocks, context)


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(requests(), min_size=2, max_size=7),
    refusals=st.lists(st.booleans(), min_size=4, max_size=40),
    blocks=st.integers(7, 20),
    max_batch=st.integers(1, 4),
)
def test_every_history_in_which_the_machine_refuses_memory(asked, refusals, blocks, max_batch):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kv, "Slab", Fragile)
        Fragile.refusals = iter(refusals)
        world = World(blocks, max_batch=max_batch, token_budget=40)
        for prompt, max_tokens, priority in asked:
            world.add(prompt, max_tokens, priority=priority)
        for _ in range(4000):
            world.step()
            if not world.scheduler.running and not world.scheduler.waiting:
                break
    assert [row.running.ends for row in world.rows] == [1] * len(asked)
    assert world.store.held == 0
    for row, (prompt, max_tokens, _) in zip(world.rows, asked, strict=True):
        expected = answer(prompt, max_tokens)
        assert row.tokens == expected[: len(row.tokens)]
        if row.running.finish == "error":
            with pytest.raises(NoMemory):
                list(row.running)
        else:
            assert row.running.finish == "length" and row.tokens == expected


def test_equals_finish_in_order_and_a_flood_does_not_starve_the_first():
    world = World(12, max_batch=2, token_budget=16)
    done: list[int] = []
    for _ in range(5):
        world.add([2] * 30, 10)
    for _ in range(400):
        if len(world.rows) < 60:
            world.add([len(world.rows) % 5] * 20, 10)  # somebody new in every step
        world.step()
        done += [n for n, row in enumerate(world.rows) if row.running.finish is not None and n not in done]
    assert len(done) == 60
    assert all(abs(place - number) <= 2 for place, number in enumerate(done)), done


def flood(patience: float, monkeypatch: pytest.MonkeyPatch, *, steps: int = 400) -> tuple[list[float], World]:
    """When the low ones finish that wait while two urgent requests arrive in every second, more than can be served."""
    monkeypatch.setattr(request, "PATIENCE", patience)
    world = World(12, max_batch=2, token_budget=16)
    low = [world.add([1] * 20, 5, priority=3), world.add([3] * 50, 5, priority=3)]
    ended: dict[Row, float] = {}
    for step in range(steps):
        world.add([2] * (step % 7 + 1), 4)
        world.step()
        ended |= {row: world.now for row in low if row.running.finish is not None and row not in ended}
    assert len(world.scheduler.waiting) > 100, "the flood is more than can be served"
    return list(ended.values()), world


def test_a_flood_of_urgent_requests_does_not_starve_the_others_for_ever(monkeypatch):
    ended, world = flood(20.0, monkeypatch)
    assert len(ended) == 2 and all(3 * 20 <= at < 3 * 20 + 140 for at in ended), ended
    assert world.rows[0].tokens == answer([1] * 20, 5)
    starved, _ = flood(1e9, monkeypatch)
    assert starved == [], "else this shows nothing"


def test_waiting_long_earns_the_next_place_and_keeps_it(monkeypatch):
    monkeypatch.setattr(request, "PATIENCE", 10.0)
    world = World(20, max_batch=1, token_budget=16)
    patient = world.add([1] * 5, 10, priority=1)
    world.now = 15.0
    urgent = [world.add([n] * 5, 10) for n in (2, 3)]
    world.step()
    assert world.scheduler.running == [patient], "it is due before them"
    world.add([4] * 5, 10, priority=-1)  # due before it: may take the place
    world.step()
    assert world.scheduler.running == [world.rows[-1]] and world.scheduler.counts.preemptions == 1
    while not all(row.running.finish for row in world.rows):
        world.step()
    assert world.scheduler.counts.preemptions == 1 and urgent[0].running.finish == "length"


def test_who_is_set_aside_in_a_step_does_not_return_in_it():
    world = World(8, max_batch=3, token_budget=64)
    first = world.add([1] * 60, 60, priority=20)
    while first.slab is None or first.slab.blocks < 8:  # more than it needs now: half as much again
        world.step()
    urgent = world.add([2] * 5, 3)
    world.step()
    assert world.scheduler.counts.preemptions == 1
    assert world.scheduler.running == [urgent] and world.scheduler.waiting == [first]
    while first.running.finish is None:
        world.step()
    assert first.tokens == answer([1] * 60, 60) and urgent.tokens == answer([2] * 5, 3)


def test_blocks_of_equal_beginnings_only_have_equal_keys():
    a, b = block_keys([1] * 40, b"x"), block_keys([1] * 32 + [2] * 8, b"x")
    assert len(a) == 2 and a == b != block_keys([1] * 40, b"y")
    assert block_keys([2] + [1] * 31, b"x")[1] != a[1], "a block knows what came before it"
    assert block_keys([1] * 48, b"x", a) == block_keys([1] * 48, b"x")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.sampled_from(["save", "lead", "open"])), max_size=30)
)
def test_what_is_kept_can_always_be_found(steps):
    """Chains are forgotten from their ends, and what is found is what was saved."""
    store = KVStore(CONFIG, 12 * BLOCK)
    for first, blocks, action in steps:
        tokens = [first] * BLOCK + [0] * (BLOCK * (blocks - 1))
        keys = block_keys(tokens, b"")
        if action == "open":
            slab = store.open(blocks * 2 * BLOCK)
            if slab is not None:
                store.close(slab)
            continue
        slab = store.open(blocks * BLOCK)
        assert slab is not None
        found = store.lead(slab, keys)
        for block in range(found // BLOCK):
            assert (slab.hidden_SC[block * BLOCK : (block + 1) * BLOCK] == 100 * first + block).all()
        for block in range(blocks):
            slab.hidden_SC[block * BLOCK : (block + 1) * BLOCK] = 100 * first + block
        if action == "save":
            store.save(slab, keys)
        store.close(slab)
        chains = [block_keys([f] * BLOCK + [0] * BLOCK * 4, b"") for f in range(4)]
        assert sum(store.known(chain) for chain in chains) == store.cached, "none is out of reach"
