"""What comes in which step: every token once an epoch, in an order that depends on the seed only."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.build.training.data.batches import IGNORE, Batch, CausalExamples, DataState, Examples, take
from windlass.build.training.data.shard import Shard

SEPARATOR = 0


def shard_of(documents: list[int]) -> Shard:
    """Documents of these lengths, no token twice but the separator."""
    tokens, following = [SEPARATOR], 1
    for length in documents:
        tokens += [*range(following, following + length), SEPARATOR]
        following += length
    return Shard(np.array(tokens, "<u2"), len(documents), 1, SEPARATOR)


def epoch(examples: Examples, seed: int, number: int = 0, size: int = 1) -> list[Batch]:
    state, batches = DataState(number), []
    while state.epoch == number:
        numbers, state = take(examples, state, min(size, len(examples) - state.position), seed)
        batches.append(examples.batch(numbers))
    return batches


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 40), st.integers(0, 3), st.integers(1, 5))
def test_every_token_is_trained_on_exactly_once_an_epoch(lengths, context, seed, size):
    shard = shard_of(lengths)
    if len(shard) < context + 1:
        return
    examples = CausalExamples(shard, context, isolate=False, seed=seed)
    for number in (0, 1):
        batches = epoch(examples, seed, number, size)
        trained = torch.cat([batch.targets_BT[batch.targets_BT != IGNORE] for batch in batches])
        assert sorted(trained.tolist()) == sorted(shard.tokens[1:].tolist())
        assert sum(batch.counted for batch in batches) == len(shard) - 1
        follows = dict(zip(shard.tokens[1:-1].tolist(), shard.tokens[2:].tolist()))
        for batch in batches:
            for read, said in zip(batch.inputs_BT.flatten().tolist(), batch.targets_BT.flatten().tolist()):
                assert said == IGNORE or read == SEPARATOR or follows[read] == said


def test_the_order_depends_on_the_seed_and_each_epoch_is_cut_anew():
    shard = shard_of([300, 500, 203])

    def rows(seed: int, number: int) -> list[list[int]]:
        examples = CausalExamples(shard, 10, isolate=False, seed=seed)
        return [batch.inputs_BT[0].tolist() for batch in epoch(examples, seed, number)]

    assert rows(1, 0) == rows(1, 0)
    assert rows(1, 0) != rows(2, 0)
    assert {tuple(row) for row in rows(1, 0)} != {tuple(row) for row in rows(1, 1)}


def test_batches_of_any_size_run_through_the_same_order():
    examples = CausalExamples(shard_of([500]), 9, isolate=False, seed=4)
    whole, state = take(examples, DataState(), 70, 4)
    parts, position = [], DataState()
    for size in (1, 30, 9, 30):
        part, position = take(examples, position, size, 4)
        parts += part
    assert parts == whole
    assert position == state
    assert state.epoch == 1


def test_positions_know_their_document():
    shard = shard_of([3, 2, 40])
    batches = epoch(CausalExamples(shard, 12, isolate=True, seed=0), 0)
    for batch in batches:
        tokens, documents = batch.inputs_BT[0], batch.documents_BT[0]
        assert torch.equal(documents.diff().bool(), tokens[1:] == SEPARATOR), "a separator begins a document"
    assert epoch(CausalExamples(shard, 12, isolate=False, seed=0), 0)[0].documents_BT is None
