"""Plain calls, waiting and on an event loop, against a server that says exactly what a test wants said."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import ProviderError, TimedOut

CALL = Call("/chat", {"text": "ä" * 10})
BODY = b'{"value": "' + b"x" * 3000 + b'"}'


def good(body: bytes = BODY, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


class Server:
    """Answers the n-th request of all by `say[n]`, the last of them from then on. A `say` writes to the socket itself,
    and says whether the connection goes on."""

    def __init__(self, *say: Callable[[socket.socket], bool], tls: ssl.SSLContext | None = None) -> None:
        self.say, self.tls = say, tls
        self.requests: list[bytes] = []
        self.connections = 0
        self.most = self._open = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        port = self._listening.getsockname()[1]
        return f"https://localhost:{port}/v1" if self.tls else f"http://127.0.0.1:{port}/v1"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(30)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self.tls is not None:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            with self._lock:
                self.connections += 1
                self._open += 1
                self.most = max(self.most, self._open)
            try:
                while (request := self._request(connection)) and self._next(request)(connection):
                    pass
            finally:
                with self._lock:
                    self._open -= 1

    def _next(self, request: bytes) -> Callable[[socket.socket], bool]:
        with self._lock:
            self.requests.append(request)
            return self.say[min(len(self.requests), len(self.say)) - 1]

    def _request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(1 << 16)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(1 << 16)
        return head + b"\r\n\r\n" + body


def says(data: bytes, *, goes_on: bool = True, pause: float = 0.0, step: int = 1 << 30) -> Any:
    def say(connection: socket.socket) -> bool:
        for at in range(0, len(data), step):
            connection.sendall(data[at : at + step])
            time.sleep(pause)
        return goes_on

    return say


@pytest.fixture(params=["wait", "loop"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with contextlib.ExitStack() as stack:

        def made(*say: Any, **more: Any) -> Server:
            return stack.enter_context(contextlib.closing(Server(*say, **more)))

        yield made


def calls(way: str, server: Server, times: int = 1, within: float | None = None, **settings: Any) -> list[Any]:
    """What so many calls gave, one after the other."""
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), **{"retries": 0, **settings})

    async def many() -> list[Any]:
        try:
            return [await endpoint.apost(CALL, within) for _ in range(times)]
        finally:
            await endpoint.aclose()

    with contextlib.closing(endpoint):
        if way == "loop":
            return asyncio.run(many())
        return [endpoint.post(CALL, within) for _ in range(times)]


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
    b"%x\r\n%b\r\n" % (len(BODY[at : at + 700]), BODY[at : at + 700]) for at in range(0, len(BODY), 700)
)
ANSWERS = {
    "a length": says(good()),
    "chunks": says(CHUNKED + b"0\r\n\r\n"),
    "chunks with trailers": says(CHUNKED + b"0\r\nX-Sum: 1\r\n\r\n"),
    "until it closes": says(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, goes_on=False),
    "drop by drop": says(good(), step=100),
    "packed": says(good(gzip.compress(BODY), b"Content-Encoding: gzip")),
    "after a hint": says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + good()),
    "a created thing": says(good().replace(b"200 OK", b"201 Created")),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("within", [None, 30.0])
def test_every_form_of_answer_is_read(way: str, answer: str, within: float | None, serve: Any) -> None:
    server = serve(ANSWERS[answer])
    assert calls(way, server, 3, within) == [{"value": "x" * 3000}] * 3
    assert server.connections == (3 if answer == "until it closes" else 1)
    assert server.requests[0] == server.requests[2] and CALL.body is not None
    assert server.requests[0].endswith('{"text":"ääääääääää"}'.encode())


BROKEN = {
    "a short content": says(good()[:-10], goes_on=False),
    "a short chunk": says(CHUNKED[:-10], goes_on=False),
    "no last chunk": says(CHUNKED, goes_on=False),
}


@pytest.mark.parametrize("answer", BROKEN)
@pytest.mark.parametrize("within", [None, 30.0])
def test_half_an_answer_is_none(way: str, answer: str, within: float | None, serve: Any) -> None:
    with pytest.raises(ProviderError, match="broke off its answer"):
        calls(way, serve(BROKEN[answer]), within=within)


@pytest.mark.parametrize("said", [b"", b"\x00\x01\x02 no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x" * 200_000])
def test_what_is_no_answer_is_asked_again(way: str, said: bytes, serve: Any) -> None:
    server = serve(says(said, goes_on=False), says(good()))
    assert calls(way, server, retries=1) == [{"value": "x" * 3000}]
    with pytest.raises(ProviderError, match="cannot be reached"):
        calls(way, serve(says(said, goes_on=False)))


def test_a_slow_answer_ends_with_its_time(way: str, serve: Any) -> None:
    begun = time.monotonic()
    with pytest.raises(TimedOut):
        calls(way, serve(says(good(), step=10, pause=0.1)), within=0.5)  # all of it would take half a minute
    assert time.monotonic() - begun < 20


def test_silence_is_not_asked_again(way: str, serve: Any) -> None:
    server = serve(says(b"", pause=1.0, step=1), says(good()))
    silent = serve(lambda connection: time.sleep(1.0) or False)
    with pytest.raises(ProviderError, match="did not answer in time"):
        calls(way, silent, retries=2, timeouts=Timeouts(read=0.2))
    assert len(silent.requests) == 1 and not server.requests


def test_a_connection_that_the_server_closed_is_not_used(way: str, serve: Any) -> None:
    """It closes after each answer and does not say so; the next call finds that out before it sends."""
    server = serve(says(good(), goes_on=False))
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0)

    async def many() -> None:
        for _ in range(3):
            await endpoint.apost(CALL)
            await asyncio.sleep(0.2)
        await endpoint.aclose()

    with contextlib.closing(endpoint):
        if way == "loop":
            asyncio.run(many())
        else:
            for _ in range(3):
                endpoint.post(CALL)
                time.sleep(0.2)
    assert server.connections == 3


def test_a_refusal_before_all_was_sent_is_heard(way: str, serve: Any) -> None:
    refusal = b'HTTP/1.1 413 Too Large\r\nContent-Length: 33\r\n\r\n{"error": {"message": "too much"}}'

    class Early(Server):
        def _request(self, connection: socket.socket) -> bytes:
            return connection.recv(1000)

    with contextlib.closing(Early(says(refusal, goes_on=False))) as server:
        endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0)
        call = Call("/chat", {"text": "x" * 20_000_000})
        with contextlib.closing(endpoint), pytest.raises(ProviderError) as caught:
            asyncio.run(endpoint.apost(call)) if way == "loop" else endpoint.post(call)
    assert caught.value.status in (413, None)  # whether the refusal outran the reset is the network's to say


def test_many_threads_share_few_connections(serve: Any) -> None:
    server = serve(says(good(), pause=0.005))
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0, connections=3)
    came: list[Any] = []
    threads = [
        threading.Thread(target=lambda: came.extend(endpoint.post(CALL)["value"] for _ in range(5))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    endpoint.close()
    assert len(came) == 60 * 1 and server.most <= 3


def test_no_header_can_end_early(way: str, serve: Any) -> None:
    server = serve(says(good()))
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0)
    call = Call("/chat", {}, {"x-team": "a\r\nX-Admin: yes"})
    with contextlib.closing(endpoint), pytest.raises(ProviderError):
        asyncio.run(endpoint.apost(call)) if way == "loop" else endpoint.post(call)
    assert not server.requests


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {cert} "
        "-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here to make a certificate with")
    return cert, key


def test_it_speaks_tls_and_trusts_nobody_else(
    way: str, certificate: tuple[Path, Path], serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = serve(says(good()), tls=context)
    with pytest.raises(ProviderError, match="cannot be reached"):
        calls(way, server)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert calls(way, server, 3) == [{"value": "x" * 3000}] * 3


def test_a_large_answer_comes_whole(way: str, certificate: tuple[Path, Path], serve: Any, monkeypatch: Any) -> None:
    body = b'{"value": "' + b"y" * 8_000_000 + b'"}'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    for tls in (None, context):
        (came,) = calls(way, serve(says(good(body)), tls=tls), within=60.0)
        assert len(came["value"]) == 8_000_000


def test_a_thousand_at_once_on_one_loop(serve: Any) -> None:
    server = serve(says(good(b'{"value": 1}'), pause=0.01))
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0, connections=50)

    async def many() -> list[Any]:
        try:
            return await asyncio.gather(*(endpoint.apost(CALL) for _ in range(300)))
        finally:
            await endpoint.aclose()

    assert asyncio.run(many()) == [{"value": 1}] * 300
    assert server.most <= 50


def test_cancelling_leaves_nothing_behind(serve: Any) -> None:
    answer = says(good())
    server = serve(lambda connection: time.sleep(0.3) or answer(connection))
    endpoint = Endpoint(server.url, ApiKey("NO_SUCH_VARIABLE"), retries=0, connections=1)

    async def work() -> Any:
        for delay in (0.0, 0.001, 0.01, 0.05):
            task = asyncio.ensure_future(endpoint.apost(CALL))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        try:
            return await endpoint.apost(CALL)
        finally:
            await endpoint.aclose()

    assert asyncio.run(work()) == {"value": "x" * 3000}
