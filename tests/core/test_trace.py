"""The recorder: nesting, threads, tasks, generators, flush, failures, limits, forks and exits."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from windlass.core.errors import DiskFull, WorkspaceError
from windlass.core.records import SpanRecord
from windlass.core.spans import carried, current_span, marked
from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder, recording


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore(tmp_path / "windlass.db")) as store:
        yield store


class Broken:
    """A store whose disk can be full."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.spans: list[SpanRecord] = []

    def add_spans(self, spans: Iterable[SpanRecord]) -> int:
        if self.error is not None:
            raise self.error
        taken = list(spans)
        self.spans.extend(taken)
        return len(taken)


def test_children_share_the_trace_and_point_at_their_parent(store: SqliteStore) -> None:
    with recording(store) as recorder:
        with recorder.span("assistant") as root:
            with recorder.span("retrieve", "retrieval") as child:
                child["gen_ai.retrieval.top_k"] = 5
            root.output = "answer"
        recorder.flush()
        rows = store.trace(root.trace_id)
    assert [(r.name, r.parent_id) for r in rows] == [("assistant", None), ("retrieve", root.span_id)]
    assert rows[1].attributes == {"gen_ai.retrieval.top_k": 5}
    assert rows[0].output == "answer"
    assert rows[0].start_ns <= rows[1].start_ns <= rows[1].end_ns <= rows[0].end_ns
    assert current_span() is None


def test_an_error_is_recorded_and_passes(store: SqliteStore) -> None:
    with recording(store) as recorder:
        with pytest.raises(ZeroDivisionError), recorder.span("assistant") as span:
            _ = 1 / 0
        recorder.flush()
        (row,) = store.trace(span.trace_id)
    assert (row.status, row.error) == ("error", "ZeroDivisionError: division by zero")


def test_without_a_store_spans_have_ids_and_nest() -> None:
    recorder = Recorder(None)
    with recorder.span("a") as a, recorder.span("b") as b:
        assert len(a.trace_id) == 32
        assert b.trace_id == a.trace_id
        assert b.parent_id == a.span_id
    recorder.flush()
    recorder.close()
    assert recorder.dropped == 0


def test_ids_are_unique_and_well_formed() -> None:
    recorder = Recorder(None)
    seen = set()
    for _ in range(2000):
        with recorder.span("a") as span:
            seen.add((span.trace_id, span.span_id))
    assert len(seen) == 2000
    assert all(len(t) == 32 and len(s) == 16 and int(t, 16) and int(s, 16) for t, s in seen)


def test_marks_stand_on_the_spans_that_begin_a_trace(store: SqliteStore) -> None:
    with recording(store) as recorder:
        with marked({"unit": "u"}):
            with recorder.span("root", own=1) as root, recorder.span("child") as child:
                pass
            begun = recorder.span("begun").begin()
            begun.finish()
        with recorder.span("later") as later:
            pass
    assert (root.attributes, begun.attributes) == ({"own": 1, "unit": "u"}, {"unit": "u"})
    assert child.attributes == later.attributes == {}


def test_marks_of_blocks_in_each_other_add_up(store: SqliteStore) -> None:
    with recording(store) as recorder, marked({"outer": 1, "both": 1}):
        with marked({"inner": 2, "both": 2}), recorder.span("inside") as inside:
            pass
        with recorder.span("after") as after:
            pass
    assert inside.attributes == {"outer": 1, "inner": 2, "both": 2} and after.attributes == {"outer": 1, "both": 1}


def test_threads_join_the_trace_only_when_carried(store: SqliteStore) -> None:
    with recording(store) as recorder:

        def work(number: int) -> str:
            with recorder.span(f"work {number}") as span:
                time.sleep(0.001)
            return span.trace_id

        with ThreadPoolExecutor(4) as pool, recorder.span("root") as root:
            inside = list(pool.map(carried(work), range(20)))
            outside = pool.submit(work, 99).result()
        recorder.flush()
        assert set(inside) == {root.trace_id}
        assert outside != root.trace_id
        assert len(store.trace(root.trace_id)) == 21


def test_tasks_do_not_see_each_others_spans(store: SqliteStore) -> None:
    with recording(store) as recorder:

        async def work(number: int) -> tuple[str, str | None]:
            with recorder.span("outer") as outer:
                await asyncio.sleep(0.001 * (number % 3))
                with recorder.span("inner") as inner:
                    await asyncio.sleep(0)
                return outer.span_id, inner.parent_id

        async def main() -> None:
            with recorder.span("root") as root:
                for outer, parent in await asyncio.gather(*map(work, range(20))):
                    assert outer == parent
            assert root.parent_id is None

        asyncio.run(main())


def test_a_generator_traces_its_steps_without_leaking_its_span(store: SqliteStore) -> None:
    with recording(store) as recorder:

        def stream() -> Iterator[int]:
            span = recorder.span("generate", "chat").begin()
            error: BaseException | None = None
            try:
                for i in range(3):
                    with span.active(), recorder.span(f"step {i}"):
                        pass
                    yield i
            except BaseException as caught:
                error = caught
                raise
            finally:
                span.finish(error)

        with recorder.span("root") as root:
            for _ in stream():
                assert current_span() is root
            stopped = stream()
            next(stopped)
            stopped.close()
        recorder.flush()
        rows = store.trace(root.trace_id)
    generates = [r for r in rows if r.name == "generate"]
    assert [r.parent_id for r in generates] == [root.span_id] * 2
    assert [r.status for r in generates] == ["ok", "ok"]
    assert [r.attributes.get("windlass.stopped_early") for r in generates] == [None, True]
    assert {r.parent_id for r in rows if r.name.startswith("step")} == {r.span_id for r in generates}


def test_a_span_left_in_another_context_still_ends(store: SqliteStore) -> None:
    with recording(store) as recorder:

        def stream() -> Iterator[None]:
            with recorder.span("generate"):
                yield

        steps = stream()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(next, steps).result()
            pool.submit(lambda: list(steps)).result()
        recorder.flush()
        assert [t.root.name for t in store.traces()] == ["generate"]


def test_flush_covers_everything_that_ended_before_it(store: SqliteStore) -> None:
    with recording(store) as recorder:

        def work() -> None:
            for _ in range(50):
                with recorder.span("one") as span:
                    pass
                recorder.flush()
                assert len(store.trace(span.trace_id)) == 1

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work) for _ in range(4)]:
                done.result()
        assert recorder.dropped == 0


def test_spans_are_stored_soon_without_a_flush(store: SqliteStore) -> None:
    recorder = Recorder(store, interval=0.005)
    for pause in (0.0, 0.2):  # the second time the writer has gone to sleep for good
        time.sleep(pause)
        with recorder.span("one") as span:
            pass
        deadline = time.monotonic() + 30
        while not store.trace(span.trace_id):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    recorder.close()


def test_a_failing_store_is_reported_and_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    store: Any = Broken(DiskFull("No space left on the disk."))
    recorder = Recorder(store, interval=0.005)
    with recorder.span("one"), recorder.span("two"):
        pass
    for _ in range(2):
        with pytest.raises(DiskFull, match="No space"):
            recorder.flush()
    time.sleep(0.05)
    assert capsys.readouterr().err.count("not being stored") == 1
    store.error = None
    recorder.flush()
    assert [s.name for s in store.spans] == ["two", "one"]
    recorder.close()
    assert recorder.dropped == 0


def test_close_raises_what_was_lost_and_stops_the_thread(capsys: pytest.CaptureFixture[str]) -> None:
    store: Any = Broken(DiskFull("No space left on the disk."))
    others = set(threading.enumerate())
    recorder = Recorder(store)
    with recorder.span("one"):
        pass
    with pytest.raises(DiskFull, match="No space left"):
        recorder.close()
    assert not [t for t in threading.enumerate() if t.name == "windlass-recorder" and t not in others]
    with recorder.span("late"):
        pass
    assert recorder.dropped == 1
    assert "recorder is closed" in capsys.readouterr().err


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["in one batch", "written before anybody asks"])
def test_a_span_that_cannot_be_stored_does_not_keep_the_others_out(
    store: SqliteStore, capsys: pytest.CaptureFixture[str], pause: float
) -> None:
    def hook(record: SpanRecord) -> SpanRecord:
        if record.input == "bad":
            raise KeyError("no such rule")
        return replace(record, input="seen")

    recorder = Recorder(store, redact=hook)
    for value in ("good", "bad", "good"):
        with recorder.span(f"a {value} one") as span:
            span.input = value
    time.sleep(pause)
    with pytest.raises(WorkspaceError, match="Span 'a bad one' cannot be stored: KeyError"):
        recorder.flush()
    recorder.flush()
    assert [(t.root.name, t.root.input) for t in store.traces()] == [("a good one", "seen")] * 2
    assert recorder.dropped == 1
    recorder.close()
    assert "a bad one" in capsys.readouterr().err


def test_the_queue_is_bounded_and_drops_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    store: Any = Broken(DiskFull("No space left on the disk."))
    recorder = Recorder(store, limit=10)
    for _ in range(25):
        with recorder.span("one"):
            pass
    with pytest.raises(DiskFull):
        recorder.flush()
    assert recorder.dropped == 15
    assert capsys.readouterr().err.count("being dropped") == 1
    store.error = None
    recorder.close()
    assert len(store.spans) == 10


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=60, check=False
    )


PREAMBLE = """
import os, sys
from pathlib import Path
from windlass.core.sqlite_store import SqliteStore
from windlass.core.trace import Recorder
store = SqliteStore(Path(sys.argv[1]))
recorder = Recorder(store, interval=60)
"""


def test_leaving_the_process_flushes(tmp_path: Path) -> None:
    path = tmp_path / "windlass.db"
    done = run(PREAMBLE + "for _ in range(100):\n    with recorder.span('one'): pass", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(SqliteStore(path).traces(limit=1000)) == 100


def test_a_forked_child_records_on_its_own(tmp_path: Path) -> None:
    path = tmp_path / "windlass.db"
    code = """
with recorder.span("parent 1"): pass
pid = os.fork()
if pid == 0:
    for _ in range(10):
        with recorder.span("child"): pass
    recorder.flush()
    os._exit(0)
with recorder.span("parent 2"): pass
assert os.waitpid(pid, 0)[1] == 0
"""
    done = run(PREAMBLE + code, path)
    assert (done.returncode, done.stderr) == (0, "")
    traces = SqliteStore(path).traces(limit=1000)
    names = sorted(t.root.name for t in traces)
    assert names == ["child"] * 10 + ["parent 1", "parent 2"]
    assert len({t.root.trace_id for t in traces}) == 12


def test_closing_twice_is_harmless(store: SqliteStore) -> None:
    recorder = Recorder(store)
    with recorder.span("one"):
        pass
    recorder.close()
    recorder.close()
    recorder.flush()
    assert len(store.traces()) == 1
