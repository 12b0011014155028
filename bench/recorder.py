"""What does it cost to record a span? Our recorder against the field's, each in a process of its own.

Every span carries 12 GenAI attributes and messages of about 1 KB, stands in a trace of five, and is on disk (WAL,
synced commits) when the clock stops, except where a row says otherwise. CPU is that of all threads of the process,
from the first span to the end of the flush. "blocked" is the median time for which the application's own thread is
held up per span: opening, setting the attributes, closing. Ours also strikes out secrets, the others do not.

    python -m bench.recorder [--spans 5000] [--rounds 5]

Peers are in the extra `bench`. Nobody phones home: their own telemetry is switched off and their exporters write here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "OTEL_SDK_DISABLED": "false"}
LIMIT_RATIO, LIMIT_BLOCKED_US = 0.5, 3.0

MESSAGES = [
    {
        "role": "system",
        "content": "Answer from the documents. Quote them word for word, and say so when they are silent.",
    },
    {
        "role": "user",
        "content": ("How do I read a large file line by line, and what happens if it is not UTF-8? " * 5)[:400],
    },
]
ANSWER = [
    {"role": "assistant", "content": ("Iterate over the open file; it yields one line after another. " * 8)[:480]}
]
BEFORE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4.1-mini",
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.max_tokens": 512,
    "server.address": "api.openai.com",
}
AFTER = {
    "gen_ai.response.id": "chatcmpl-9f8e7d6c5b4a3210",
    "gen_ai.response.model": "gpt-4.1-mini-2025-04-14",
    "gen_ai.usage.input_tokens": 213,
    "gen_ai.usage.output_tokens": 96,
    "gen_ai.conversation.id": "conversation-17",
    "gen_ai.response.time_to_first_chunk": 0.41,
}

Step = Callable[[], None]
"""Records one span as a child of the one that is open."""
Setup = Callable[[Path], contextlib.AbstractContextManager[tuple[Step, Callable[[], Any], Callable[[], int]]]]
"""Gives (record one span, open a root span as a context manager, flush and return how many spans are on disk)."""


@contextlib.contextmanager
def windlass(folder: Path) -> Iterator[tuple[Step, Callable[[], Any], Callable[[], int]]]:
    from windlass.core.sqlite_store import SqliteStore
    from windlass.core.trace import Recorder

    store = SqliteStore(folder / "windlass.db")
    recorder = Recorder(store)

    def step() -> None:
        with recorder.span("generate", "chat", **BEFORE) as span:
            span.input = MESSAGES
            for name, value in AFTER.items():
                span[name] = value
            span.output = ANSWER

    def stored() -> int:
        recorder.flush()
        assert recorder.dropped == 0
        ((count,),) = store.database.read("SELECT count(*) FROM spans WHERE parent_id IS NOT NULL")
        return int(count)

    yield step, lambda: recorder.span("assistant"), stored
    recorder.close()
    store.close()


def opentelemetry(persist: bool) -> Setup:
    @contextlib.contextmanager
    def setup(folder: Path) -> Iterator[tuple[Step, Callable[[], Any], Callable[[], int]]]:
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        database = sqlite3.connect(folder / "otel.db", isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            """CREATE TABLE spans (trace_id TEXT, span_id TEXT, parent_id TEXT, name TEXT, start_ns INTEGER,
            end_ns INTEGER, status TEXT, attributes TEXT, UNIQUE (trace_id, span_id))"""
        )

        class Exporter(SpanExporter):
            count = 0

            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                Exporter.count += sum(s.parent is not None for s in spans)
                if persist:
                    rows = [
                        (
                            f"{s.context.trace_id:032x}",
                            f"{s.context.span_id:016x}",
                            None if s.parent is None else f"{s.parent.span_id:016x}",
                            s.name,
                            s.start_time,
                            s.end_time,
                            s.status.status_code.name,
                            json.dumps(dict(s.attributes or {}), ensure_ascii=False, separators=(",", ":")),
                        )
                        for s in spans
                    ]
                    database.execute("BEGIN IMMEDIATE")
                    database.executemany("INSERT OR REPLACE INTO spans VALUES (?,?,?,?,?,?,?,?)", rows)
                    database.execute("COMMIT")
                return SpanExportResult.SUCCESS

            def shutdown(self) -> None: ...

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Exporter(), max_queue_size=1 << 20, max_export_batch_size=512))
        tracer = provider.get_tracer("bench")

        def step() -> None:
            with tracer.start_as_current_span("generate", attributes=BEFORE) as span:
                span.set_attribute("gen_ai.input.messages", json.dumps(MESSAGES))
                for name, value in AFTER.items():
                    span.set_attribute(name, value)
                span.set_attribute("gen_ai.output.messages", json.dumps(ANSWER))

        def stored() -> int:
            assert provider.force_flush(120_000)
            return Exporter.count

        yield step, lambda: tracer.start_as_current_span("assistant"), stored
        provider.shutdown()
        database.close()

    return setup


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[tuple[Step, Callable[[], Any], Callable[[], int]]]:
    import logging

    logging.disable(logging.WARNING)
    import mlflow as library

    library.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    library.set_experiment("bench")

    def step() -> None:
        with library.start_span("generate", span_type="CHAT_MODEL", attributes=BEFORE) as span:
            span.set_inputs(MESSAGES)
            span.set_attributes(AFTER)
            span.set_outputs(ANSWER)

    def stored() -> int:
        library.flush_trace_async_logging()
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
            ((count,),) = database.execute("SELECT count(*) FROM spans WHERE parent_span_id IS NOT NULL")
        return int(count)

    with library.start_span("warm"):  # creates the database's tables before the clock starts
        pass
    library.flush_trace_async_logging()
    yield step, lambda: library.start_span("assistant"), stored


@contextlib.contextmanager
def langfuse(folder: Path) -> Iterator[tuple[Step, Callable[[], Any], Callable[[], int]]]:
    from langfuse import Langfuse
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        count = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            Nowhere.count += sum(s.parent is not None for s in spans)
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None: ...

    client = Langfuse(
        public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url="http://127.0.0.1:9", span_exporter=Nowhere()
    )

    def step() -> None:
        with client.start_as_current_observation(
            name="generate", as_type="generation", input=MESSAGES, model="gpt-4.1-mini", metadata=BEFORE
        ) as span:
            span.update(output=ANSWER, metadata=AFTER, usage_details={"input": 213, "output": 96})

    def stored() -> int:
        client.flush()
        return Nowhere.count

    yield step, lambda: client.start_as_current_observation(name="assistant"), stored
    client.shutdown()


PEERS: dict[str, tuple[str, Setup, float]] = {
    "windlass": ("windlass, SQLite, secrets struck out", windlass, 1.0),
    "otel-sqlite": ("OpenTelemetry SDK, batch, SQLite", opentelemetry(True), 1.0),
    "otel-nowhere": ("OpenTelemetry SDK, batch, stored nowhere", opentelemetry(False), 1.0),
    "langfuse": ("Langfuse SDK, stored nowhere", langfuse, 0.5),
    "mlflow": ("MLflow tracing, SQLite, asynchronous", mlflow, 0.04),
}
"""Key -> what the row says, how to set it up, share of the spans (the slow ones get fewer)."""

GROUP = 4  # children of each root


def measure(key: str, spans: int) -> dict[str, Any]:
    """Runs in the child process."""
    os.environ.update(OFF)
    _, setup, share = PEERS[key]
    groups = max(int(spans * share) // GROUP, 5)
    with tempfile.TemporaryDirectory() as folder, setup(Path(folder)) as (step, root, stored):
        for _ in range(5):  # imports, threads and connections belong to the start, not to a span
            with root():
                step()
        known = stored()
        blocked: list[int] = []
        clock = time.perf_counter_ns
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(groups):
            with root():
                for _ in range(GROUP):
                    before = clock()
                    step()
                    blocked.append(clock() - before)
        missing = groups * GROUP - (stored() - known)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        total = groups * (GROUP + 1)
        blocked.sort()
        return {
            "spans": total,
            "missing": missing,
            "cpu_us": cpu / total * 1e6,
            "wall_us": wall / total * 1e6,
            "blocked_us": statistics.median(blocked) / 1e3,
            "blocked_p99_us": blocked[len(blocked) * 99 // 100] / 1e3,
        }


def in_own_process(key: str, spans: int) -> dict[str, Any] | str:
    """What `measure` returns, or why it could not."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.recorder", "--one", key, "--spans", str(spans)],
        capture_output=True,
        text=True,
        env={**os.environ, **OFF},
        check=False,
    )
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
    return "not installed" if "ModuleNotFoundError" in reason else reason


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5, help="of ours and of OpenTelemetry with SQLite, in turns")
    parser.add_argument("--one", choices=list(PEERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.spans)))
        return 0
    results: dict[str, list[dict[str, Any]]] = {key: [] for key in PEERS}
    reasons: dict[str, str] = {}
    for round_number in range(args.rounds):
        for key in PEERS:
            if key in reasons or (round_number > 0 and key in ("langfuse", "mlflow")):
                continue
            result = in_own_process(key, args.spans)
            if isinstance(result, str):
                reasons[key] = result
            else:
                results[key].append(result)
    print(f"{'':42}{'CPU/span':>10}{'blocked':>10}{'p99':>10}{'wall/span':>11}{'lost':>6}   (microseconds)")
    for key, (label, _, _) in PEERS.items():
        if results[key]:
            middle = {name: statistics.median(r[name] for r in results[key]) for name in results[key][0]}
            print(
                f"{label:42}{middle['cpu_us']:10.1f}{middle['blocked_us']:10.2f}{middle['blocked_p99_us']:10.1f}"
                f"{middle['wall_us']:11.1f}{max(r['missing'] for r in results[key]):6d}"
            )
        else:
            print(f"{label:42}  {reasons[key]}")
    if not results["windlass"] or not results["otel-sqlite"]:
        print(json.dumps({"bench": "recorder", "ratio": None, "against": "OpenTelemetry SDK + SQLite", "why": reasons}))
        return 1
    ratios = sorted(a["cpu_us"] / b["cpu_us"] for a, b in zip(results["windlass"], results["otel-sqlite"]))
    ratio = statistics.median(ratios)
    blocked = statistics.median(r["blocked_us"] for r in results["windlass"])
    print(f"limits: CPU at most {LIMIT_RATIO} of OpenTelemetry with SQLite, blocked at most {LIMIT_BLOCKED_US} µs")
    summary = {
        "bench": "recorder",
        "ratio": round(ratio, 3),
        "against": "OpenTelemetry SDK + SQLite, CPU per span",
        "low": round(ratios[0], 3),
        "high": round(ratios[-1], 3),
        "blocked_us": round(blocked, 2),
        "holds": ratio <= LIMIT_RATIO and blocked <= LIMIT_BLOCKED_US,
    }
    print(json.dumps(summary))
    return 0 if summary["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
