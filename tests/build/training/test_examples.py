"""Hidden tokens, gaps and pairs: the right share, exactly invertible, a function of the seed and the number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import SEPARATOR, epoch, shard_of

from windlass.build.tokenizer import Specials
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.data.masking import MaskedExamples
from windlass.build.training.data.pairs import SHORTEST, PairExamples
from windlass.build.training.data.spans import SpanExamples, corruption, lengths
from windlass.build.training.examples import examples_of
from windlass.build.training.recipe import read_recipe
from windlass.core.errors import InputError

MASK, END, START, FIRST_SENTINEL = 50_001, 50_002, 50_003, 60_000
ORDINARY = np.arange(1, 40_000)


def masked(shard, context=32, share=0.15, seed=0, isolate=False) -> MaskedExamples:
    return MaskedExamples(shard, context, isolate=isolate, seed=seed, share=share, mask=MASK, ordinary=ORDINARY)


def spanned(shard, context=32, share=0.15, span=3.0, isolate=False) -> SpanExamples:
    sentinels = list(range(FIRST_SENTINEL, FIRST_SENTINEL + 400))
    return SpanExamples(
        shard, context, isolate=isolate, seed=0, share=share, span=span, sentinels=sentinels, end=END, start=START
    )


def test_masks_hide_the_share_and_treat_it_as_the_paper_says():
    examples = masked(shard_of([20_000]), context=100)
    batches = epoch(examples, 0)
    inputs = torch.cat([batch.inputs_BT for batch in batches])
    targets = torch.cat([batch.targets_BT for batch in batches])
    hidden = targets != IGNORE
    assert int(hidden.sum()) / 20_000 == pytest.approx(0.15, abs=0.002)
    assert hidden.sum(1)[0] == 15
    share = {
        "masked": (inputs[hidden] == MASK).float().mean(),
        "kept": (inputs[hidden] == targets[hidden]).float().mean(),
    }
    assert float(share["masked"]) == pytest.approx(0.8, abs=0.03)
    assert float(share["kept"]) == pytest.approx(0.1, abs=0.03)
    assert not (inputs[~hidden] == MASK).any()
    assert not (targets == SEPARATOR).any(), "separators are not text"


@settings(max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=9), st.integers(4, 40), st.integers(0, 3))
def test_masks_depend_on_seed_and_number_and_leave_the_text_behind_them(lengths, context, seed):
    shard = shard_of(lengths)
    examples = masked(shard, context, seed=seed)
    whole = {int(token) for token in shard.tokens}
    seen = 0
    for number in range(len(examples)):
        one = examples.batch([(1, number)])
        both = examples.batch([(0, 0), (1, number)])
        assert torch.equal(both.inputs_BT[1], one.inputs_BT[0]), "whatever else is in the batch"
        restored = torch.where(one.targets_BT == IGNORE, one.inputs_BT, one.targets_BT)
        assert set(restored.flatten().tolist()) <= whole
        seen += one.counted
    assert seen <= sum(lengths)
    assert not torch.equal(examples.batch([(0, 0)]).targets_BT, examples.batch([(1, 0)]).targets_BT) or seen < 3


def test_the_lengths_are_those_of_the_paper():
    """Raffel et al.: 512 tokens of input are 568 tokens of text, and the target has 114."""
    assert lengths(512, 0.15, 3.0) == (568, 114)
    assert corruption(568, 0.15, 3.0) == (85, 28)
    with pytest.raises(InputError, match="too short for spans"):
        lengths(1, 0.15, 3.0)


def filled(source: list[int], target: list[int]) -> list[int]:
    """The text again: each sentinel of the source replaced by what the target says of it."""
    assert source[-1] == target[-1] == END
    said: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token >= FIRST_SENTINEL:
            said[token] = []
        else:
            said[list(said)[-1]].append(token)
    return [t for token in source[:-1] for t in (said[token] if token >= FIRST_SENTINEL else [token])]


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 50), min_size=3, max_size=10),
    st.integers(8, 60),
    st.floats(0.05, 0.6),
    st.floats(1.0, 6.0),
    st.booleans(),
)
def test_spans_are_exactly_invertible(documents, context, share, span, isolate):
    shard = shard_of(documents)
    examples = spanned(shard, context, share, span, isolate)
    for batch in epoch(examples, 0):
        source, target = batch.source_BS[0].tolist(), batch.targets_BT[0].tolist()
        assert len(source) <= context
        assert len(target) == examples.target_length
        text = filled(source, target)
        assert len(text) == examples.length
        ring = shard.tokens[:-1].tolist()
        start = next(i for i in range(len(ring)) if [ring[(i + j) % len(ring)] for j in range(len(text))] == text)
        assert start >= 0
        if not isolate:
            assert batch.inputs_BT[0].tolist() == [START, *target[:-1]], "the decoder reads one place later"


def test_isolated_targets_always_find_their_source_and_read_no_neighbour():
    examples = spanned(shard_of([2, 1, 3, 9, 2, 2, 30, 1, 1, 8] * 4), 24, 0.4, 3.0, isolate=True)
    for batch in epoch(examples, 0):
        own, other = batch.documents_BT[0], batch.source_documents_BS[0]
        assert set(own.tolist()) <= set(other.tolist()), "no target looks at nothing"
        changes = torch.nonzero(own.diff()).flatten() + 1
        assert (batch.inputs_BT[0, changes] == START).all()


def test_pairs_are_neighbours_of_one_document():
    shard = shard_of([5, 40, 300, 33, 2 * SHORTEST])
    examples = PairExamples(shard, 64, pad=END)
    batch = examples.batch([(0, number) for number in range(len(examples))])
    assert batch.counted == len(examples)
    for first, second, a, b in zip(
        batch.source_BS, batch.inputs_BT, batch.source_documents_BS, batch.documents_BT, strict=True
    ):
        left, right = first[a == 0].tolist(), second[b == 0].tolist()
        assert SHORTEST <= len(left) == len(right) <= 64
        assert SEPARATOR not in left + right
        assert left[-1] + 1 == right[0], "the second passage follows the first"
        assert (first[a != 0] == END).all()
    with pytest.raises(InputError, match="No document has two passages"):
        PairExamples(shard_of([10, 20]), 64, pad=END)


def test_a_tokenizer_without_the_needed_tokens_is_refused():
    shard = shard_of([300])
    plain = Specials(eos=0, where="tok@1")
    for architecture, what in (("encoder", "no mask token"), ("encoder-decoder", "0 sentinel tokens")):
        with pytest.raises(InputError, match=what):
            examples_of(read_recipe(None, {"model.architecture": architecture}), 32, shard, 400, plain, 0)
