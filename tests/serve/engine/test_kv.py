"""The store of keys and values: memory that is used again, and found filled."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tiny_decoders import ask, decoder, greedy, prompts  # noqa: E402

from windlass.build.transformer.config import TransformerConfig  # noqa: E402
from windlass.serve.engine.engine import Engine  # noqa: E402
from windlass.serve.engine.kv import BLOCK, KVStore, Slab, block_keys  # noqa: E402

CONFIG = TransformerConfig(vocab_size=64, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn=24, context=1024)
TOKENS = list(range(10 * BLOCK))
KEYS = block_keys(TOKENS, b"")


def filled(store: KVStore, keys: list[bytes]) -> Slab:
    slab = store.open(len(keys) * BLOCK, keys)
    assert slab is not None
    slab.cache.keys.fill_(7.0)
    slab.cache.length = len(keys) * BLOCK
    return slab


def test_who_begins_alike_finds_the_last_ones_slab_as_it_was():
    store = KVStore(CONFIG, 40 * BLOCK)
    first = filled(store, KEYS[:8])
    store.close(first, KEYS[:8])
    other = block_keys([*TOKENS[: 5 * BLOCK], *reversed(TOKENS[: 4 * BLOCK])], b"")
    again = store.open(8 * BLOCK, other)
    assert again is first and store.held == 8
    assert store.lead(again, other) == 5 * BLOCK, "nothing was saved: all of it was there"


def test_a_slab_without_known_blocks_is_memory_and_nothing_else():
    store = KVStore(CONFIG, 40 * BLOCK)
    slab = filled(store, KEYS[:8])
    store.close(slab)
    assert store.open(8 * BLOCK, KEYS) is slab and slab.cache.length == 0
    alone = KVStore(CONFIG, 40 * BLOCK, share=False)
    slab = filled(alone, KEYS[:8])
    alone.close(slab, KEYS[:8])
    assert alone.open(8 * BLOCK, KEYS) is slab and slab.cache.length == 0


def test_of_several_the_one_that_holds_most_is_taken():
    store = KVStore(CONFIG, 60 * BLOCK)
    some, all_of_it = filled(store, KEYS[:4]), filled(store, KEYS[:8])
    for slab, count in ((all_of_it, 8), (some, 4)):
        store.close(slab, KEYS[:count])
    assert store.open(7 * BLOCK, KEYS) is all_of_it
    assert store.open(20 * BLOCK, KEYS) is not some, "too small"
    store.clear()
    assert store.open(4 * BLOCK, KEYS) is not some


def test_a_slab_that_takes_more_than_half_of_the_room_has_it_from_kept_slabs_first():
    store = KVStore(CONFIG, 20 * BLOCK)
    slab = filled(store, KEYS[:8])
    store.save(slab, KEYS[:8])
    store.close(slab, KEYS[:8])
    assert store.cached == 8
    assert store.open(12 * BLOCK) is not None and store.cached == 8, "the slab went"
    assert store.open(8 * BLOCK) is not None and store.cached == 0
    assert store.open(BLOCK) is None


def test_slabs_are_kept_rather_than_blocks_up_to_half_of_the_room():
    store = KVStore(CONFIG, 20 * BLOCK)
    kept, one = filled(store, KEYS[:5]), filled(store, KEYS[:5])
    store.close(kept)
    texts = [block_keys(list(range(i, i + 5 * BLOCK)), b"") for i in range(3)]
    for keys in texts:
        store.save(one, keys)
    assert store.cached == 10 and [store.known(keys) for keys in texts] == [0, 5, 5]
    assert store.open(5 * BLOCK) is kept


def test_a_block_that_went_leaves_its_memory_to_the_next():
    store = KVStore(CONFIG, 10 * BLOCK)
    slab = filled(store, KEYS[:5])
    store.save(slab, KEYS[:5])
    held = {block.keys.data_ptr() for block in store._cached.values()}
    slab.cache.keys.fill_(3.0)
    others = block_keys(list(range(1, 1 + 5 * BLOCK)), b"")
    store.save(slab, others)
    assert {block.keys.data_ptr() for block in store._cached.values()} == held and store.known(others) == 5
    store.close(slab)
    again = store.open(5 * BLOCK, others)
    assert again is not None and store.lead(again, others) == 5 * BLOCK
    assert (again.cache.keys[:, :, :, : 5 * BLOCK] == 3.0).all()


def test_a_kept_slab_that_the_answer_may_fill_is_not_too_large_while_there_is_room():
    store = KVStore(CONFIG, 40 * BLOCK)
    large = filled(store, KEYS[:10])
    store.close(large)
    assert store.open(2 * BLOCK, (), 9 * BLOCK) is not large
    found = store.open(2 * BLOCK, (), 10 * BLOCK)
    assert found is large and store.reserve(found, 10 * BLOCK, 10 * BLOCK) and found is large
    store.close(found)
    busy = [store.open(7 * BLOCK), store.open(4 * BLOCK)]
    assert store.open(2 * BLOCK, (), 10 * BLOCK) is not large, "half of the room is in use"
    assert None not in busy


def test_answers_are_the_same_in_memory_that_others_have_used():
    model = decoder()
    (shared,) = prompts(50)
    asked = [shared + tail for tail in prompts(3, 9, 14, seed=5)] + prompts(50, 60, 70, seed=6)
    engine = Engine(model, max_batch=2, kv_tokens=512)
    for prompt in [*asked, *asked]:
        assert [token.id for token in engine.submit(ask(prompt, 6))] == greedy(model, prompt, 6)
    assert engine.stats().cached_tokens > 0
    engine.close()
