"""Reading HTTP answers, against h11 and at every place where they can be cut."""

from __future__ import annotations

import contextlib
import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.serve.gateway.http1 import MAX_HEAD, Malformed, take_head

Pieces = list[bytes]


def read(pieces: Pieces, *, ended: bool = True) -> tuple[int, dict[str, str], bytes, bytes] | None:
    """(status, headers, body, what is left over) of the answer in these pieces; None when it is not complete."""
    buffer, head, body = bytearray(), None, b""
    for piece in pieces:
        buffer += piece
        if head is None:
            head = take_head(buffer)
        if head is not None and not head.body.done:
            body += head.body.take(buffer)
    if head is None:
        return None
    if ended and not head.body.done:
        head.body.end()
    return (head.status, head.headers, body, bytes(buffer)) if head.body.done else None


def by_h11(data: bytes) -> tuple[int, bytes] | None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    status, body = 0, b""
    client.receive_data(data)
    client.receive_data(b"")
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
            return None


def cut_at(data: bytes, places: list[int]) -> Pieces:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


BODIES = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)
FRAMES = st.sampled_from(["length", "chunks", "close"])


def written(frame: str, pieces: Pieces, status: int = 200, extra: bytes = b"") -> bytes:
    body = b"".join(pieces)
    head = b"HTTP/1.1 %d Fine\r\nServer: x\r\n%s" % (status, extra)
    if frame == "length":
        return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    if frame == "close":
        return head + b"\r\n" + body
    chunks = b"".join(b"%X;name=value\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nDigest: later\r\n\r\n"


@given(FRAMES, BODIES, CUTS, st.sampled_from([200, 201, 404, 500]))
def test_any_cut_gives_the_same_answer_as_h11(frame: str, pieces: Pieces, cuts: list[int], status: int) -> None:
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * (len(cuts) % 2) + written(frame, pieces, status)
    got = read(cut_at(data, cuts))
    assert got is not None
    assert (got[0], got[2]) == by_h11(data) == (status, b"".join(pieces))
    assert got[1]["server"] == "x" and got[3] == b""


@given(st.sampled_from(["length", "chunks"]), BODIES, CUTS)
def test_what_follows_an_answer_stays_in_the_buffer(frame: str, pieces: Pieces, cuts: list[int]) -> None:
    got = read([*cut_at(written(frame, pieces), cuts), b"HTTP/1.1 200"])
    assert got is not None and got[2] == b"".join(pieces) and got[3] == b"HTTP/1.1 200"


@given(st.sampled_from(["length", "chunks"]), BODIES.filter(bool), st.data())
def test_an_answer_that_is_cut_off_is_never_whole(frame: str, pieces: Pieces, data: st.DataObject) -> None:
    whole = written(frame, pieces)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with contextlib.suppress(Malformed):
        assert read([cut]) is None


@given(
    st.binary(max_size=200),
    st.sampled_from(["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
def test_nonsense_is_refused_or_waited_for_but_never_crashes(data: bytes, before: str) -> None:
    try:
        read([before.encode() + data])
    except Malformed as problem:
        assert str(problem)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "both a length and chunks"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "two lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "header"),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "header"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02", "not HTTP/1.1"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD, "longer than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n", "longer than it says"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\n", "not a number"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * (MAX_HEAD + 2), "too long"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read([data], ended=False)


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.1 200\r\n", True),
    ],
)
def test_when_a_connection_may_be_used_again(head: bytes, keep: bool) -> None:
    made = take_head(bytearray(head + b"Content-Length: 0\r\n\r\n"))
    assert made is not None and made.keep_alive is keep and made.body.done
