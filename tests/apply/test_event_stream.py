"""AWS's binary frames: read whole from any pieces, and no broken one is taken for an event."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.apply.every_provider import message

from windlass.apply.providers.dialects.event_stream import EventStream, read_headers
from windlass.core.sse import BadEvent

names = st.text(st.characters(codec="utf-8"), max_size=12)
objects = st.dictionaries(names, names | st.integers() | st.none(), max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(names, objects), max_size=4), st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_gives_the_same_events(events: list[tuple[str, dict[str, object]]], cuts: list[int]) -> None:
    data = b"".join(message(json.dumps(v).encode(), event_type=name, message_type="event") for name, v in events)
    frames, found, at = EventStream(), [], 0
    for cut in [*sorted(min(c, len(data)) for c in cuts), len(data)]:
        found += [json.loads(text) for text in frames.feed(data[at:cut])]
        at = cut
    found += [json.loads(text) for text in frames.end()]
    assert found == [{name: value} for name, value in events]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_wrong_bit_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(message(b'{"text":"Hello"}', event_type="contentBlockDelta", message_type="event"))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadEvent):
        list(EventStream().feed(bytes(whole)))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_stream_that_ends_inside_of_a_message(data: st.DataObject) -> None:
    whole = message(b"{}", event_type="e", message_type="event")
    frames = EventStream()
    assert list(frames.feed(whole[: data.draw(st.integers(1, len(whole) - 1))])) == []
    with pytest.raises(BadEvent, match="ends inside of a message"):
        list(frames.end())


def test_failures_are_told_as_errors() -> None:
    frames = EventStream()
    data = b"".join(
        (
            message(b'{"message":"Too fast"}', exception_type="throttlingException", message_type="exception"),
            message(b"", error_code="Internal", error_message="Sorry", message_type="error"),
            message(b"<html>", exception_type="serverException", message_type="exception"),
        )
    )
    assert [json.loads(text)["error"]["message"] for text in frames.feed(data)] == [
        "throttlingException: Too fast",
        "Internal: Sorry",
        "serverException: <html>",
    ]
    with pytest.raises(BadEvent, match="unknown type 'greeting'"):
        list(frames.feed(message(b"{}", message_type="greeting")))


def test_headers_of_every_type() -> None:
    def header(name: bytes, kind: int, value: bytes) -> bytes:
        return struct.pack(f">B{len(name)}sB", len(name), name, kind) + value

    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    data = b"".join(header(b"n%d" % kind, kind, b"\xff" * size) for kind, size in sizes.items())
    data += header(b"raw", 6, b"\x00\x02\xff\xff") + header(b"said", 7, b"\x00\x03\xe2\x82\xac")
    assert read_headers(data) == {"said": "€"}
    assert read_headers(b"") == {}
    for broken in (data[:-1], data + b"\x05a", header(b"x", 77, b""), header(b"x", 7, b"\x00\x01\xff"), b"\x01a"):
        with pytest.raises(BadEvent):
            read_headers(broken)


def test_a_length_that_cannot_be_is_refused_before_it_is_waited_for() -> None:
    for length, headers in ((1 << 31, 0), (15, 0), (20, 9)):
        prelude = struct.pack(">II", length, headers)
        with pytest.raises(BadEvent, match="cannot be"):
            list(EventStream().feed(prelude + struct.pack(">I", zlib.crc32(prelude))))
