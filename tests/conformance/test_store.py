"""What every `Store` promises. A new implementation adds a factory to `OPENERS` and passes all of this.

`open_store(number)` opens the workspace `number`: the same number twice means two doors to one store, as two processes
have them.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError, NotFound, WindlassError, WorkspaceBusy
from windlass.core.records import (
    ArtifactRecord,
    Mark,
    MetricPoint,
    ReleaseRecord,
    RunRecord,
    ScoreRecord,
    SpanRecord,
)
from windlass.core.sqlite_store import SqliteStore
from windlass.core.store import Store

Opener = Callable[[int], Store]

OPENERS: dict[str, Callable[[Path], Opener]] = {
    "sqlite": lambda folder: lambda number: SqliteStore(folder / f"{number}.db"),
}

properties = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=OPENERS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    opened: list[Store] = []
    opener = OPENERS[request.param](tmp_path)

    def open_one(number: int = 0) -> Store:
        opened.append(opener(number))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Opener) -> Store:
    return open_store(0)


_fresh = itertools.count(1)


def hex_of(number: int, digits: int = 64) -> str:
    return f"{number:0{digits}x}"


def artifact(number: int, name: str = "corpus", **changes: Any) -> ArtifactRecord:
    record = ArtifactRecord(
        digest=hex_of(number),
        kind="corpus",
        name=name,
        version=0,
        created=float(number),
        size=10,
        files={"documents.jsonl": hex_of(7)},
        card={"licence": "CC0"},
        parents=(),
    )
    return replace(record, **changes)


def run(identifier: str = "train-1", **changes: Any) -> RunRecord:
    return replace(RunRecord(identifier, "train", "model", "running", 1.0, None, {"depth": 4}, {"pid": 1}), **changes)


def span(trace: int, number: int = 1, parent: int | None = None, **changes: Any) -> SpanRecord:
    record = SpanRecord(
        trace_id=hex_of(trace, 32),
        span_id=hex_of(number, 16),
        parent_id=None if parent is None else hex_of(parent, 16),
        name="assistant" if parent is None else "generate",
        operation="invoke_workflow" if parent is None else "chat",
        start_ns=trace % 1000 * 1_000_000_000 + number,
        end_ns=trace % 1000 * 1_000_000_000 + number + 10,
        status="ok",
        error=None,
        attributes={},
    )
    return replace(record, **changes)


def score(identifier: str, subject: str, value: float | None = 1.0, **changes: Any) -> ScoreRecord:
    return replace(ScoreRecord(identifier, subject, "feedback", value, "user", "ann", 1.0), **changes)


def release(task: str = "assistant", variant: int = 1, **changes: Any) -> ReleaseRecord:
    return replace(ReleaseRecord(0, task, hex_of(variant), None, "promote", "better", None, 5.0), **changes)


# artifacts ------------------------------------------------------------------------------------------------------


def test_versions_count_up_per_name(store: Store) -> None:
    stored = [store.add_artifact(artifact(n, name)) for n, name in enumerate(["a", "a", "b", "a"])]
    assert [r.ref for r in stored] == ["a@1", "a@2", "b@1", "a@3"]
    assert stored[0] == artifact(0, "a", version=1, parents=[])


def test_the_same_content_is_stored_once(store: Store) -> None:
    first = store.add_artifact(artifact(1))
    store.add_artifact(artifact(2))
    again = store.add_artifact(artifact(1, created=99.0, card={"licence": "other"}))
    assert again == first
    assert [r.ref for r in store.artifacts()] == ["corpus@2", "corpus@1"]


def test_the_same_content_may_have_several_names(store: Store) -> None:
    first = store.add_artifact(artifact(1, "a", parents=[("source", hex_of(9))]))
    other = store.add_artifact(artifact(1, "b", run="run-2", card={}))
    assert (other.ref, other.card, other.run) == ("b@1", first.card, first.run)
    assert store.artifact("b") == other
    assert store.artifact("a") == first
    assert store.artifact(first.digest) == first
    assert store.children(hex_of(9)) == [("source", first)]


def test_look_up_by_digest_prefix_name_and_version(store: Store) -> None:
    one = store.add_artifact(artifact(0xABC << 240))
    two = store.add_artifact(artifact(0xABD << 240))
    assert store.artifact(one.digest) == one
    assert store.artifact("corpus@1") == one
    assert store.artifact("corpus") == store.artifact("corpus@latest") == two
    assert store.artifact(one.digest[:16]) == one
    assert store.artifact("corpus@3") is store.artifact("nothing") is store.artifact("corpus@" + "9" * 40) is None
    assert store.artifact(one.digest[:7]) is None, "too short to be meant as a digest"
    assert store.artifact("") is None


def test_an_ambiguous_prefix_and_a_wrong_version_are_refused(store: Store) -> None:
    store.add_artifact(artifact(1))
    store.add_artifact(artifact(2))
    with pytest.raises(InputError, match="more than one"):
        store.artifact("0" * 20)
    with pytest.raises(InputError, match="must be a number"):
        store.artifact("corpus@new")
    with pytest.raises(InputError, match="must be a number"):
        store.artifact("corpus@²")


def test_a_name_that_looks_like_a_digest_is_found_by_name_first(store: Store) -> None:
    store.add_artifact(artifact(0xDEADBEEF << 224, "corpus"))
    named = store.add_artifact(artifact(5, "deadbeef"))
    assert store.artifact("deadbeef") == named


def test_artifacts_are_listed_newest_first_and_filtered(store: Store) -> None:
    for number in range(5):
        store.add_artifact(artifact(number, kind="model" if number % 2 else "corpus", run=f"run-{number % 2}"))
    assert [r.version for r in store.artifacts()] == [5, 4, 3, 2, 1]
    assert [r.version for r in store.artifacts("model")] == [4, 2]
    assert [r.version for r in store.artifacts(name="corpus", limit=2)] == [5, 4]
    assert [r.version for r in store.artifacts(run="run-0")] == [5, 3, 1]
    assert store.artifacts("none") == store.artifacts(name="none") == store.artifacts(run="none") == []


def test_parents_keep_their_order_and_children_are_found(store: Store) -> None:
    parents = [("z", hex_of(1)), ("a", hex_of(2)), ("again", hex_of(1))]
    child = store.add_artifact(artifact(10, parents=parents))
    other = store.add_artifact(artifact(11, parents=[("a", hex_of(1))]))
    assert list(child.parents) == parents
    assert store.children(hex_of(1)) == [("again", child), ("z", child), ("a", other)]
    assert store.children(hex_of(3)) == []


@properties
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), max_size=12))
def test_names_and_versions_are_a_function_of_the_first_additions(open_store: Opener, added: list[Any]) -> None:
    store = open_store(next(_fresh))
    expected: dict[tuple[int, str], int] = {}
    for number, name in added:
        version = expected.setdefault((number, name), 1 + sum(n == name for _, n in expected))
        assert store.add_artifact(artifact(number, name)).ref == f"{name}@{version}"
    for (number, name), version in expected.items():
        found = store.artifact(f"{name}@{version}")
        assert found is not None
        assert found.digest == hex_of(number)
    assert len(store.artifacts()) == len(expected)


# runs -----------------------------------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_went_in(store: Store) -> None:
    store.add_run(run(seed=7, config={"depth": 4, "names": ["ä", "b"]}))
    assert store.run("train-1") == run(seed=7, config={"depth": 4, "names": ["ä", "b"]})
    assert store.run("train-2") is None
    with pytest.raises(InputError, match="train-1"):
        store.add_run(run())


def test_ending_and_taking_up_a_run(store: Store) -> None:
    store.add_run(run())
    store.end_run("train-1", "failed", 9.0, "no luck")
    assert store.run("train-1") == run(status="failed", ended=9.0, message="no luck")
    store.end_run("train-1", "running", None, environment={"pid": 2})
    assert store.run("train-1") == run(environment={"pid": 2})
    with pytest.raises(NotFound, match="no run 'x'"):
        store.end_run("x", "done", 1.0)


def test_runs_are_listed_newest_first(store: Store) -> None:
    for number, kind in enumerate(["train", "index", "train"]):
        store.add_run(run(f"r{number}", kind=kind, started=float(number)))
    store.add_run(run("r3", started=2.0))
    assert [r.id for r in store.runs()] == ["r3", "r2", "r1", "r0"]
    assert [r.id for r in store.runs("train", limit=2)] == ["r3", "r2"]


def test_a_repeated_metric_replaces_the_earlier(store: Store) -> None:
    store.add_run(run())
    store.add_metrics("train-1", [MetricPoint(s, "loss", 9.0 - s, 1.0) for s in (3, 1, 2)])
    store.add_metrics("train-1", [MetricPoint(2, "loss", 5.5, 2.0), MetricPoint(2, "bpb", 1.25, 2.0)])
    store.add_metrics("train-1", [])
    assert [(p.name, p.step, p.value) for p in store.metrics("train-1")] == [
        ("bpb", 2, 1.25),
        ("loss", 1, 8.0),
        ("loss", 2, 5.5),
        ("loss", 3, 6.0),
    ]
    assert store.metrics("train-1", "bpb") == [MetricPoint(2, "bpb", 1.25, 2.0)]
    assert store.metrics("none") == []


def test_a_diverged_loss_is_kept_and_unknown_runs_are_refused(store: Store) -> None:
    store.add_run(run())
    store.add_metrics("train-1", [MetricPoint(1, "loss", math.nan, 1.0), MetricPoint(2, "loss", math.inf, 1.0)])
    assert [str(p.value) for p in store.metrics("train-1")] == ["nan", "inf"]
    with pytest.raises(NotFound, match="no run 'x'"):
        store.add_metrics("x", [MetricPoint(1, "loss", 1.0, 1.0)])


# spans and traces -----------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@properties
@given(st.dictionaries(st.text(max_size=9), json_values, max_size=4), json_values, json_values)
def test_spans_come_back_as_they_went_in(open_store: Opener, attributes: Any, input: Any, output: Any) -> None:
    store = open_store(0)
    sent = span(next(_fresh), attributes=attributes, input=input, output=output, status="error", error="E: ä\x00")
    assert store.add_spans([sent]) == 1
    assert store.trace(sent.trace_id) == [sent]


def test_a_trace_is_ordered_by_start_and_found_by_prefix(store: Store) -> None:
    tree = [span(0xA << 124), span(0xA << 124, 2, 1), span(0xA << 124, 3, 2)]
    store.add_spans(iter(reversed(tree)))
    assert store.trace(tree[0].trace_id) == tree
    assert store.trace("a") == tree
    assert store.trace("b") == []
    store.add_spans([span((0xA << 124) + 1)])
    with pytest.raises(InputError, match="more than one trace"):
        store.trace("a0")


def test_the_same_span_twice_is_stored_once_as_it_was_last(store: Store) -> None:
    store.add_spans([span(1), span(1)])
    store.add_spans([span(1, name="renamed")])
    assert [s.name for s in store.trace(hex_of(1, 32))] == ["renamed"]


def test_a_batch_of_spans_is_stored_whole_or_not_at_all(store: Store) -> None:
    broken = span(2, start_ns=2**70)  # no database has such integers
    with pytest.raises((WindlassError, OverflowError)):
        store.add_spans([span(1), broken])
    assert store.traces() == []
    assert store.add_spans([]) == 0


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("not today")


def test_spans_hold_whatever_applications_put_into_them(store: Store) -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    values = [math.nan, b"\xff\x00", {1: 2, (3, 4): 5}, {"x"}, Odd(), circle, deep, "half \ud800", Path("a/b"), 1 + 2j]
    store.add_spans([span(i + 1, input=v, error="half \ud800", name="half \ud800") for i, v in enumerate(values)])
    back = [t.root.input for t in reversed(store.traces())]
    assert back[:4] == ["nan", {"base64": "/wA=", "bytes": 2}, {"1": 2, "(3, 4)": 5}, ["x"]]
    assert back[4] == "<Odd that cannot be shown: RuntimeError>"
    assert "nested too deeply" in str(back[5])
    assert "nested too deeply" in str(back[6])
    assert back[7:] == ["half ?", "a/b", "(1+2j)"]


def test_secrets_do_not_reach_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", 'quo"ted-value-1')
    key = "sk-proj-abcdefghij0123456789"
    store.add_spans(
        [
            span(
                1,
                input=[{"role": "user", "content": f"my key is {key}."}],
                output={"text": 'it is quo"ted-value-1!'},
                attributes={"http.request.header.authorization": "Bearer abcdef0123456789"},
                error=f"ValueError: bad key {key}",
                status="error",
            )
        ]
    )
    store.add_score(score("s", hex_of(1, 32), comment=f"leaked {key}", metadata={"key": key}))
    store.add_run(run(config={"key": key}, message=key))
    (back,) = store.trace(hex_of(1, 32))
    assert back.input == [{"role": "user", "content": "my key is [redacted]."}]
    assert back.output == {"text": "it is [redacted]!"}
    assert back.attributes == {"http.request.header.authorization": "Bearer [redacted]"}
    assert back.error == "ValueError: bad key [redacted]"
    assert key not in repr(store.scores())
    assert key not in repr(store.runs())


def usage(input: int | None, output: int | None = None, cost: Any = ...) -> dict[str, Any]:
    attributes: dict[str, Any] = {"gen_ai.usage.input_tokens": input, "gen_ai.usage.output_tokens": output}
    return attributes if cost is ... else {**attributes, "windlass.cost.usd": cost}


def test_a_summary_adds_up_the_innermost_calls(store: Store) -> None:
    store.add_spans(
        [
            span(1, 1, attributes=usage(30, 9, 0.5)),  # repeats the sum of what is below, two levels down
            span(1, 2, 1),
            span(1, 3, 2, attributes=usage(10, 4, 0.25), status="error", error="E"),
            span(1, 4, 2, attributes=usage(20, 5, 0.125)),
        ]
    )
    (summary,) = store.traces()
    assert (summary.spans, summary.errors) == (4, 1)
    assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == (30, 9, 0.375)
    assert summary.root == store.trace(hex_of(1, 32))[0]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], (None, None, None)),
        ([usage(5, 1)], (5, 1, None)),
        ([usage(5, 1, None)], (5, 1, None)),
        ([usage(5, 1, 0.0)], (5, 1, 0.0)),
        ([usage(5, 1, 0.5), usage(7, None, None)], (12, 1, None)),
        ([usage(5, 1, 0.5), usage(7, None)], (12, 1, None)),
        ([{"windlass.cost.usd": 0.5}], (None, None, 0.5)),
        ([usage(None, None, 0.5)], (None, None, 0.5)),
        ([{"gen_ai.usage.input_tokens": "many", "windlass.cost.usd": "dear"}], (None, None, None)),
    ],
)
def test_unknown_tokens_and_costs_are_none_never_zero(store: Store, calls: list[Any], expected: Any) -> None:
    store.add_spans([span(1), *(span(1, i + 2, 1, attributes=c) for i, c in enumerate(calls))])
    (summary,) = store.traces()
    assert (summary.input_tokens, summary.output_tokens, summary.cost_usd) == expected


def test_traces_are_listed_newest_first_filtered_and_in_pages(store: Store) -> None:
    for number in range(1, 11):
        store.add_spans([span(number, name="assistant" if number % 2 else "other"), span(number, 2, 1)])
    ids = [hex_of(n, 32) for n in range(10, 0, -1)]
    assert [t.root.trace_id for t in store.traces()] == ids
    assert [t.root.trace_id for t in store.traces(name="assistant")] == ids[1::2]
    assert [t.root.trace_id for t in store.traces(since=8.0)] == ids[:3]
    assert [t.root.trace_id for t in store.traces(limit=3, offset=2)] == ids[2:5]
    assert [t.root.trace_id for t in store.traces(name="assistant", since=5.0, limit=2, offset=1)] == ids[3:7:2]
    assert all(t.spans == 2 for t in store.traces())
    assert store.traces(name="generate") == [], "not a root span's name"


def test_evaluated_items_are_no_traffic(store: Store) -> None:
    prompted = {"windlass.prompt.digest": "a" * 64}
    for number in range(1, 5):
        about = {"windlass.evaluation": "of spring"} if number % 2 else {}
        store.add_spans([span(number, attributes=about), span(number, 2, 1, attributes=prompted)])

    def listed(**filters: Any) -> list[str]:
        return [t.root.trace_id for t in store.traces(**filters)]

    ids = [hex_of(n, 32) for n in range(5)]
    assert listed() == listed(prompt="a" * 64) == [ids[4], ids[2]]
    assert listed(evaluations=True) == [ids[3], ids[1]]
    assert listed(evaluations=None) == ids[4:0:-1]
    assert store.prompt_uses(["a" * 64])["a" * 64].traces == 2
    assert store.trace(ids[1])[0].attributes == {"windlass.evaluation": "of spring"}


def test_traces_filter_by_error_and_score(store: Store) -> None:
    for number in (1, 2, 3):
        failed = number == 2
        store.add_spans(
            [span(number), span(number, 2, 1, status="error" if failed else "ok", error="E" * failed or None)]
        )
    store.add_score(score("a", hex_of(1, 32), 0.0, at=1.0))
    store.add_score(score("b", hex_of(1, 32), 1.0, at=2.0))
    store.add_score(score("c", hex_of(3, 32), None, error="judge failed"))
    assert [t.root.trace_id for t in store.traces(errors=True)] == [hex_of(2, 32)]
    assert [t.root.trace_id for t in store.traces(errors=False)] == [hex_of(3, 32), hex_of(1, 32)]
    assert [t.root.trace_id for t in store.traces(score=("feedback", 0.5, 1.0))] == [hex_of(1, 32)]
    assert store.traces(score=("feedback", 0.25, 0.75)) == []
    assert [dict(t.scores) for t in store.traces()] == [{}, {}, {"feedback": 1.0}], "the latest value, never an error"


def test_what_came_after_a_mark(open_store: Opener) -> None:
    store = open_store(0)
    assert store.mark() == Mark() and store.touched(Mark()) == ([], Mark())
    store.add_spans([span(1), span(2)])
    mark = store.mark()
    assert everything(store, Mark()) == {hex_of(1, 32), hex_of(2, 32)}
    store.add_spans([span(3, start_ns=1), span(1, 2, parent=1)])
    assert {hex_of(3, 32), hex_of(1, 32)} <= everything(store, mark), "a span that ended late, and an early clock"
    mark = store.mark()
    store.add_score(score("s", hex_of(2, 32)))
    store.add_score(score("t", f"{hex_of(1, 32)}/{hex_of(2, 16)}"))
    assert {hex_of(2, 32), hex_of(1, 32)} <= everything(store, mark)
    mark = store.mark()
    assert everything(store, mark) <= {hex_of(1, 32)}, "nothing came but, at most, the last one again"
    store.add_spans([span(1, 2, parent=1, status="error", error="no")])
    assert hex_of(1, 32) in everything(open_store(0), mark), "what is stored once more may have changed"


def everything(store: Store, after: Mark) -> set[str]:
    """As a reader that takes few at a time finds it."""
    found: set[str] = set()
    while True:
        ids, end = store.touched(after, 1)
        found |= set(ids)
        if end == after:
            return found
        after = end


def test_traces_filter_by_id(store: Store) -> None:
    store.add_spans([span(n, name="tone" if n % 2 else "topic") for n in range(1, 9)])
    wanted = [hex_of(n, 32) for n in (2, 3, 5, 77)]
    assert [one.root.trace_id for one in store.traces(ids=wanted)] == [hex_of(n, 32) for n in (5, 3, 2)]
    assert [one.root.trace_id for one in store.traces(ids=wanted, name="tone")] == [hex_of(5, 32), hex_of(3, 32)]
    assert store.traces(ids=[]) == []


def test_who_used_a_prompt(store: Store) -> None:
    one, two, three = (hex_of(number) for number in (1, 2, 3))

    def used(number: int, digest: str, *costs: Any, failed: bool = False) -> None:
        names = {"windlass.prompt.digest": digest}
        error = {"status": "error", "error": "NoAnswer: none"} if failed else {}
        calls = [span(number, i + 2, 1, attributes={**names, "windlass.cost.usd": c}) for i, c in enumerate(costs)]
        store.add_spans([span(number, attributes=names, **error), *calls])

    used(1, one, 0.5, None)
    used(2, one, 0.25, failed=True)
    used(3, one, "dear")
    used(4, two)
    store.add_spans([span(5), span(5, 2, 1, attributes={"windlass.cost.usd": 7.0})])
    store.add_score(score("a", hex_of(1, 32), 0.0, at=1.0))
    store.add_score(score("b", hex_of(1, 32), 1.0, at=2.0))
    store.add_score(score("c", hex_of(2, 32), 0.0, at=1.0))
    store.add_score(score("d", hex_of(3, 32), None, error="judge failed"))
    store.add_score(score("e", hex_of(5, 32), 1.0, at=1.0))
    found = store.prompt_uses([one, two, three])
    assert set(found) == {one, two}, "what nobody used is left out"
    use = found[one]
    assert (use.traces, use.failed, use.calls, use.priced, use.cost_usd) == (3, 1, 4, 2, 0.75)
    assert (use.rated, use.good) == (2, 1), "the newest feedback of each trace, never an error"
    assert use.last == max(s.start_ns for s in store.trace(hex_of(3, 32))) / 1e9
    assert (found[two].traces, found[two].calls, found[two].cost_usd) == (1, 0, None)
    assert (found[two].failed, found[two].rated, found[two].good) == (0, 0, 0)
    assert store.prompt_uses([]) == {}
    assert [t.root.trace_id for t in store.traces(prompt=one)] == [hex_of(n, 32) for n in (3, 2, 1)]
    assert [t.root.trace_id for t in store.traces(prompt=one, errors=True)] == [hex_of(2, 32)]
    assert [t.root.trace_id for t in store.traces(prompt=one, limit=1, offset=1)] == [hex_of(2, 32)]
    assert store.traces(prompt=three) == []


# scores ---------------------------------------------------------------------------------------------------------


def test_scores_come_back_oldest_first_and_filtered(store: Store) -> None:
    late = score("1", "t1", at=9.0, metadata={"correct_document": "d"}, comment="näh")
    early = score("2", "t1", None, error="judge failed", at=2.0, name="faithful", source="judge")
    other = score("3", "t2", 0.0, at=5.0)
    for one in (late, early, other):
        store.add_score(one)
    assert store.scores() == [early, other, late]
    assert store.scores("t1") == [early, late]
    assert store.scores(name="feedback") == [other, late]
    assert store.scores("t1", "feedback") == [late]
    assert store.scores(limit=1) == [early]


def test_a_score_is_a_value_or_an_error(store: Store) -> None:
    for value, error in ((None, None), (1.0, "E"), (math.nan, None), (math.inf, None)):
        with pytest.raises(InputError, match="either a finite value, or an error"):
            store.add_score(score("1", "t1", value, error=error))
    store.add_score(score("1", "t1"))
    with pytest.raises(InputError, match="id '1'"):
        store.add_score(score("1", "t2"))
    assert len(store.scores()) == 1


# releases and facts ---------------------------------------------------------------------------------------------


def test_releases_are_a_compare_and_set_log(store: Store) -> None:
    first = store.add_release(release(variant=1), expected=None)
    second = store.add_release(release(variant=2, experiment=hex_of(8)), expected=hex_of(1))
    other = store.add_release(release("other", 1), expected=None)
    assert (first.previous, second.previous, other.previous) == (None, hex_of(1), None)
    assert store.releases("assistant") == [second, first]
    assert store.releases() == [other, second, first]
    for stale in (None, hex_of(1)):
        with pytest.raises(WorkspaceBusy, match="assistant"):
            store.add_release(release(variant=3), expected=stale)
    assert store.releases("assistant") == [second, first]


def test_of_many_at_once_exactly_one_release_wins(open_store: Opener) -> None:
    start = threading.Barrier(6)

    def promote(number: int) -> bool:
        store = open_store(0)
        start.wait()
        try:
            store.add_release(release(variant=number + 1), expected=None)
        except WorkspaceBusy:
            return False
        return True

    open_store(0)
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(promote, range(6))) == 1
    assert len(open_store(0).releases()) == 1


@properties
@given(st.text(min_size=1, max_size=20).filter(str.isprintable), json_values)
def test_facts_come_back_as_they_went_in(open_store: Opener, key: str, value: Any) -> None:
    store = open_store(0)
    store.set(key, "before")
    store.set(key, value)
    assert store.get(key) == value


def test_unknown_facts_are_none_and_odd_ones_refused(store: Store) -> None:
    assert store.get("nothing") is None
    for value in (math.nan, {"a": object()}):
        with pytest.raises(InputError, match="'k' is not JSON"):
            store.set("k", value)


# what happened --------------------------------------------------------------------------------------------------


def test_a_log_keeps_its_order_and_takes_only_who_knows_its_end(open_store: Opener) -> None:
    store = open_store(0)
    assert store.log("a") == []
    assert store.append("a", {"n": 1}, after=0, at=1.5) == 1 and store.append("b", "other", after=0, at=2.0) == 1
    assert store.append("a", None, after=1, at=2.5) == 2
    for after in (0, 1, 3):
        with pytest.raises(WorkspaceBusy, match="wrote to 'a'"):
            store.append("a", "late", after=after, at=3.0)
    with pytest.raises(InputError, match="is not JSON"):
        store.append("a", math.nan, after=2, at=3.0)
    assert store.log("a") == [(1, 1.5, {"n": 1}), (2, 2.5, None)] and store.log("a", after=1) == [(2, 2.5, None)]


# several at once ------------------------------------------------------------------------------------------------


def test_two_doors_see_each_others_writes_at_once(open_store: Opener) -> None:
    one, two = open_store(0), open_store(0)
    one.set("k", 1)
    assert two.get("k") == 1
    two.add_artifact(artifact(1))
    assert one.artifact("corpus@1") is not None


def test_threads_may_share_a_store(open_store: Opener) -> None:
    stores = [open_store(0), open_store(0)]

    def work(number: int) -> None:
        store = stores[number % 2]
        store.add_spans([span(number + 1)])
        store.add_artifact(artifact(number))
        store.set(f"k{number}", number)
        assert store.get(f"k{number}") == number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(48)))
    assert sorted(a.version for a in stores[0].artifacts()) == list(range(1, 49))
    assert len(stores[1].traces()) == 48
