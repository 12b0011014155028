"""The lists the studio shows cost the same number of queries however long they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from windlass.core.records import ArtifactRecord, ScoreRecord, SpanRecord
from windlass.core.sqlite_store import SqliteStore


def add_trace(store: SqliteStore, number: int, *, error: bool = False, feedback: float | None = None) -> str:
    trace = f"{number:032x}"
    start = number * 1_000_000_000
    usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2, "windlass.cost.usd": None}
    root = SpanRecord(trace, f"{1:016x}", None, "assistant", "invoke_workflow", start, start + 9, "ok", None, {})
    call = SpanRecord(
        trace,
        f"{2:016x}",
        root.span_id,
        "generate",
        "chat",
        start + 1,
        start + 5,
        "error" if error else "ok",
        "Boom: it broke" if error else None,
        usage,
    )
    store.add_spans([root, call])
    if feedback is not None:
        store.add_score(ScoreRecord(f"s{number}", trace, "feedback", feedback, "user", "me", float(number)))
    return trace


def queries(store: SqliteStore, work: Callable[[], object]) -> int:
    """How many queries `work` runs."""
    seen: list[str] = []
    read = store.database.read

    def counted(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        seen.append(sql)
        return read(sql, parameters)

    store.database.read = counted  # type: ignore[method-assign]
    try:
        work()
    finally:
        store.database.read = read  # type: ignore[method-assign]
    return len(seen)


def test_traces_take_the_same_number_of_queries_however_many_there_are(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    add_trace(store, 1)
    few = queries(store, lambda: store.traces(limit=100))
    for number in range(2, 80):
        add_trace(store, number, feedback=1.0)
    assert len(store.traces(limit=100)) == 79
    assert queries(store, lambda: store.traces(limit=100)) == few <= 4
    store.close()


def test_traces_filter_by_error_and_by_score(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    add_trace(store, 1)
    bad = add_trace(store, 2, error=True)
    liked = add_trace(store, 3, feedback=1.0)
    disliked = add_trace(store, 4, feedback=0.0)

    def ids(**filters: object) -> list[str]:
        return [t.root.trace_id for t in store.traces(**filters)]  # type: ignore[arg-type]

    assert ids(errors=True) == [bad]
    assert ids(errors=False) == [disliked, liked, f"{1:032x}"]
    assert ids(score=("feedback", 1.0, 1.0)) == [liked]
    assert ids(score=("feedback", 0.0, 0.5)) == [disliked]
    assert ids(score=("feedback", 0.0, 1.0)) == [disliked, liked]
    assert ids(score=("other", 0.0, 1.0)) == []
    summary = store.traces(score=("feedback", 0.0, 0.0))[0]
    assert (summary.spans, summary.errors, summary.scores) == (2, 0, {"feedback": 0.0})
    assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == (10, 2, None)
    store.close()


def test_artifacts_of_a_run_with_their_parents_in_two_queries(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "w.db")
    for number in range(30):
        parents = [("corpus", f"{number - 1:064x}"), ("extra", "e" * 64)] if number else []
        run = "run-a" if number % 3 == 0 else "run-b"
        store.add_artifact(ArtifactRecord(f"{number:064x}", "model", "m", 0, float(number), 1, {}, {}, parents, run))
    found = store.artifacts(run="run-a")
    assert [a.digest for a in found] == [f"{number:064x}" for number in range(27, -1, -3)]
    assert found[0].parents == [("corpus", f"{26:064x}"), ("extra", "e" * 64)]
    assert found[-1].parents == []
    assert queries(store, lambda: store.artifacts()) == 2
    store.close()
