"""What does a gateway add to a call, and how many calls does one core carry? Ours against the LiteLLM proxy.

A fake provider on loopback answers at once. Clients ask it directly, through windlass, and through LiteLLM, in turns.
Each gateway runs in a process of its own on one core; provider and clients share another. "added" is the time of a
call through the gateway less that of a direct one, one call at a time: medians and 99th percentiles. Requests per
second are with 32 clients. Ours records a trace of every call in SQLite; LiteLLM is not asked to record anything.

    python -m bench.gateway [--rounds 5] [--litellm PATH] [--memory 100000]

`--litellm` is the `litellm` command of an environment of its own (`pip install "litellm[proxy]"`); by default the one
on the PATH. `--memory N` also sends N requests through ours and prints its resident memory along the way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CLIENTS = 32
BODY = json.dumps(
    {
        "model": "m",
        "temperature": 0.2,
        "messages": [
            {"role": "system", "content": "Answer from the documents, and quote them word for word. " * 4},
            {"role": "user", "content": "How do I read a large file line by line? " * 10},
        ],
    }
).encode()
STREAMED = BODY[:-1] + b', "stream": true}'

# the fake provider ----------------------------------------------------------------------------------------------------

_TEXT = "Iterate over the open file; it yields one line after another. " * 8
_USAGE = {"prompt_tokens": 180, "completion_tokens": 100, "total_tokens": 280}
_ABOUT = {"id": "chatcmpl-1", "created": 1, "model": "small"}
_WHOLE = json.dumps(
    {
        **_ABOUT,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()


def _chunk(delta: dict[str, str], finish: str | None = None, **more: Any) -> bytes:
    choices = more.pop("choices", [{"index": 0, "delta": delta, "finish_reason": finish}])
    return (
        b"data: %s\n\n" % json.dumps({**_ABOUT, "object": "chat.completion.chunk", "choices": choices, **more}).encode()
    )


TOKENS = 50
_EVENTS = [
    *(_chunk({"content": f" word{i}"}) for i in range(TOKENS)), _chunk({}, "stop"),
    _chunk({}, choices=[], usage=_USAGE), b"data: [DONE]\n\n",
]  # fmt: skip
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_WHOLE), _WHOLE)
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM = [b"%x\r\n%s\r\n" % (len(event), event) for event in _EVENTS]


class _Provider(asyncio.Protocol):
    """Answers at once; a stream as one write per event, each in a turn of the loop of its own."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._transport.write(_STREAM_HEAD)
                self._next(0)
            else:
                self._transport.write(_ANSWER)

    def _next(self, number: int) -> None:
        if number == len(_STREAM):
            self._transport.write(b"0\r\n\r\n")
            return
        self._transport.write(_STREAM[number])
        asyncio.get_running_loop().call_soon(self._next, number + 1)


async def _provide(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", port)
    await server.serve_forever()


# the clients ----------------------------------------------------------------------------------------------------------


class _Client(asyncio.Protocol):
    """One kept connection that asks again and again; reads just enough to know where an answer ends."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = bytearray()
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self) -> float:
        """Seconds until the last byte of the answer."""
        self._done = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        self._transport.write(self._request)
        await self._done
        return time.perf_counter() - started

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._done is None:
            return
        head = bytes(self._buffer[:end]).lower()
        if not head.startswith(b"http/1.1 200"):
            self._done.set_exception(RuntimeError(bytes(self._buffer[:600]).decode("utf-8", "replace")))
            return
        if b"content-length:" in head:
            complete = len(self._buffer) >= end + 4 + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        else:
            complete = self._buffer.endswith(b"0\r\n\r\n")
        if complete:
            self._buffer.clear()
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("the gateway closed the connection"))


def _request(port: int, body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer sk-client\r\nContent-Length: %d\r\n\r\n%s" % (port, len(body), body)
    )


async def _ask(port: int, body: bytes, clients: int, calls: int) -> tuple[list[float], float]:
    """(seconds of each call, seconds of all)."""
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda: _Client(_request(port, body)), "127.0.0.1", port)) for _ in range(clients)
    ]

    async def work(client: _Client) -> list[float]:
        return [await client.ask() for _ in range(calls // clients)]

    started = time.perf_counter()
    took = await asyncio.gather(*(work(client) for _, client in made))
    seconds = time.perf_counter() - started
    for transport, _ in made:
        transport.abort()
    return [one for some in took for one in some], seconds


# the contenders -------------------------------------------------------------------------------------------------------


@dataclass
class Contender:
    name: str
    port: int
    calls: int
    """Requests of a round with one client; as many again with many."""
    process: subprocess.Popen[bytes] | None = None
    alone: list[list[float]] = field(default_factory=list)
    """Seconds of each call, a list a round."""
    rates: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """CPU seconds of the gateway per request, with many clients."""

    def p(self, share: float) -> float:
        """A percentile of the calls, one at a time: the median of the rounds'."""
        return statistics.median(sorted(one)[int(len(one) * share)] for one in self.alone)


def _measure(contender: Contender) -> None:
    asyncio.run(_ask(contender.port, BODY, CLIENTS, CLIENTS * 2))  # connections and caches belong to the start
    contender.alone.append(asyncio.run(_ask(contender.port, BODY, 1, contender.calls))[0])
    before = _cpu(contender)
    took, seconds = asyncio.run(_ask(contender.port, BODY, CLIENTS, contender.calls))
    contender.rates.append(len(took) / seconds)
    contender.cpu.append((_cpu(contender) - before) / len(took))
    took, seconds = asyncio.run(_ask(contender.port, STREAMED, CLIENTS, max(contender.calls // 8, CLIENTS)))
    contender.streams.append(len(took) * TOKENS / seconds)


def _cpu(contender: Contender) -> float:
    if contender.process is None:
        return 0.0
    fields = Path(f"/proc/{contender.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(process: subprocess.Popen[bytes]) -> int:
    """Bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def _started(command: Sequence[str], port: int, core: int, folder: Path, **environment: str) -> Iterator[Any]:
    """A process on one core that listens on `port`."""
    with open(folder / f"{port}.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start:\n{(folder / f'{port}.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _windlass(folder: Path, provider: int, port: int, core: int) -> contextlib.AbstractContextManager[Any]:
    (folder / ".windlass").mkdir()
    (folder / "gateway.toml").write_text(
        f'[providers.fake]\nbase_url = "http://127.0.0.1:{provider}/v1"\n'
        '[routes.m]\ntargets = [{ provider = "fake", model = "small" }]\n'
    )
    command = [sys.executable, "-m", "windlass.cli.main", "gateway", "gateway.toml", "--port", str(port)]
    return _started(command, port, core, folder, PYTHONPATH=os.pathsep.join((str(ROOT / "src"), *sys.path)))


def _litellm(program: str, folder: Path, provider: int, port: int, core: int) -> contextlib.AbstractContextManager[Any]:
    (folder / "litellm.yaml").write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/small\n"
        f"      api_base: http://127.0.0.1:{provider}/v1\n      api_key: sk-provider\n"
    )
    command = [program, "--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return _started(
        command, port, core, folder, PYTHONPATH="", LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False",
        LITELLM_LOG="ERROR", LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY="true",
    )  # fmt: skip


# the report -----------------------------------------------------------------------------------------------------------


def _table(contenders: Sequence[Contender]) -> None:
    direct = contenders[0]
    heads = ("p50 ms", 9), ("p99 ms", 9), ("added p50", 11), ("added p99", 11), ("requests/s", 12), ("CPU us", 9)
    print(" " * 12 + "".join(f"{head:>{width}}" for head, width in (*heads, ("tokens/s", 11))))
    for one in contenders:
        added = [one.p(share) - direct.p(share) for share in (0.5, 0.99)]
        shown = [f"{seconds * 1e3:.3f}" if one is not direct else "" for seconds in added]
        cpu = f"{statistics.median(one.cpu) * 1e6:.0f}" if one is not direct else ""
        print(
            f"{one.name:12}{one.p(0.5) * 1e3:9.3f}{one.p(0.99) * 1e3:9.3f}{shown[0]:>11}{shown[1]:>11}"
            f"{statistics.median(one.rates):12.0f}{cpu:>9}{statistics.median(one.streams):11.0f}"
        )


def _memory(port: int, process: Any, requests: int) -> float:
    """Prints resident memory while `requests` go through; returns bytes gained per request in the second half."""
    seen = []
    for number in range(11):
        if number:
            asyncio.run(_ask(port, BODY, CLIENTS, requests // 10))
        seen.append(_resident(process))
        print(f"{requests // 10 * number:>9} requests  {seen[-1] / 2**20:8.1f} MiB", flush=True)
    return (seen[-1] - seen[5]) / (requests / 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--calls", type=int, default=1600, help="requests of a round through ours; LiteLLM gets a quarter"
    )
    parser.add_argument("--litellm", default=shutil.which("litellm"), help="the litellm command")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="also send N requests and watch the memory")
    parser.add_argument("--provide", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.provide:
        asyncio.run(_provide(args.provide))
        return 0
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    provider, ours, theirs = (_free_port() for _ in range(3))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        fake = [sys.executable, "-m", "bench.gateway", "--provide", str(provider)]
        stack.enter_context(_started(fake, provider, cores[-1], folder, PYTHONPATH=path))
        gateway = stack.enter_context(_windlass(folder, provider, ours, cores[0]))
        contenders = [Contender("direct", provider, args.calls), Contender("windlass", ours, args.calls, gateway)]
        if args.litellm:
            proxy = stack.enter_context(_litellm(args.litellm, folder, provider, theirs, cores[0]))
            contenders.append(Contender("LiteLLM", theirs, max(args.calls // 4, CLIENTS), proxy))
        for _ in range(args.rounds):
            for contender in contenders:
                _measure(contender)
        _table(contenders)
        result: dict[str, Any] = {"bench": "gateway", "ratio": None, "against": "LiteLLM proxy"}
        direct, windlass, *peer = contenders
        if peer:
            result["ratio"], result["p99_ratio"] = (
                round((windlass.p(share) - direct.p(share)) / (peer[0].p(share) - direct.p(share)), 4)
                for share in (0.5, 0.99)
            )
            result["rps_ratio"] = round(statistics.median(windlass.rates) / statistics.median(peer[0].rates), 2)
            result["stream_ratio"] = round(statistics.median(windlass.streams) / statistics.median(peer[0].streams), 2)
        else:
            result["why"] = "no litellm command; name one with --litellm"
        if args.memory:
            result["bytes_per_request"] = round(_memory(ours, gateway, args.memory), 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
