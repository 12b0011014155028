"""The `Store` protocol: everything a workspace remembers besides files. Its conformance suite is
`tests/conformance/test_store.py`; `core.sqlite_store` is the embedded implementation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from windlass.core.records import (
    ArtifactRecord,
    Mark,
    MetricPoint,
    PromptUse,
    ReleaseRecord,
    RunRecord,
    RunStatus,
    ScoreRecord,
    SpanLike,
    SpanRecord,
    TraceSummary,
)


class Store(Protocol):
    """Writes are durable when the method returns. Safe to share between threads and processes."""

    # artifacts
    def add_artifact(self, record: ArtifactRecord) -> ArtifactRecord:
        """Stores the record under the next version of its name, and returns it with that version.

        A digest that has this name already is returned as it is. Known content under a new name gets version 1 (or
        the next) of that name and keeps its card and run.
        """
        ...

    def artifact(self, ref: str) -> ArtifactRecord | None:
        """By digest, unique digest prefix (8+ digits), `name@version`, `name@latest`, or `name` (its newest version).

        Raises `InputError` when a prefix fits several or the version is no number.
        """
        ...

    def artifacts(
        self, kind: str | None = None, name: str | None = None, limit: int = 1000, *, run: str | None = None
    ) -> list[ArtifactRecord]:
        """Newest first; `run` keeps those that this run made."""
        ...

    def children(self, digest: str) -> list[tuple[str, ArtifactRecord]]:
        """(role, artifact) of everything made directly from this one, oldest first."""
        ...

    # runs
    def add_run(self, record: RunRecord) -> None:
        """Raises `InputError` when there is a run of that id."""
        ...

    def end_run(
        self,
        run: str,
        status: RunStatus,
        ended: float | None,
        message: str = "",
        *,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """Changes how a run stands; `environment` replaces the one it began with. Raises `NotFound`."""
        ...

    def run(self, run: str) -> RunRecord | None: ...

    def runs(self, kind: str | None = None, limit: int = 1000) -> list[RunRecord]:
        """Newest first."""
        ...

    def add_metrics(self, run: str, points: Sequence[MetricPoint]) -> None:
        """A later point of the same (step, name) replaces the earlier: a resumed run repeats steps.

        All of them or none. NaN and infinities are kept. Raises `NotFound` for an unknown run.
        """
        ...

    def metrics(self, run: str, name: str | None = None) -> list[MetricPoint]:
        """Ordered by name, then step."""
        ...

    # traces
    def add_spans(self, spans: Iterable[SpanLike]) -> int:
        """All of them or none; returns how many. The same span twice is stored once, as it was the last time.

        Texts are stored without secrets (`core.redact`), values that JSON does not know in their nearest plain form.
        """
        ...

    def trace(self, trace_id: str) -> list[SpanRecord]:
        """By full id or unique prefix; ordered by start. Empty when unknown.

        Raises `InputError` when a prefix fits several.
        """
        ...

    def traces(
        self,
        *,
        name: str | None = None,
        since: float | None = None,
        errors: bool | None = None,
        score: tuple[str, float, float] | None = None,
        prompt: str | None = None,
        evaluations: bool | None = False,
        ids: Sequence[str] | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[TraceSummary]:
        """Newest first, one per root span, in a number of queries that does not depend on how many there are.

        `ids` keeps these traces; `name` filters on the root span's name; `errors` keeps traces with (True) or without
        (False) a failed span; `score` keeps those that carry a score of this name within these bounds, both included;
        `prompt` those with a span that names the prompt of this digest. Items that were evaluated are no traffic
        (`semconv.EVALUATION`): `evaluations` keeps only them (True), or all there is (None).
        """
        ...

    def mark(self) -> Mark:
        """Behind all that is stored now."""
        ...

    def touched(self, after: Mark, limit: int = 5_000) -> tuple[list[str], Mark]:
        """Ids of traces that got a span or a score after this mark, and the mark behind those.

        About `limit` at a time: call it with the mark that it gave until that stays the same. Nothing is left out,
        whatever the order of the clocks; a trace may come again.
        """
        ...

    def prompt_uses(self, digests: Iterable[str]) -> dict[str, PromptUse]:
        """By digest, of these prompts; those that no span of the traffic names are left out."""
        ...

    # scores
    def add_score(self, score: ScoreRecord) -> None:
        """Raises `InputError` when it has neither or both of value and error, or when its id is taken."""
        ...

    def scores(self, subject: str | None = None, name: str | None = None, limit: int = 100_000) -> list[ScoreRecord]:
        """Oldest first."""
        ...

    # releases
    def add_release(self, release: ReleaseRecord, *, expected: str | None) -> ReleaseRecord:
        """Appends a change if `expected` (a variant digest, None for 'nothing yet') is what is live now.

        The stored record carries its new `id`. Raises `WorkspaceBusy` if another process changed it first.
        """
        ...

    def releases(self, task: str | None = None) -> list[ReleaseRecord]:
        """Newest first."""
        ...

    # what happened
    def append(self, stream: str, value: Any, *, after: int, at: float) -> int:
        """Appends a JSON value to a stream if `after` is the id of its last entry (0: it has none), and returns the new
        id: they count from 1. Raises `WorkspaceBusy` if another process appended first."""
        ...

    def log(self, stream: str, after: int = 0) -> list[tuple[int, float, Any]]:
        """(id, at, value) of the entries behind that id, oldest first."""
        ...

    # small facts
    def get(self, key: str) -> Any:
        """A JSON value stored by `set`, or None."""
        ...

    def set(self, key: str, value: Any) -> None: ...

    def close(self) -> None: ...
