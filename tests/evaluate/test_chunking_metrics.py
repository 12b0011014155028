from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.metrics.chunking import Piece, first, overlap, precision_omega

spans = st.tuples(st.sampled_from("ab"), st.integers(0, 30), st.integers(1, 12)).map(
    lambda s: (s[0], s[1], s[1] + s[2])
)
one_page = st.tuples(st.just("a"), st.integers(0, 30), st.integers(1, 12)).map(lambda s: (s[0], s[1], s[1] + s[2]))


def by_intervals(chunks: list[Piece], references: list[Piece]) -> tuple[float, float, float, float]:
    """The published procedure, step by step: each intersection is taken out of what is unused, and the sets of
    intersections and of chunks are merged as they grow. Returns recall, precision, IoU, omega."""
    (page,) = {document for document, _, _ in references}
    unused = [(start, end) for _, start, end in references]
    found: list[tuple[int, int]] = []
    touched: list[tuple[int, int]] = []
    for document, start, end in chunks:
        for _, at, until in references:
            low, high = max(start, at), min(end, until)
            if document != page or low > high:
                continue
            found, touched = union([(low, high), *found]), union([(start, end), *touched])
            unused = [part for left, right in unused for part in without(left, right, low, high)]
    share = total(found)
    held = sum(end - start for _, start, end in chunks)
    wanted = sum(end - start for _, start, end in references)
    omega = share / total(union([*touched, *unused])) if found else 0.0
    return share / wanted, share / held if held else 0.0, share / (held + total(unused)), omega


def union(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def without(left: int, right: int, low: int, high: int) -> list[tuple[int, int]]:
    return [(a, b) for a, b in ((left, min(right, low)), (max(left, high), right)) if a < b]


def total(ranges: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in ranges)


@given(st.lists(spans, max_size=6), st.lists(one_page, min_size=1, max_size=4))
def test_the_published_procedure_gives_the_same_numbers(chunks: list[Piece], references: list[Piece]) -> None:
    recall, precision, iou, omega = by_intervals(chunks, references)
    ours = overlap(chunks, references)
    assert (ours.recall, ours.precision, ours.iou) == pytest.approx((recall, precision, iou))
    assert precision_omega(chunks, references) == pytest.approx(omega)


@given(st.lists(spans, max_size=6), st.lists(spans, min_size=1, max_size=4))
def test_counted_character_by_character(chunks: list[Piece], references: list[Piece]) -> None:
    def characters(pieces: list[Piece]) -> list[tuple[str, int]]:
        return [(document, i) for document, start, end in pieces for i in range(start, end)]

    held, wanted = characters(chunks), characters(references)
    found = len(set(held) & set(wanted))
    missed = sum(character not in set(held) for character in wanted)
    ours = overlap(chunks, references)
    assert ours.recall == pytest.approx(found / len(wanted))
    assert ours.precision == pytest.approx(found / len(held) if held else 0.0)
    assert ours.iou == pytest.approx(found / (len(held) + missed))


def test_a_worked_example() -> None:
    references = [("a", 10, 20), ("a", 40, 50)]
    chunks = [("a", 0, 20), ("b", 0, 30), ("a", 15, 45)]
    ours = overlap(chunks, references)
    assert ours.recall == 15 / 20  # 10..20 and 40..45
    assert ours.precision == 15 / 80  # 15..20 is there twice and costs twice; the other page holds nothing
    assert ours.iou == 15 / (80 + 5)
    assert precision_omega(chunks, references) == 15 / 50  # 0..45, and 45..50 that no chunk holds
    assert precision_omega([("a", 0, 10), ("a", 10, 20)], [("a", 10, 20)]) == 0.5  # the first ends where it begins


def test_equal_tokens_are_read_to_the_last() -> None:
    tokens = {"a": np.array([0, 4, 9, 12, 20]), "b": np.array([1, 3])}
    ranked = [("a", 4, 12), ("b", 0, 5), ("a", 9, 25)]
    assert first(ranked, 2, tokens) == [("a", 4, 12)]
    assert first(ranked, 3, tokens) == [("a", 4, 12), ("b", 0, 3)]
    assert first(ranked, 5, tokens) == [("a", 4, 12), ("b", 0, 5), ("a", 9, 12)]
    assert first(ranked, 99, tokens) == ranked
    with pytest.raises(InputError, match="of 0 tokens"):
        first(ranked, 0, tokens)


def test_what_has_no_score_is_refused() -> None:
    with pytest.raises(InputError, match="without references"):
        overlap([("a", 0, 1)], [])
    with pytest.raises(InputError, match="3:1 of 'a'"):
        overlap([("a", 3, 1)], [("a", 0, 1)])
    with pytest.raises(InputError, match="at 4 of 'a' is empty"):
        precision_omega([], [("a", 4, 4)])
    assert overlap([], [("a", 0, 1)]).recall == 0.0 == precision_omega([], [("a", 0, 1)])
