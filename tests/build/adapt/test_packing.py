"""Rows that hold several examples: nothing is lost, nothing is cropped, and none of them sees another."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.conversations import Encoded
from windlass.build.adapt.data.packing import PackedExamples, packed
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.objectives import arithmetic, causal
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.init import initialise


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(50, 90))
def test_every_example_stands_in_one_row_and_fits(lengths, size):
    rows = packed(lengths, size)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(sum(lengths[number] for number in row) <= size for row in rows)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=200))
def test_two_rows_are_never_both_half_empty(lengths):
    filled = sorted(sum(lengths[number] for number in row) for row in packed(lengths, 50))
    assert len(filled) < 2 or filled[0] + filled[1] > 50


def test_the_loss_of_packed_examples_is_that_of_each_alone():
    config = TransformerConfig(vocab_size=40, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn=32, context=64)
    model = Decoder(config)
    initialise(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    generator = np.random.default_rng(0)
    examples = [Encoded(generator.integers(0, 40, n), generator.random(n) < 0.6) for n in (5, 17, 30, 9, 2, 22, 11)]
    math = arithmetic(model)
    sums = {}
    for packing in (True, False):
        rows = PackedExamples(examples, 48, pad=0, packing=packing)
        assert len(rows) == (3 if packing else 7)
        losses = [causal(model, rows.batch([(0, number)]), math) for number in range(len(rows))]
        sums[packing] = sum(loss.sum for loss in losses), sum(loss.counted for loss in losses)
    assert sums[True][1] == sums[False][1] == sum(int(one.learned[1:].sum()) for one in examples)
    torch.testing.assert_close(sums[True][0], sums[False][0])


def test_what_is_not_learned_is_no_target():
    rows = PackedExamples([Encoded(np.array([7, 8, 9]), np.array([False, False, True]))], 5, pad=0)
    batch = rows.batch([(0, 0)])
    assert batch.inputs_BT.tolist() == [[7, 8, 9, 0, 0]]
    assert batch.targets_BT.tolist() == [[IGNORE, 9, IGNORE, IGNORE, IGNORE]]
