"""Ports, signals and shutdown, with real processes where they matter."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import io
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

pytest.importorskip("uvicorn")

from serving_fakes import Echo, Slow

from windlass.core.errors import ConfigError, InputError
from windlass.serve import connection
from windlass.serve.app import create_app
from windlass.serve.limits import Limits
from windlass.serve.run import ServerThread, Tls, is_loopback, listen, url


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} on 127.0.0.1 is in use") as caught:
            listen("127.0.0.1", port)
        assert "--port" in caught.value.hint


def test_small_writes_leave_at_once() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("192.0.2.1", 0)])
def test_impossible_addresses_are_explained(host: str, port: int) -> None:
    with pytest.raises(InputError):
        listen(host, port, api_key="k")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_are_let_in_only_with_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="no API key"):
        listen(host, 0)


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""]))


def test_the_printed_address_works_when_listening_everywhere() -> None:
    with listen("0.0.0.0", 0, api_key="k") as listener:
        assert url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_server_gives_back_memory_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = threading.Semaphore(0)
    monkeypatch.setattr("windlass.serve.app.GIVE_BACK_SECONDS", 0.01)
    monkeypatch.setattr("windlass.serve.app.give_back_freed_memory", given.release)
    with ServerThread(create_app({"echo": Echo()}, {})):
        assert all(given.acquire(timeout=60) for _ in range(3))
    while given.acquire(blocking=False):
        pass
    assert not given.acquire(timeout=0.1), "it ends with the server"


def test_leaving_a_server_thread_finishes_what_is_in_flight_and_frees_the_port() -> None:
    slow = Slow(pieces=30, pause=0.02)
    answers = []
    with ServerThread(create_app({"slow": slow, "echo": Echo()}, {})) as server:
        address = server.url

        def ask() -> None:
            body = {"model": "slow", "messages": [{"role": "user", "content": "x"}]}
            answers.append(httpx.post(f"{address}/v1/chat/completions", json=body).json())

        thread = threading.Thread(target=ask)
        thread.start()
        assert slow.started.wait(30)
    thread.join()
    assert answers[0]["choices"][0]["message"]["content"] == "x" * 30
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


def test_a_head_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    with ServerThread(create_app({"echo": Echo()}, {})) as server:
        where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(where, timeout=10) as silent, socket.create_connection(where, timeout=10) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\n")
            began = time.monotonic()
            assert silent.recv(1) == b""
            while True:  # a byte now and then does not buy time
                try:
                    slow.sendall(b"x")
                    time.sleep(0.05)
                    if not slow.recv(1, socket.MSG_DONTWAIT):
                        break
                except BlockingIOError:
                    assert time.monotonic() - began < 30
                except OSError:
                    break
        # a connection that is used is kept
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/health").status_code == 200
            time.sleep(0.5)
            assert client.get("/health").status_code == 200


@pytest.mark.parametrize("count", [1, 2_000])
def test_a_head_that_fills_the_memory_is_cut_off(count: int) -> None:
    with ServerThread(create_app({"echo": Echo()}, {})) as server:
        where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(where, timeout=10) as large:
            large.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            with contextlib.suppress(OSError):
                for number in range(count):
                    large.sendall(f"x-{number}: ".encode() + b"y" * (1_000_000 // count) + b"\r\n")
                large.sendall(b"\r\n")
            answer = b""
            with contextlib.suppress(ConnectionResetError):  # a kernel that has unread bytes takes the answer back
                while piece := large.recv(4096):
                    answer += piece
        assert not answer or (answer.startswith(b"HTTP/1.1 400") and b"more than 65,536 bytes" in answer)
        with httpx.Client(base_url=server.url) as client:  # heads count each by itself
            for _ in range(4):
                assert client.get("/health", headers={"x": "y" * 40_000}).status_code == 200


def test_a_body_that_never_ends_is_cut_off() -> None:
    with ServerThread(create_app({"echo": Echo()}, {}, limits=Limits(body_seconds=0.3))) as server:
        where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(where, timeout=10) as slow:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            answer = slow.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive" in answer


def test_tls(tmp_path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    certificate, key = certified(tmp_path, x509)
    with pytest.raises(InputError, match=r"nothing\.pem is missing"):
        Tls(tmp_path / "nothing.pem", key)
    with pytest.raises(InputError, match="not a certificate"):
        Tls(key, certificate)
    program = [
        sys.executable,
        "-c",
        textwrap.dedent(TLS_PROGRAM),
        str(Path(__file__).parent),
        str(certificate),
        str(key),
    ]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("https://127.0.0.1:")
            trust = ssl.create_default_context(cafile=str(certificate))
            assert httpx.get(f"{address}/health", verify=trust).json()["status"] == "ok"
            with pytest.raises(httpx.TransportError):
                httpx.get(address.replace("https", "http"))
        finally:
            process.kill()


def certified(folder: Path, x509: Any) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, plain))
    return certificate, key


def test_the_log_holds_no_content() -> None:
    log = io.StringIO()
    with ServerThread(create_app({"echo": Echo()}, {}, log=log)) as server:
        body = {"model": "echo", "messages": [{"role": "user", "content": "secret words"}]}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body)
        httpx.get(f"{server.url}/secret/path")
    first, second = map(json.loads, log.getvalue().splitlines())
    assert (first["path"], first["status"], first["id"]) == (
        "/v1/chat/completions", 200, answer.headers["x-request-id"],
    )  # fmt: skip
    assert first["bytes"] == len(answer.content) and second["path"] == "other" and "secret" not in log.getvalue()


TLS_PROGRAM = """
    import sys
    from pathlib import Path
    sys.path[:0] = sys.argv[1:2]
    from serving_fakes import Echo
    from windlass.serve import run
    from windlass.serve.app import create_app

    tls = run.Tls(Path(sys.argv[2]), Path(sys.argv[3]))
    listener = run.listen("127.0.0.1", 0)
    run.run(create_app({"echo": Echo()}, {}), listener, tls=tls,
            on_start=lambda: print(run.url(listener, tls), flush=True))
"""

PROGRAM = """
    import sys
    sys.path[:0] = sys.argv[1:]
    from serving_fakes import Slow
    from windlass.serve import run
    from windlass.serve.app import create_app

    listener = run.listen("127.0.0.1", 0)
    app = create_app({"slow": Slow(pieces=40, pause=0.05)}, {})
    run.run(app, listener, on_start=lambda: print(run.url(listener), flush=True))
    print("closed in order", flush=True)
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stream", [True, False])
def test_a_signal_lets_requests_finish(kind: signal.Signals, stream: bool) -> None:
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(Path(__file__).parent)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            body = {"model": "slow", "messages": [{"role": "user", "content": "x"}], "stream": stream}
            if stream:
                with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=20) as answer:
                    lines = answer.iter_lines()
                    next(lines)
                    os.kill(process.pid, kind)
                    events = [line.removeprefix("data: ") for line in lines if line]
                assert events[-1] == "[DONE]"
                assert "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "x" * 40
            else:
                threading.Timer(0.5, os.kill, (process.pid, kind)).start()
                got = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=20).json()
                assert got["choices"][0]["message"]["content"] == "x" * 40
            assert process.stdout.read() == "closed in order\n"
            assert process.wait(30) == 0, process.stderr.read()
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1)
        finally:
            process.kill()


@pytest.mark.parametrize("round", range(3))
def test_no_accepted_request_is_lost_under_load(round: int) -> None:
    """Eight clients, a new connection for every request; then SIGTERM. Who got in gets the whole answer."""
    code = textwrap.dedent(PROGRAM).replace("pieces=40", "pieces=4").replace("listener, on", "listener, linger=1, on")
    program = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            answered, lost = [], []

            def ask() -> None:
                body = json.dumps({"model": "slow", "messages": [{"role": "user", "content": "x"}]})
                while True:
                    link = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
                    try:
                        link.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
                        answer = json.load(link.getresponse())
                        answered.append(answer["choices"][0]["message"]["content"])
                    except ConnectionRefusedError:
                        return  # turned away: nobody accepted it
                    except (OSError, http.client.HTTPException, ValueError) as error:
                        lost.append(repr(error))
                        return
                    finally:
                        link.close()

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 20
            while len(answered) < 16 and not lost and time.monotonic() < deadline:
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGTERM)
            while (ready := httpx.get(f"{address}/ready")).status_code == 200:
                time.sleep(0.02)
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert ready.headers["connection"] == "close"
            for thread in threads:
                thread.join(30)
            assert lost == []
            assert len(answered) >= 16 and set(answered) == {"xxxx"}
            assert process.wait(30) == 0, process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize(("drain", "signals"), [(0.5, [signal.SIGTERM]), (60, [signal.SIGINT, signal.SIGINT])])
def test_what_is_not_waited_for_is_cut_off_and_counted(drain: float, signals: list[signal.Signals]) -> None:
    """What takes longer than the drain, and everything at a second Ctrl-C; without a traceback."""
    program = textwrap.dedent(PROGRAM).replace("pieces=40", "pieces=400")
    program = program.replace("run.run(app, listener,", f"cut = run.run(app, listener, drain={drain}, linger=0,")
    program = program.replace('"closed in order"', 'f"{cut} cut off"')
    arguments = [sys.executable, "-c", program, str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            body = {"model": "slow", "messages": [{"role": "user", "content": "x"}], "stream": True}
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=20) as answer:
                lines = answer.iter_lines()
                for number in signals:
                    for _ in range(10):  # it has heard the first before the second comes
                        next(lines)
                    os.kill(process.pid, number)
                with pytest.raises(httpx.RemoteProtocolError):
                    list(lines)
            assert process.stdout.read() == "1 cut off\n"
            assert process.stderr is not None and process.stderr.read() == ""
        finally:
            process.kill()
