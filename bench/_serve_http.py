"""What a server adds to its engine: two parts of `bench.serve`. Servers and clients are processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench._serve_processes import Process, llama_server, start, windlass_serve

SERVED = ("--policy", "int8", "--kv-tokens", "8192")
STREAMS, PROMPT, WRITE = 16, 64, 128
PREFIX, TAIL = 1_024, 8
HERE = Path(__file__).parent


def http_share(folder: Path, *, rounds: int, threads: int) -> dict[str, Any]:
    """Tokens a second of 16 streams through HTTP, and of the same requests to the engine alone; both from the first
    request to the last token, reading of the prompts included. The two take turns; medians of the rounds count.

    And what a token costs either of processor time, which a busy machine disturbs less: what is beyond the engine's own
    is the server's, on whichever of the processors.
    """
    task = {"prompt": PROMPT, "write": WRITE}
    written = STREAMS * WRITE
    shares, alone, served, engine_cpu, server_cpu = [], [], [], [], []
    with ExitStack() as stack:
        engine = _helper(stack, "engine", ["_serve_contestants.py", "windlass int8", str(folder), str(threads)])
        server = stack.enter_context(windlass_serve(folder, threads, *SERVED))
        clients = _helper(stack, "clients", ["_serve_clients.py", server.url, folder.name])
        for number in range(rounds + 1):
            ours = _answer(engine, {**task, "batch": STREAMS, "whole": 1})
            before = server.processor_seconds()
            through = _answer(clients, {**task, "streams": STREAMS})["rate"]
            used = server.processor_seconds() - before
            if number:  # the first one only warms up
                shares.append(through / ours["whole"])
                alone.append(ours["whole"])
                served.append(through)
                engine_cpu.append(ours["cpu"] / written * 1e6)
                server_cpu.append(used / written * 1e6)
    print(
        f"\n{folder.name}: {STREAMS} streams of {WRITE} tokens, prompts of {PROMPT}; tokens/s with the prompts' "
        "reading, and microseconds of processors for each token"
    )
    print(f"  engine alone {median(alone):9.0f}{median(engine_cpu):9.0f}")
    print(f"  through HTTP {median(served):9.0f}{median(server_cpu):9.0f}")
    print(
        f"  share        {median(shares):9.3f}   (rounds: {', '.join(f'{share:.2f}' for share in shares)})", flush=True
    )
    return {
        "http_share": round(median(shares), 3),
        "http_tokens_s": round(median(served), 1),
        "http_cpu_us": round(median(server_cpu), 1),
        "engine_cpu_us": round(median(engine_cpu), 1),
    }


def warm_prefix(folder: Path, program: str | None, *, rounds: int, threads: int) -> dict[str, Any]:
    """Seconds to the first token behind a prefix of 1,024 tokens that the server has read before; each request ends
    differently. Ours, and llama-server's with either kind of weights, in turns; the fastest of its two counts."""
    task = {"streams": 1, "prompt": TAIL, "prefix": PREFIX, "write": 1}
    found: dict[str, list[float]] = {}
    cold: dict[str, float] = {}
    with ExitStack() as stack:
        asked: list[tuple[str, Process]] = []
        for name, server in _servers(stack, folder, program, threads):
            asked.append((name, _helper(stack, name, ["_serve_clients.py", server, folder.name])))
        for number in range(rounds + 1):
            for name, clients in asked:
                first = _answer(clients, task)["first"][0]
                if number:
                    found.setdefault(name, []).append(first)
                else:
                    cold[name] = first
    print(f"\n{folder.name}: milliseconds to the first token, {PREFIX} tokens known and {TAIL} new")
    for name, seconds in found.items():
        print(f"  {name:<22}{median(seconds) * 1e3:9.1f}   (nothing known: {cold[name] * 1e3:.0f})")
    peers = [median(seconds) for name, seconds in found.items() if name != "windlass"]
    ours = median(found["windlass"])
    if not peers:
        print("  llama-server is missing: name it with --llama-server")
    print(end="", flush=True)
    return {
        "ttft_ms": round(ours * 1e3, 2),
        "ttft_vs_llama_server": round(ours / min(peers), 3) if peers else None,
    }


def _servers(stack: ExitStack, folder: Path, program: str | None, threads: int) -> Iterator[tuple[str, str]]:
    yield "windlass", stack.enter_context(windlass_serve(folder, threads, *SERVED)).url
    if program is not None:
        for kind in ("f16", "q8_0"):
            server = llama_server(program, folder / f"{kind}.gguf", threads, 2 * PREFIX)
            yield f"llama-server {kind.upper()}", stack.enter_context(server).url


def _helper(stack: ExitStack, name: str, command: Sequence[str]) -> Process:
    made = start(name, [sys.executable, str(HERE / command[0]), *command[1:]], _threads(command))
    if made is None:
        raise SystemExit(f"{name} did not start")
    stack.callback(made.close)
    return made


def _threads(command: Sequence[str]) -> int:
    return int(command[-1]) if command[-1].isdigit() else 1


def _answer(process: Process, task: dict[str, int]) -> dict[str, Any]:
    answer = process.ask(task)
    if answer is None:
        raise SystemExit(f"{process.name} died: {process.last_words()}")
    return answer
