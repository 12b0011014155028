"""What does retrieval cost? Ingest, search under a filter, embedding, memory and PostgreSQL, each beside its peers.

  ingest    a folder of Markdown and reST, from files to what can be searched and lies on the disk: windlass, LlamaIndex
            (SimpleDirectoryReader, SentenceSplitter, VectorStoreIndex) and Haystack (converter, splitter, embedder,
            in-memory store). The same MiniLM weights, chunks of the same size without overlap, batches of 32. Each in
            a new process, with its imports and the loading of the model; they take turns. "work" leaves these out.
  query     100,000 passages with vectors; a hybrid question sees the passages of one tenant among 100. windlass,
            LanceDB (hybrid; with an index of vectors and without one) and Chroma (vectors only: its hybrid search is
            its cloud's). The vectors of the questions are given. "short" counts the answers with fewer than 10
            passages although there are 10, "outside" those that show another tenant's.
  embed     `bench.embed`: texts a second, against sentence-transformers.
  memory    `bench._index_memory`: what a search over a million vectors takes.
  approximate  `bench._approximate`: recall, time and place of quantised vectors and of cells, against looking at all.
  pgvector  `bench._pgvector_path`: our PostgreSQL index against SQL written by hand.

`ratio` is our ingest rate over that of the faster peer, `query_ratio` our median time over that of the fastest peer.
`cpu_ratio` is the former by processor time, which other work on the machine moves less. Where the processor multiplies
bfloat16, `windlass ingest` embeds in it (what that does to rankings: `bench.retrieval --embedder minilm:bfloat16`);
`…_f32` is with `--embedder minilm`, in float32 as the peers, and `…_bf16` ours over Haystack told to use bfloat16 too.

    python -m bench.rag [--parts ingest query embed memory approximate pgvector] [--small] [--peers PYTHON]

`--peers`, or WINDLASS_RAG_PEERS: a Python with what `bench/rag-peers.txt` names; `make rag-peers` builds one in
`.venv-rag-peers`, where it is looked for by default. Nobody phones home.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bench._rag_data import K, passages, write_files

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-rag-peers/bin/python"
PARTS = ("ingest", "query", "embed", "memory", "approximate", "pgvector")
RATIO, QUERY_RATIO, EMBED_RATIO, PGVECTOR_RATIO = 2.0, 0.5, 1.0, 1.2
INGEST = ("windlass", "windlass_f32", "llama_index", "haystack", "haystack_bf16")
QUERY = ("windlass", "lancedb", "lancedb_flat", "chroma")
QUIET = {
    "DO_NOT_TRACK": "1", "ANONYMIZED_TELEMETRY": "False", "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_OFFLINE": "1", "LANCEDB_LOG": "error",
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    documents: int
    rounds: int
    passages: int
    questions: int
    read: int
    """Passages whose vectors are MiniLM's own."""
    turns: int
    embedded: int
    vectors: int


FULL = Size(documents=150, rounds=3, passages=100_000, questions=250, read=4000, turns=5, embedded=2000, vectors=10**6)
SMALL = Size(documents=8, rounds=1, passages=3000, questions=30, read=200, turns=2, embedded=200, vectors=20_000)


# processes ------------------------------------------------------------------------------------------------------------


def ours(name: str) -> bool:
    return name.startswith("windlass")


def _environment() -> dict[str, str]:
    return {**os.environ, **QUIET, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


@dataclass
class Process:
    """A contender, which says a line of JSON at a time."""

    name: str
    process: subprocess.Popen[str]
    said: IO[str]

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Missing(f"{self.name} ended: {self.last()}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, **turn: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `line` says why
            self.process.stdin.write(json.dumps(turn) + "\n")
            self.process.stdin.flush()
        return self.line()

    def last(self) -> str:
        self.said.seek(0)
        return (self.said.read().strip().splitlines() or ["it said nothing"])[-1]


class Missing(Exception):
    """A contender that cannot be measured here, and why."""


@contextlib.contextmanager
def started(python: str, *arguments: str) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                [python, "-m", "bench._rag_contenders", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True, cwd=folder, env=_environment(),
            )  # fmt: skip
        except FileNotFoundError:
            raise Missing(f"there is no {python}") from None
        with process:
            try:
                yield Process(arguments[1], process, said)
            finally:
                process.kill()


# ingest ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    start_s: float
    work_s: float
    cpu_s: float
    """Processor seconds of both, all threads together."""
    documents: int
    chunks: int
    tokens: int
    letters: int
    found: int

    @property
    def seconds(self) -> float:
        return self.start_s + self.work_s


def ingest(size: Size, pythons: Mapping[str, str], missing: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at, "files")
        documents, written = write_files(folder, size.documents)
        turns: dict[str, list[Turn]] = {name: [] for name in INGEST}
        for number in range(size.rounds):
            for name in INGEST:
                if name not in missing:
                    try:
                        turns[name].append(ingested(pythons[name], name, folder, Path(at, f"{name}-{number}")))
                    except Missing as reason:
                        missing[name] = str(reason)
    found = {name: some for name, some in turns.items() if some}
    print(f"\ningest, {documents} documents of {written / 1e6:.1f} MB")
    print(
        f"{'':16}{'documents/s':>12}{'seconds':>9}{'start':>8}{'work':>8}{'CPU':>8}{'chunks':>9}{'letters':>9}{'tokens':>10}"
    )
    for name, some in found.items():
        start, work, whole, cpu = (statistics.median(getattr(t, what) for t in some) for what in _TIMES)
        last = some[-1]
        print(f"{name:16}{last.documents / whole:12.2f}{whole:9.1f}{start:8.1f}{work:8.1f}{cpu:8.1f}", end="")
        print(f"{last.chunks:9,}{last.letters / last.chunks:9.0f}{last.tokens:10,}")
    return ingest_result(found, documents)


_BF16 = ("windlass", "haystack_bf16")
_TIMES = ("start_s", "work_s", "seconds", "cpu_s")


def ingested(python: str, name: str, folder: Path, store: Path) -> Turn:
    began = time.monotonic()
    with started(python, "ingest", name, str(folder), str(store)) as one:
        one.line()
        ready = time.monotonic()
        cpu = one.line()["cpu_s"]
        saved = time.monotonic()
        return Turn(ready - began, saved - ready, cpu, **one.line())


def ingest_result(turns: Mapping[str, Sequence[Turn]], documents: int) -> dict[str, Any]:
    """Raises when a contender lost a document, or cannot find what it saved."""
    for name, some in turns.items():
        for turn in some:
            if turn.documents != documents or turn.found < min(K, turn.chunks):
                raise SystemExit(
                    f"{name} saved {turn.documents} of {documents} documents and finds {turn.found} chunks"
                )
    result: dict[str, Any] = {"ratio": None, "against": None}
    for what, key in (("seconds", "ratio"), ("work_s", "work_ratio"), ("cpu_s", "cpu_ratio")):
        times = {name: [getattr(turn, what) for turn in some] for name, some in turns.items()}
        told = [name for name in times if not ours(name) and name != "haystack_bf16"]
        peer = min(told, key=lambda name: statistics.median(times[name]), default=None)
        if peer is None:
            continue
        for suffix, name, other in (("", "windlass", peer), ("_f32", "windlass_f32", peer), ("_bf16", *_BF16)):
            if name in times and other in times:
                pairs = zip(times[other], times[name], strict=True)
                result[f"{key}{suffix}"] = round(statistics.median(theirs / mine for theirs, mine in pairs), 3)
        if key == "ratio":
            result["against"] = peer
            tokens, theirs = turns["windlass"][0].tokens, turns[peer][0].tokens
            result["tokens_ratio"] = round(tokens / theirs, 3)
    return result


# query ----------------------------------------------------------------------------------------------------------------


@dataclass
class Answers:
    build_s: float
    us: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    short: int = 0
    outside: int = 0
    resident: int = 0

    def add(self, us: Sequence[float], cpu_s: float, short: int, outside: int, resident: int) -> None:
        self.us += us
        self.cpu_s += cpu_s
        self.short += short
        self.outside += outside
        self.resident = resident


def query(size: Size, pythons: Mapping[str, str], missing: dict[str, str]) -> dict[str, Any]:
    answers: dict[str, Answers] = {}
    with tempfile.TemporaryDirectory() as at, contextlib.ExitStack() as stack:
        passages(size.passages, size.questions, size.read).save(Path(at, "passages"))
        running: dict[str, Process] = {}
        each = size.questions // (size.turns + 1)
        for name in QUERY:
            if name in missing:
                continue
            try:
                where = (str(Path(at, "passages")), str(Path(at, name)))
                one = stack.enter_context(started(pythons[name], "query", name, *where))
                answers[name] = Answers(one.line()["build_s"])
                one.ask(first=0, count=each)  # warm: the first questions do not count
                running[name] = one
            except Missing as reason:
                missing[name] = str(reason)
        for turn in range(1, size.turns + 1):
            for name, one in running.items():
                answers[name].add(**one.ask(first=turn * each, count=each))
    answers = {name: answers[name] for name in running}
    print(f"\nhybrid search, {size.passages:,} passages, a filter that leaves 1 %, {size.turns * each} questions")
    print(f"{'':16}{'p50 ms':>9}{'p95 ms':>9}{'CPU ms':>9}{'short':>7}{'outside':>9}{'build s':>9}{'MB':>8}")
    for name, found in answers.items():
        p95 = sorted(found.us)[int(0.95 * len(found.us))]
        print(f"{name:16}{statistics.median(found.us) / 1e3:9.2f}{p95 / 1e3:9.2f}", end="")
        print(f"{found.cpu_s / len(found.us) * 1e3:9.2f}{found.short:7}", end="")
        print(f"{found.outside:9}{found.build_s:9.1f}{found.resident / 2**20:8.0f}")
    return query_result(answers)


def query_result(answers: Mapping[str, Answers]) -> dict[str, Any]:
    p50 = {name: statistics.median(found.us) for name, found in answers.items()}
    result: dict[str, Any] = {"query_ms": {name: round(us / 1e3, 3) for name, us in p50.items()}}
    peer = min((name for name in p50 if not ours(name)), key=lambda name: p50[name], default=None)
    if "windlass" in p50 and peer is not None:
        result |= {"query_ratio": round(p50["windlass"] / p50[peer], 3), "query_against": peer}
    result["under_returned"] = {name: found.short for name, found in answers.items()}
    result["outside"] = {name: found.outside for name, found in answers.items()}
    return result


# what other modules measure -------------------------------------------------------------------------------------------


def told(part: str, module: str, *arguments: str) -> dict[str, Any]:
    """What a module's last line says. Its table is shown."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, env=_environment(), check=False,
        cwd=ROOT,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise Missing((done.stderr.strip().splitlines() or ["it said nothing"])[-1])
    print(f"\n{part}", *(lines[:-1] or lines), sep="\n")
    said: dict[str, Any] = json.loads(lines[-1])
    if said.get("missing"):
        raise Missing(str(said["missing"]))
    return said


def _embed(size: Size) -> dict[str, Any]:
    said = told("embed", "bench.embed", "--passages", str(size.embedded))
    return {"embed_ratio": said["ratio"], "embed_ratio_bf16": said["bfloat16_ratio"]}


def _memory(size: Size) -> dict[str, Any]:
    return {"memory": told("memory", "bench._index_memory", "--vectors", str(size.vectors))}


def _approximate(size: Size) -> dict[str, Any]:
    return {"approximate": told("approximate", "bench._approximate", *(["--small"] if size is SMALL else []))}


def _pgvector(size: Size) -> dict[str, Any]:
    said = told("pgvector", "bench._pgvector_path", *(["--small"] if size is SMALL else []))
    return {"pgvector_ratio": said["ratio"], "pgvector": said}


# the report -----------------------------------------------------------------------------------------------------------


def holds(result: Mapping[str, Any]) -> bool:
    """Whether every bar that was measured is met, and something was."""
    bars = {
        "ratio": lambda found: found >= RATIO,
        "query_ratio": lambda found: found <= QUERY_RATIO,
        "embed_ratio": lambda found: found >= EMBED_RATIO,
        "pgvector_ratio": lambda found: found <= PGVECTOR_RATIO,
        "memory": lambda found: found.get("holds", True),
        "approximate": lambda found: found.get("holds", True),
        "under_returned": lambda found: found.get("windlass", 0) == 0,
        "outside": lambda found: found.get("windlass", 0) == 0,
    }
    met = [bar(result[key]) for key, bar in bars.items() if result.get(key) is not None]
    return bool(met) and all(met)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true", help="minutes less, and figures that say little")
    parser.add_argument("--rounds", type=int, help="of the ingest; default 3")
    parser.add_argument("--peers", default=os.environ.get("WINDLASS_RAG_PEERS", str(PEERS)), help="the peers' Python")
    args = parser.parse_args()
    size = SMALL if args.small else FULL
    if args.rounds:
        size = Size(**{**vars(size), "rounds": args.rounds})
    pythons = {name: sys.executable if ours(name) else args.peers for name in (*INGEST, *QUERY)}
    result: dict[str, Any] = {"bench": "rag", "ratio": None, "against": None}
    missing: dict[str, str] = {}
    parts = {
        "ingest": lambda: ingest(size, pythons, missing),
        "query": lambda: query(size, pythons, missing),
        "embed": lambda: _embed(size),
        "memory": lambda: _memory(size),
        "approximate": lambda: _approximate(size),
        "pgvector": lambda: _pgvector(size),
    }
    for part in args.parts:
        try:
            result |= parts[part]()
        except Missing as reason:
            missing[part] = str(reason)
    if missing:
        result["missing"] = missing
        print("\nmissing: " + "; ".join(f"{name} ({why})" for name, why in missing.items()))
    result["holds"] = holds(result)
    print(f"\nlimits: ingest {RATIO} x, query {QUERY_RATIO} x, embed {EMBED_RATIO} x, pgvector {PGVECTOR_RATIO} x")
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
