"""Judged answers in batches: each text's targets stay its own, however examples are mixed, shared out and chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.adapt.data.answers import (
    CHOSEN,
    MISMATCHED,
    REJECTED,
    SIDES,
    AnswerBatch,
    AnswerExamples,
    Answers,
    Look,
    encode_answers,
)
from windlass.build.adapt.data.conversations import Conversation, Encoded
from windlass.build.adapt.data.preferences import Judged
from windlass.build.training.data.batches import IGNORE

LENGTHS = st.integers(2, 9)
SHAPES = st.lists(st.tuples(LENGTHS, st.none() | LENGTHS, st.none() | LENGTHS), min_size=1, max_size=8)
"""Tokens of each side of each example; the first side is always there."""


def encoded(name: int, length: int) -> Encoded:
    """A text whose tokens are like no other's, of which the latter half is learned."""
    return Encoded(100 * name + np.arange(length), np.arange(length) >= length // 2)


def examples_of(shapes: list[tuple[int | None, ...]]) -> AnswerExamples:
    found: list[Any] = []
    for number, lengths in enumerate(shapes):
        sides = [None if one is None else encoded(SIDES * number + side, one) for side, one in enumerate(lengths)]
        found.append(Answers(tuple(sides)))  # type: ignore[arg-type]
    return AnswerExamples(found)


def sums(batch: AnswerBatch) -> list[list[int]]:
    """Of the tokens that each side is to predict."""
    counted = torch.where(batch.targets_BT == IGNORE, 0, batch.targets_BT)
    return [[int(one) for one in row] for row in batch.by_side(counted)]


def expected(shapes: list[tuple[int | None, ...]]) -> list[list[int]]:
    found = []
    for number, lengths in enumerate(shapes):
        texts = [None if one is None else encoded(SIDES * number + side, one) for side, one in enumerate(lengths)]
        found.append([0 if one is None else int(one.tokens[1:][one.learned[1:]].sum()) for one in texts])
    return found


@given(SHAPES, st.randoms(use_true_random=False))
def test_what_each_side_predicts_is_its_own_in_any_order(shapes: Any, random: Any) -> None:
    order = list(range(len(shapes)))
    random.shuffle(order)
    batch = examples_of(shapes).batch([(0, number) for number in order])
    wanted = expected(shapes)
    assert sums(batch) == [wanted[number] for number in order]
    assert batch.there().tolist() == [[one is not None for one in shapes[number]] for number in order]
    assert batch.counted == batch.divisible == len(shapes) and sum(batch.lengths) == batch.tokens


@given(SHAPES, st.integers(1, 4))
def test_shares_of_a_batch_are_all_of_it_and_nothing_twice(shapes: Any, workers: int) -> None:
    batch, wanted = examples_of(shapes).batch([(0, number) for number in range(len(shapes))]), expected(shapes)
    for number in range(min(workers, len(shapes))):
        share = batch.rows(slice(number, None, workers))
        assert sums(share) == wanted[number::workers] and share.counted == len(wanted[number::workers])
        assert share.there().tolist() == batch.there()[number::workers].tolist()


@given(SHAPES)
def test_some_sides_are_those_sides_of_every_example(shapes: Any) -> None:
    batch, wanted = examples_of(shapes).batch([(0, number) for number in range(len(shapes))]), expected(shapes)
    own = batch.of_sides(CHOSEN, REJECTED)
    assert sums(own) == [[chosen, rejected, 0] for chosen, rejected, _ in wanted]
    assert own.sequences == sum(one is not None for lengths in shapes for one in lengths[:MISMATCHED])


@given(SHAPES, st.data())
def test_what_the_reference_said_of_a_text_comes_with_it(shapes: Any, data: Any) -> None:
    examples = examples_of(shapes)
    examples.reference = np.arange(examples.tokens, dtype=np.float32)
    numbers = data.draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=6))
    batch = examples.batch([(0, number) for number in numbers])
    assert batch.reference_BT is not None and batch.places_D is not None
    end = 0
    for place, length in zip(batch.places_D.tolist(), batch.lengths, strict=True):
        start = examples.start(numbers[place // SIDES], place % SIDES)
        assert batch.reference_BT[0, end : end + length].tolist() == list(range(start, start + length))
        end += length


@given(SHAPES)
def test_what_is_learned_is_counted_without_the_strays(shapes: Any) -> None:
    examples = examples_of(shapes)
    batch = examples.batch([(0, number) for number in range(len(shapes))])
    assert examples.learned == int((batch.of_sides(CHOSEN, REJECTED).targets_BT != IGNORE).sum())
    assert examples.tokens == batch.tokens and len(examples) == len(shapes)


def test_no_text_predicts_the_first_token_of_the_next() -> None:
    batch = examples_of([(4, 3, None), (2, 2, 2)]).batch([(0, 0), (0, 1)])
    ends = torch.tensor(batch.lengths).cumsum(0) - 1
    assert (batch.targets_BT[0, ends] == IGNORE).all()


def test_a_look_is_divided_as_a_batch_is() -> None:
    batch = examples_of([(4, 3, None), (2, 2, 2)]).batch([(0, 0), (0, 1)])
    look = Look(batch.inputs_BT, batch.targets_BT, lengths_D=batch.lengths_D, places_D=batch.places_D)
    assert type(look.rows(slice(1, None, 2))) is Look and sums(look.rows(slice(1, 2))) == sums(batch)[1:]


@pytest.mark.parametrize("liked", [True, False])
def test_an_answer_is_learned_behind_its_own_prompt_and_a_stray_one_too(liked: bool) -> None:
    seen: list[Conversation] = []

    def encode(conversation: Conversation) -> Encoded:
        seen.append(conversation)
        return encoded(len(seen), 3)

    def one(name: str, good: bool) -> Judged:
        prompt, answer = [{"role": "user", "content": name}], [{"role": "assistant", "content": f"{name}!"}]
        return Judged(prompt, answer if good else None, None if good else answer, name)

    found = encode_answers(encode, one("a", liked), one("b", not liked))
    assert [side is not None for side in found.sides] == [liked, not liked, True] and len(found) == 3
    assert [[turn["content"] for turn in said.turns] for said in seen] == [["a", "a!"], ["a", "b!"]]
    assert {said.first for said in seen} == {1} and {said.where for said in seen} == {"a"}
