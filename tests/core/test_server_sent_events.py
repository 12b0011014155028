"""Events are cut at their ends wherever the network cut them, and no byte is lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core import sse

LINES = st.sampled_from(
    [b"data: {}", b"data:x", b": comment", b"event: a", b"data: [DONE]", b"id: \xc3\xa9", b"data: a\rdata: b"]
)
EVENTS = st.lists(st.tuples(st.lists(LINES, min_size=1, max_size=3), st.sampled_from([b"\n", b"\r\n"])), max_size=6)


@given(EVENTS, st.lists(st.integers(0, 500), max_size=10))
def test_any_cut_gives_the_same_events(parts: list[tuple[list[bytes], bytes]], cuts: list[int]) -> None:
    whole = [end.join(lines) + end + end for lines, end in parts]
    stream = b"".join(whole)
    at = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    buffer, got = bytearray(), list[bytes]()
    for a, b in itertools.pairwise(at):
        buffer += stream[a:b]
        got += sse.cut(buffer)
    assert b"".join(got) + bytes(buffer) == stream
    assert [data for e in got if e.strip() and (data := sse.data_of(e)) is not None] == [
        data for e in whole if (data := sse.data_of(e)) is not None
    ]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: one\n\n", b"one"),
        (b"data:one\r\n\r\n", b"one"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"event: x\ndata: one\n\n", b"one"),
        (b": keep-alive\n\n", None),
        (b"\n\n", None),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes | None) -> None:
    assert sse.data_of(event) == data


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    with pytest.raises(sse.BadEvent, match="longer"):
        list(sse.cut(bytearray(b"data: " + b"x" * 200)))
