"""What does a gateway add to a call, and how many calls does one core carry? Ours against the LiteLLM proxy.

A fake provider on loopback answers at once. Clients ask it directly, through windlass, and through LiteLLM, in turns.
Each gateway runs in a process of its own on one core; provider and clients share another. "added" is the time of a
call through the gateway less that of a direct one, one call at a time: medians and 99th percentiles. Requests per
second are with 32 clients. Ours records a trace of every call in SQLite; LiteLLM is not asked to record anything.

"+ key" are the same with clients that need a key: ours one of the workspace, with limits on requests, tokens and
dollars, whose use is counted and stored; LiteLLM's the master key of its configuration, without limits, since it keeps
others in a database.

    python -m bench.gateway [--rounds 5] [--litellm PATH] [--memory 100000]

`--litellm` is the `litellm` command of an environment of its own (`pip install "litellm[proxy]"`); by default the one
on the PATH. `--memory N` also sends N requests with a key through ours and prints its resident memory along the way.
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

from windlass.serve.keys import FILE, KeyLimits, Keys

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


def _request(port: int, body: bytes, key: str) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (port, key.encode(), len(body), body)
    )


async def _ask(contender: Contender, body: bytes, clients: int, calls: int) -> tuple[list[float], float]:
    """(seconds of each call, seconds of all)."""
    loop, port = asyncio.get_running_loop(), contender.port
    request = _request(port, body, contender.key)
    made = [await loop.create_connection(lambda: _Client(request), "127.0.0.1", port) for _ in range(clients)]

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
    key: str = "sk-client"
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
    asyncio.run(_ask(contender, BODY, CLIENTS, CLIENTS * 2))  # connections and caches belong to the start
    contender.alone.append(asyncio.run(_ask(contender, BODY, 1, contender.calls))[0])
    before = _cpu(contender)
    took, seconds = asyncio.run(_ask(contender, BODY, CLIENTS, contender.calls))
    contender.rates.append(len(took) / seconds)
    contender.cpu.append((_cpu(contender) - before) / len(took))
    took, seconds = asyncio.run(_ask(contender, STREAMED, CLIENTS, max(contender.calls // 8, CLIENTS)))
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
    (folder / ".windlass").mkdir(exist_ok=True)
    (folder / "gateway.toml").write_text(
        f'[providers.fake]\nbase_url = "http://127.0.0.1:{provider}/v1"\n'
        '[routes.m]\ntargets = [{ provider = "fake", model = "small", price = { input = 1, output = 2 } }]\n'
    )
    command = [sys.executable, "-m", "windlass.cli.main", "gateway", "gateway.toml", "--port", str(port)]
    return _started(command, port, core, folder, PYTHONPATH=os.pathsep.join((str(ROOT / "src"), *sys.path)))


def _workspace_key(folder: Path) -> str:
    """The secret of a key with limits of every kind, none of which is reached."""
    (folder / ".windlass").mkdir()
    with contextlib.closing(Keys(folder / ".windlass" / FILE)) as keys:
        return keys.add("bench", ["generate"], KeyLimits(10**9, 10**12, 10**12, 1e9, 1e9))[1]


def _litellm(
    program: str, folder: Path, provider: int, port: int, core: int, key: str | None = None
) -> contextlib.AbstractContextManager[Any]:
    (folder / "litellm.yaml").write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/small\n"
        f"      api_base: http://127.0.0.1:{provider}/v1\n      api_key: sk-provider\n"
        + (f"general_settings:\n  master_key: {key}\n" if key else "")
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
    print(" " * 16 + "".join(f"{head:>{width}}" for head, width in (*heads, ("tokens/s", 11))))
    for one in contenders:
        added = [one.p(share) - direct.p(share) for share in (0.5, 0.99)]
        shown = [f"{seconds * 1e3:.3f}" if one is not direct else "" for seconds in added]
        cpu = f"{statistics.median(one.cpu) * 1e6:.0f}" if one is not direct else ""
        print(
            f"{one.name:16}{one.p(0.5) * 1e3:9.3f}{one.p(0.99) * 1e3:9.3f}{shown[0]:>11}{shown[1]:>11}"
            f"{statistics.median(one.rates):12.0f}{cpu:>9}{statistics.median(one.streams):11.0f}"
        )


def _ratios(ours: Contender, theirs: Contender, direct: Contender) -> tuple[float, float, float, float]:
    """Ours over theirs: added median, added 99th percentile, requests a second, streamed tokens a second."""
    added, p99 = (
        round((ours.p(share) - direct.p(share)) / (theirs.p(share) - direct.p(share)), 4) for share in (0.5, 0.99)
    )
    rates = statistics.median(ours.rates) / statistics.median(theirs.rates)
    streams = statistics.median(ours.streams) / statistics.median(theirs.streams)
    return added, p99, round(rates, 2), round(streams, 2)


def _memory(contender: Contender, requests: int) -> float:
    """Prints resident memory while `requests` go through; returns bytes gained per request in the second half."""
    assert contender.process is not None
    seen = []
    for number in range(11):
        if number:
            asyncio.run(_ask(contender, BODY, CLIENTS, requests // 10))
        seen.append(_resident(contender.process))
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
    provider = _free_port()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def place(name: str) -> tuple[Path, int, int, int]:
            (home / name).mkdir()
            return home / name, provider, _free_port(), cores[0]

        path = os.pathsep.join((str(ROOT), str(ROOT / "src")))
        fake = [sys.executable, "-m", "bench.gateway", "--provide", str(provider)]
        stack.enter_context(_started(fake, provider, cores[-1], home, PYTHONPATH=path))
        contenders = [Contender("direct", provider, args.calls)]
        for name in ("windlass", "windlass + key"):
            where = place(name)
            key = _workspace_key(where[0]) if "key" in name else "sk-client"
            contenders.append(Contender(name, where[2], args.calls, stack.enter_context(_windlass(*where)), key))
        for name in ("LiteLLM", "LiteLLM + key") if args.litellm else ():
            where = place(name)
            made = stack.enter_context(_litellm(args.litellm, *where, key="sk-client" if "key" in name else None))
            contenders.append(Contender(name, where[2], max(args.calls // 4, CLIENTS), made))
        for _ in range(args.rounds):
            for contender in contenders:
                _measure(contender)
        _table(contenders)
        result: dict[str, Any] = {"bench": "gateway", "ratio": None, "against": "LiteLLM proxy"}
        direct, plain, keyed, *peers = contenders
        result["key_cpu_ratio"] = round(statistics.median(keyed.cpu) / statistics.median(plain.cpu), 2)
        if peers:
            names = "ratio", "p99_ratio", "rps_ratio", "stream_ratio"
            result |= dict(zip(names, _ratios(plain, peers[0], direct), strict=True))
            with_key = _ratios(keyed, peers[1], direct)
            result |= {f"key_{name}": value for name, value in zip(names, with_key, strict=True)}
        else:
            result["why"] = "no litellm command; name one with --litellm"
        if args.memory:
            result["bytes_per_request"] = round(_memory(keyed, args.memory), 1)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
