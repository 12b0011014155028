"""Queues and what people said of them: whose turn, which word counts, which side was which, who agrees."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import FIRST, SECOND, TIE, Criterion, Judge, Level
from windlass.evaluate.review.agreement import agreement, disagreements, outcome
from windlass.evaluate.review.labels import CRITERION, ITEM, QUEUE, SKIPPED, WITHDRAWN, Labels
from windlass.evaluate.review.queue import Queue

GOOD = Criterion("good", "Good?", (Level("no", 0), Level("yes", 1)))
KIND = Criterion("kind", "Kind?", (Level("no", 0), Level("so", 1), Level("yes", 2)))
RUBRIC = Judge("answers", "Look well.", criteria=(GOOD,))
PAIR = Judge("ab", "Look well.", "pairwise")


def queue(count: int = 6, rubric: Judge = RUBRIC, per_item: int | None = None) -> Queue:
    fields = rubric.fields
    items = [Item(f"i{n}", {name: f"{name} {n}" for name in fields}) for n in range(count)]
    return Queue(rubric, items, 3, per_item, ("old", "new") if rubric.pairwise else None)


class Desk:
    """People who label, in the order in which it is written here."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.scores: list[ScoreRecord] = []

    def say(
        self, author: str, item: str, value: float | None, error: str | None = None, criterion: str = "good"
    ) -> None:
        at = float(len(self.scores))
        about = {QUEUE: "q", CRITERION: criterion, ITEM: item}
        self.scores.append(
            ScoreRecord(f"s{at}", item, "answers", value, "human", author, at, error=error, metadata=about)
        )

    @property
    def labels(self) -> Labels:
        return Labels(self.queue, "q", self.scores)


def test_the_newest_word_counts_and_an_undo_opens_the_item_again() -> None:
    desk = Desk(queue())
    first = desk.labels.next("ann")
    assert first is not None
    desk.say("ann", first.id, 1.0)
    desk.say("ann", first.id, 0.0)
    assert desk.labels.of(first, "ann").values == {"good": 0.0} and desk.labels.last("ann") == first
    desk.say("ann", first.id, None, WITHDRAWN)
    assert desk.labels.state(first, "ann") == "open" and desk.labels.next("ann") == first
    assert desk.labels.last("ann") is None


def test_undo_goes_back_step_by_step() -> None:
    desk = Desk(queue())
    for item in ("i1", "i2", "i3"):
        desk.say("ann", item, 1.0)
    for item in ("i3", "i2", "i1"):
        last = desk.labels.last("ann")
        assert last is not None and last.id == item
        desk.say("ann", item, None, WITHDRAWN)
    assert desk.labels.last("ann") is None


def test_skipped_items_come_again_at_the_end() -> None:
    desk = Desk(queue(3))
    first = desk.labels.next("ann")
    assert first is not None
    desk.say("ann", first.id, None, SKIPPED)
    assert desk.labels.progress("ann") == {"skipped": 1, "open": 2}
    for _ in range(2):
        item = desk.labels.next("ann")
        assert item is not None and item != first
        desk.say("ann", item.id, 1.0)
    assert desk.labels.next("ann") == first and not desk.labels.finished
    desk.say("ann", first.id, 1.0)
    assert desk.labels.next("ann") is None and desk.labels.finished


def test_so_many_people_an_item_and_no_more() -> None:
    desk = Desk(queue(4, per_item=1))
    seen = []
    for author in ("ann", "bo", "ann", "bo"):
        item = desk.labels.next(author)
        assert item is not None
        seen.append(item.id)
        desk.say(author, item.id, 1.0)
    assert sorted(seen) == ["i0", "i1", "i2", "i3"] and desk.labels.left("ann") == desk.labels.left("bo") == 0
    assert desk.labels.next("cy") is None


def test_a_form_that_was_stored_in_part_is_still_open() -> None:
    desk = Desk(queue(2, Judge("answers", "Look.", criteria=(GOOD, KIND))))
    desk.say("ann", "i0", 1.0)
    assert desk.labels.state(desk.queue.items[0], "ann") == "open" and desk.labels.labels() == []
    desk.say("ann", "i0", 2.0, criterion="kind")
    assert desk.labels.state(desk.queue.items[0], "ann") == "labelled" and len(desk.labels.labels()) == 2


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from([0.0, 1.0, SKIPPED, WITHDRAWN]))))
def test_what_one_person_says_never_changes_what_another_said(words: list[tuple[str, int, float | str]]) -> None:
    both, alone = Desk(queue(4)), Desk(queue(4))
    for author, item, word in words:
        value, error = (None, word) if isinstance(word, str) else (word, None)
        both.say(author, f"i{item}", value, error)
        if author == "a":
            alone.say(author, f"i{item}", value, error)
    for item in both.queue.items:
        assert both.labels.of(item, "a").values == alone.labels.of(item, "a").values
        assert both.labels.state(item, "a") == alone.labels.state(item, "a")
    assert both.labels.last("a") == alone.labels.last("a")


def test_scores_of_others_are_no_labels_of_this_queue() -> None:
    desk = Desk(queue())
    about = {QUEUE: "another", CRITERION: "good", ITEM: "i0"}
    desk.scores.append(ScoreRecord("x", "i0", "answers", 1.0, "human", "ann", 0.0, metadata=about))
    desk.scores.append(ScoreRecord("y", "i0", "answers", 1.0, "judge", "m", 0.0, metadata={**about, QUEUE: "q"}))
    desk.scores.append(ScoreRecord("z", "i0", "answers", 1.0, "human", "ann", 0.0))
    assert desk.labels.authors == []


# pairs ----------------------------------------------------------------------------------------------------------------


def test_sides_are_drawn_by_item_and_the_same_for_everybody() -> None:
    one = queue(400, PAIR)
    turned = [one.turned(item) for item in one.items]
    assert 140 < sum(turned) < 260 and turned == [queue(400, PAIR).turned(item) for item in one.items]
    assert turned != [Queue(PAIR, one.items, 4).turned(item) for item in one.items]
    for item in one.items[:20]:
        shown, choices = one.outputs(item), one.choices(item, "preferred")
        left = SECOND if one.turned(item) else FIRST
        assert [heading for heading, _ in shown] == ["A", "B"] and choices[0][:2] == (left, "A is better")
        assert shown[0][1] == item.inputs["output_2" if one.turned(item) else "output_1"]
        assert choices[2][0] == TIE
        # Nothing on the page tells one system from the other.
        assert "old" not in json.dumps([shown, choices]) and "new" not in json.dumps([shown, choices])


def test_people_begin_at_different_items() -> None:
    one = queue(100)
    orders = [[item.id for item in one.order(author)] for author in ("ann", "bo")]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert orders[0] == [item.id for item in one.order("ann")]


# agreement ------------------------------------------------------------------------------------------------------------


def test_agreement_of_three_people() -> None:
    desk = Desk(queue(40))
    for n, item in enumerate(desk.queue.items):
        desk.say("ann", item.id, n % 2)
        desk.say("bo", item.id, n % 2 if n % 5 else 1 - n % 2)
        if n < 10:
            desk.say("cy", item.id, n % 2)
    found = agreement(desk.labels, GOOD)
    assert found.items == found.shared == 40 and found.alpha is not None and found.alpha.low < found.alpha.estimate
    two = {(one.first, one.second): one for one in found.two}
    assert two["ann", "bo"].same == 0.8 and two["ann", "bo"].kappa == pytest.approx(0.6)
    assert two["ann", "cy"].items == 10 and two["ann", "cy"].kappa == pytest.approx(1.0)
    different = disagreements(desk.labels)
    assert len(different) == 8 and all(one.values["ann"] != one.values["bo"] for one in different)


def test_what_nobody_shares_or_all_say_has_no_agreement() -> None:
    desk = Desk(queue())
    desk.say("ann", "i0", 1.0)
    assert agreement(desk.labels, GOOD).alpha is None and agreement(desk.labels, GOOD).shared == 0
    desk.say("bo", "i0", 1.0)
    found = agreement(desk.labels, GOOD)
    assert found.alpha is None and found.two[0].kappa is None and found.two[0].same == 1.0
    assert outcome(Desk(queue()).labels, GOOD) is None


def test_what_people_say_over_all() -> None:
    desk = Desk(queue(10))
    for n, item in enumerate(desk.queue.items):
        desk.say("ann", item.id, float(n < 7))
    found = outcome(desk.labels, GOOD)
    assert found is not None and found.estimate == 0.7 and found.method == "wilson"
    desk.say("bo", "i0", 0.0)
    found = outcome(desk.labels, GOOD)
    assert found is not None and found.estimate == pytest.approx(0.65)


# values ---------------------------------------------------------------------------------------------------------------


def test_a_queue_is_the_same_after_a_file() -> None:
    for one in (queue(3, PAIR), queue(3, per_item=2)):
        again = Queue.from_json(json.loads(json.dumps(one.to_json())), [asdict(item) for item in one.items], "x")
        assert again == one


def test_a_queue_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="no items"):
        Queue(RUBRIC, [])
    with pytest.raises(InputError, match="'a' stands in the queue twice"):
        Queue(RUBRIC, [Item("a", {}), Item("a", {})])
    with pytest.raises(InputError, match="0 people"):
        Queue(RUBRIC, [Item("a", {})], per_item=0)
    with pytest.raises(InputError, match="has no item 'b'"):
        Queue(RUBRIC, [Item("a", {})]).item("b")
