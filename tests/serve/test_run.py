"""Ports, signals and shutdown, with real processes where they matter."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("uvicorn")

from serving_fakes import Echo, Slow

from windlass.core.errors import ConfigError, InputError
from windlass.serve.app import create_app
from windlass.serve.run import ServerThread, is_loopback, listen, url


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
        assert slow.started.wait(5)
    thread.join()
    assert answers[0]["choices"][0]["message"]["content"] == "x" * 30
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/health")


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
            assert process.wait(10) == 0, process.stderr.read()
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=1)
        finally:
            process.kill()
