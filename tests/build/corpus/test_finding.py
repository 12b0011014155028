"""Findings are disjoint, the more certain kind first, and a mask covers just them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.pii import EVERY_KIND, Finding, find, mask
from windlass.build.corpus.pii.finding import _merged

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8)


def plain(kept: list[Finding], more: list[Finding]) -> list[Finding]:
    """By comparing each with each."""
    found = list(kept)
    for one in more:
        if all(one.end <= other.start or other.end <= one.start for other in found):
            found.append(one)
    return sorted(found, key=lambda one: one.start)


@given(SPANS, SPANS)
def test_merging_is_what_comparing_each_with_each_gives(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    def ordered(spans: list[tuple[int, int]]) -> list[Finding]:
        found = [Finding("email", start, start + length) for start, length in spans]
        return sorted(found, key=lambda one: (one.start, -one.end))

    kept = plain([], ordered(first))
    assert list(_merged(kept, ordered(second))) == plain(kept, ordered(second))


def test_of_two_that_overlap_the_more_certain_stands() -> None:
    text = "Write to 8.8.4.4@foo.de today."
    (found,) = find(text, ["email", "ip"])
    assert (found.kind, text[found.start : found.end]) == ("email", "8.8.4.4@foo.de")
    assert mask(text, [found]) == "Write to [EMAIL] today."
    assert EVERY_KIND.index("email") < EVERY_KIND.index("ip")


def test_what_is_no_finding_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind of personal data: shoe_size"):
        find("x", ["shoe_size"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="overlaps the one before it"):
        mask("abcdef", [Finding("ip", 0, 4), Finding("ip", 2, 5)])
