"""A real server under mixed load for minutes: does it leak, get stuck, or answer anything wrong?

    python -m bench.soak [--minutes 10] [--clients 12]

Clients ask for texts, streams, constrained JSON, tool calls, scores and embeddings, with and without adapters, which
come and go meanwhile; they leave in the middle, and send what is no request. Every case is deterministic (greedy, or
with a seed) and was answered once before, by the quiet server: each answer is compared with that one. The model is the
tests' small random one, so that most of the work is the server's own: some thousand requests a minute.

Resident memory is read every second. Its growth is told over the second half, when allocator, caches and interpreter
have grown to what they need, with an interval that knows of steps. In the end nothing may be left: no request in
progress, none in the engine, no position of the cache held. The exit status is 1 where anything of this failed; growth
is for the reader to judge: flat is what has an interval around zero that is narrow.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

from bench._serve_processes import ROOT, Server, windlass_serve

from windlass.evaluate.statistics.intervals import Interval, mean_interval

Json = dict[str, Any]
ADAPTERS = ("first", "second")
MODEL = "model"
OPTIONS = (
    "--policy", "fp32", "--max-batch", "6", "--kv-tokens", "2048", "--running", "16", "--waiting", "16",
    "--body-mb", "1",
)  # fmt: skip
PATIENCE = 60.0
"""Seconds without an answer after which a request is stuck."""
STRETCHES = 12
"""Of the second half, between which growth is measured."""


@dataclass(frozen=True)
class Case:
    name: str
    path: str
    body: Json
    said: Callable[[Json], Any]
    """What must be the same every time."""

    @property
    def adapter(self) -> bool:
        return self.body["model"] in ADAPTERS


def cases(embedder: str | None) -> list[Case]:
    def text(answer: Json) -> Any:
        choice = answer["choices"][0]
        return choice.get("text", choice.get("message")), choice["finish_reason"], answer["usage"]["completion_tokens"]

    def scores(answer: Json) -> list[float]:
        return list(answer["choices"][0]["logprobs"]["token_logprobs"][1:])

    def vectors(answer: Json) -> list[float]:
        return [number for one in answer["data"] for number in one["embedding"]]

    def written(name: str, prompt: str, count: int, **more: Any) -> Case:
        body = {"model": MODEL, "prompt": prompt, "max_tokens": count, "temperature": 0, **more}
        return Case(name, "/v1/completions", body, text)

    def chat(name: str, **more: Any) -> Case:
        messages = [{"role": "user", "content": "the cat sat on the mat"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 60, "temperature": 0, "reasoning_budget": 4, **more}
        return Case(name, "/v1/chat/completions", body, text)

    shared = "the cat sat on the mat, the end. " * 4
    parameters = {
        "type": "object", "properties": {"x": {"type": "integer"}, "y": {"enum": ["left", "right"]}},
        "required": ["x", "y"], "additionalProperties": False,
    }  # fmt: skip
    tool = {"type": "function", "function": {"name": "move", "parameters": parameters, "strict": True}}
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": parameters, "strict": True}}
    return [
        *(written("short", f"number {i}, the cat", 8 + 3 * i) for i in range(4)),
        *(written("long", shared + f"And {i}", 50 + i) for i in range(3)),
        *(written("seeded", shared, 24, temperature=0.9, seed=i) for i in range(3)),
        *(written("adapted", shared + "Then", 20, model=name) for name in ADAPTERS),
        written("several", "the mat", 12, n=3, temperature=0.8, seed=5),
        chat("schema", response_format=schema),
        chat("tool", tools=[tool], tool_choice="required"),
        chat("talk"),
        Case("scored", "/v1/completions", {"model": MODEL, "prompt": shared, "max_tokens": 0, "echo": True,
                                           "logprobs": 2}, scores),
        *([] if embedder is None else [
            Case("embedded", "/v1/embeddings", {"model": embedder, "input": ["the cat", "the mat", shared]}, vectors)
        ]),
    ]  # fmt: skip


def same(said: Any, known: Any) -> bool:
    """Scores and vectors to three decimals: how many texts are read at once shows in the last bits."""
    if isinstance(known, list):
        return len(said) == len(known) and all(abs(a - b) < 1e-3 for a, b in zip(said, known, strict=True))
    return bool(said == known)


BAD: Sequence[tuple[str, bytes, int]] = (
    ("/v1/completions", b'{"model": "model", "prompt"', 400),
    ("/v1/completions", b'{"model": "model", "prompt": "\xff\xfe"}', 400),
    ("/v1/completions", b'{"model": "nobody", "prompt": "x"}', 404),
    ("/v1/completions", b'{"model": "model", "prompt": "x", "max_tokens": "many"}', 400),
    ("/v1/completions", b'{"model": "model", "prompt": "x", "wish": 1}', 400),
    ("/v1/completions", json.dumps({"model": MODEL, "prompt": "long " * 5_000, "max_tokens": 4}).encode(), 400),
    ("/v1/chat/completions", b'{"model": "model", "messages": []}', 400),
    ("/v1/completions", b'{"model": "model", "prompt": "' + b"x" * (1 << 20) + b'"}', 413),
    ("/v1/nowhere", b"{}", 404),
)
"""Path, body, and the status that it must get."""


@dataclass
class Tally:
    """What came of all requests; shared by the clients."""

    answers: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """That are as they should be: refusals of what is bad, places taken, adapters gone."""
    wrong: list[str] = field(default_factory=list)

    def expect(self, right: bool, what: str) -> None:
        if not right:
            self.wrong.append(what)


class Client:
    """One connection at a time, kept while that is possible."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
        self._link: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        answer = self.open(path, body)
        data = answer.read()
        if answer.will_close:
            self.leave()
        return answer.status, data

    def get(self, path: str) -> str:
        assert self._link is None, "for looking on only"
        link = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        link.request("GET", path)
        text = link.getresponse().read().decode()
        link.close()
        return text

    def open(self, path: str, body: bytes) -> http.client.HTTPResponse:
        """An answer of which only the head has been read. Raises `TimeoutError` when nothing comes."""
        if self._link is None:
            self._link = http.client.HTTPConnection(self._address, timeout=PATIENCE)
        self._link.request("POST", path, body, {"Content-Type": "application/json"})
        return self._link.getresponse()

    def leave(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


class Visitor(threading.Thread):
    """One client that asks at random until it is told to stop."""

    def __init__(
        self, url: str, known: Mapping[int, Any], asked: Sequence[Case], tally: Tally, stop: threading.Event, seed: int
    ) -> None:
        super().__init__(name=f"visitor-{seed}")
        self._client, self._known, self._cases, self._tally, self._stop_asking = Client(url), known, asked, tally, stop
        self._draw = random.Random(seed)
        self.failed: BaseException | None = None

    def run(self) -> None:
        ways = [*[self._whole] * 4, *[self._stream] * 4, self._leave_a_stream, self._leave_at_once, self._bad]
        try:
            while not self._stop_asking.is_set():
                self._draw.choice(ways)()
        except BaseException as error:  # noqa: BLE001 - told by the one who started it
            self.failed = error
        finally:
            self._client.leave()

    def _pick(self) -> tuple[int, Case]:
        number = self._draw.randrange(len(self._cases))
        return number, self._cases[number]

    def _whole(self) -> None:
        number, case = self._pick()
        status, data = self._client.post(case.path, json.dumps(case.body).encode())
        if self._refused(case, status, data):
            return
        self._tally.answers[case.name] += 1
        said = case.said(json.loads(data))
        self._tally.expect(same(said, self._known[number]), f"{case.name}: {said} instead of {self._known[number]}")

    def _stream(self) -> None:
        number, case = self._pick()
        if case.name in ("scored", "embedded", "several", "tool"):  # of several pieces, or of none
            return
        answer = self._client.open(case.path, json.dumps({**case.body, "stream": True}).encode())
        data = answer.read()
        if self._refused(case, answer.status, data):
            return
        self._tally.answers[f"{case.name}, streamed"] += 1
        chunks = [json.loads(line) for line in re.findall(rb"data: (\{.*\})", data)]
        pieces = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
        text = "".join(one.get("text") or one.get("delta", {}).get("content") or "" for one in pieces)
        whole = self._known[number][0]
        expected = whole if isinstance(whole, str) else whole["content"] or ""
        ended = data.endswith(b"data: [DONE]\n\n") and pieces[-1]["finish_reason"] == self._known[number][1]
        self._tally.expect(text == expected and ended, f"{case.name}, streamed: {text!r} instead of {expected!r}")

    def _leave_a_stream(self) -> None:
        _, case = self._pick()
        if case.name == "embedded":
            return
        answer = self._client.open(case.path, json.dumps({**case.body, "stream": True}).encode())
        if answer.status == 200:
            answer.read(self._draw.randrange(1, 2_000))
            self._tally.answers["left, streamed"] += 1
        self._client.leave()

    def _leave_at_once(self) -> None:
        _, case = self._pick()
        link = http.client.HTTPConnection(self._client._address, timeout=PATIENCE)
        link.request("POST", case.path, json.dumps(case.body), {"Content-Type": "application/json"})
        time.sleep(self._draw.random() * 0.05)
        link.close()
        self._tally.answers["left"] += 1

    def _bad(self) -> None:
        path, body, status = self._draw.choice(BAD)
        try:
            found, data = self._client.post(path, body)
        except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            self._client.leave()
            self._tally.expect(status == 413, f"{path}: the connection broke")
            return
        self._tally.errors[str(found)] += 1
        self._tally.expect(found == status and b'"message"' in data, f"{path}, {body[:60]!r}: {found}, {data[:200]!r}")

    def _refused(self, case: Case, status: int, data: bytes) -> bool:
        if status == 200:
            return False
        self._tally.errors[str(status)] += 1
        fine = status == 429 or (status == 404 and case.adapter)
        self._tally.expect(fine, f"{case.name}: {status}, {data[:200]!r}")
        return True


def swap(url: str, folder: Path, tally: Tally, stop: threading.Event) -> None:
    """Loads and unloads the adapters in turns."""
    client, draw = Client(url), random.Random(0)
    while not stop.wait(draw.random()):
        name = draw.choice(ADAPTERS)
        body = {"lora_name": name, "lora_path": str(folder / name)}
        status, data = client.post("/v1/load_lora_adapter", json.dumps(body).encode())
        taken = status == 400 and b"name_taken" in data
        if taken:
            status, data = client.post("/v1/unload_lora_adapter", json.dumps({"lora_name": name}).encode())
        tally.answers["unloaded" if taken else "loaded"] += 1
        tally.expect(status == 200, f"swapping {name}: {status}, {data[:200]!r}")
    client.leave()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_models(folder)
        options = [*OPTIONS, "--adapters-dir", str(folder / "adapters")]
        with windlass_serve(folder / MODEL, 2, *options) as server:
            return soak(server, folder / "adapters", minutes=args.minutes, clients=args.clients)


def make_models(folder: Path) -> None:
    """The tests' small model that calls tools, and two adapters for it."""
    sys.path.insert(0, str(ROOT / "tests" / "serve"))
    from engine_world import make_calling_folder, make_lora

    make_calling_folder(folder / MODEL)
    for number, name in enumerate(ADAPTERS):
        path = make_lora(folder / "adapters" / name) / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * (number + 1)}))


def soak(server: Server, adapters: Path, *, minutes: float, clients: int) -> int:
    listed = [one["id"] for one in json.loads(Client(server.url).get("/v1/models"))["data"]]
    embedder = next((name for name in listed if name != MODEL), None)
    if embedder is None:
        print("The server has no embedder; its endpoint is left out.")
    asked, tally, stop = cases(embedder), Tally(), threading.Event()
    known = quiet_answers(server.url, asked, adapters)
    print(f"{len(asked)} cases answered by the quiet server; now {clients} clients for {minutes:g} minutes", flush=True)
    visitors = [Visitor(server.url, known, asked, tally, stop, seed) for seed in range(clients)]
    swapper = threading.Thread(target=swap, args=(server.url, adapters, tally, stop))
    for thread in (*visitors, swapper):
        thread.start()
    memory, threads = watch(server, tally, minutes * 60), server.threads()
    stop.set()
    for thread in (*visitors, swapper):
        thread.join(2 * PATIENCE)
    stuck = sum(thread.is_alive() or isinstance(thread.failed, TimeoutError) for thread in visitors)
    failures = [repr(one.failed) for one in visitors if one.failed is not None]
    left = left_over(server.url)
    return report(tally, memory, threads, stuck, failures, left)


def quiet_answers(url: str, asked: Sequence[Case], adapters: Path) -> dict[int, Any]:
    """What each case says when nothing else happens, asked twice: it must be deterministic."""
    client = Client(url)
    for name in ADAPTERS:
        body = {"lora_name": name, "lora_path": str(adapters / name)}
        status, data = client.post("/v1/load_lora_adapter", json.dumps(body).encode())
        assert status == 200, data
    known = {}
    for number, case in enumerate(asked):
        found = [client.post(case.path, json.dumps(case.body).encode()) for _ in range(2)]
        said = [case.said(json.loads(data)) for status, data in found if status == 200]
        if len(said) != 2 or not same(*said):
            raise SystemExit(f"{case.name} is no case: {found}")
        known[number] = said[0]
    client.leave()
    return known


def watch(server: Server, tally: Tally, seconds: float) -> list[tuple[float, int]]:
    """(seconds, bytes resident) every second; prints them now and then."""
    started, seen = time.monotonic(), []
    print(f"{'s':>6}{'requests':>10}{'refused':>9}{'wrong':>7}{'MiB':>9}")
    while (now := time.monotonic() - started) < seconds:
        seen.append((now, server.resident()))
        if len(seen) % max(int(seconds / 12), 5) == 1:
            counts = tally.answers.total(), tally.errors.total(), len(tally.wrong)
            print(f"{now:6.0f}{counts[0]:10}{counts[1]:9}{counts[2]:7}{seen[-1][1] / 2**20:9.1f}", flush=True)
        time.sleep(1.0)
    return seen


def left_over(url: str) -> dict[str, float]:
    """What is still there half a minute after the last client has gone."""
    until = time.monotonic() + 30
    while True:
        text = Client(url).get("/metrics")
        found = {"in progress": sum(map(float, re.findall(r"^windlass_requests_in_progress\S* (\S+)$", text, re.M)))}
        for figure in ("waiting", "running", "kv_held"):
            values = re.findall(rf'^windlass_engine\{{[^}}]*figure="{figure}"[^}}]*\}} (\S+)$', text, re.M)
            if not values:
                raise SystemExit(f"the server's metrics do not say '{figure}'")
            found[figure] = sum(map(float, values))
        if not any(found.values()) or time.monotonic() > until:
            return {name: value for name, value in found.items() if value}
        time.sleep(0.2)


def growth(memory: Sequence[tuple[float, int]]) -> Interval:
    """Bytes a minute over the second half: the mean of what came from each stretch to the next, between their means.

    Memory grows in steps, such as the first work of a further thread. A regression over the seconds takes the hundreds
    of readings behind one step for as many independent ones, and its interval would be far too narrow.
    """
    half = memory[len(memory) // 2 :]
    count = min(STRETCHES, len(half))
    edges = [len(half) * number // count for number in range(count + 1)]
    means = [fmean(there for _, there in half[first:end]) for first, end in pairwise(edges)]
    minutes = (half[-1][0] - half[0][0]) / 60 / count
    return mean_interval([(later - before) / minutes for before, later in pairwise(means)])


def report(
    tally: Tally,
    memory: Sequence[tuple[float, int]],
    threads: int,
    stuck: int,
    failures: Sequence[str],
    left: Mapping[str, float],
) -> int:
    grown, resident = growth(memory), memory[-1][1]
    print("\nanswered: " + ", ".join(f"{name} {count}" for name, count in sorted(tally.answers.items())))
    print("refused:  " + ", ".join(f"{status} {count}" for status, count in sorted(tally.errors.items())))
    for line in (*tally.wrong[:10], *failures[:10]):
        print(f"WRONG     {line}")
    if left:
        print(f"LEFT      {dict(left)}")
    slope, *around = (bytes / 1024 for bytes in (grown.estimate, grown.low, grown.high))
    minutes = memory[-1][0] / 120
    print(f"memory:   {slope:+.0f} KiB a minute over the last {minutes:.0f} [{around[0]:+.0f}, {around[1]:+.0f}]")
    result = {
        "bench": "soak",
        "ratio": round(grown.estimate / resident, 6),
        "against": "resident memory: growth a minute over the second half",
        "slope_kb_min": round(slope, 1),
        "slope_interval": [round(end, 1) for end in around],
        "resident_mb": round(resident / 2**20, 1),
        "threads": threads,
        "requests": tally.answers.total() + tally.errors.total(),
        "answers": dict(tally.answers),
        "errors": dict(tally.errors),
        "wrong": len(tally.wrong),
        "stuck": stuck,
        "failed": len(failures),
        "left": dict(left),
        "seconds": round(memory[-1][0], 1),
    }
    print(json.dumps(result))
    return 1 if tally.wrong or stuck or failures or left else 0


if __name__ == "__main__":
    sys.exit(main())
