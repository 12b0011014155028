"""The rows of the workspace's store, as values: what a `Store` takes and gives, whatever the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

RunStatus = Literal["running", "done", "failed", "interrupted"]
SpanStatus = Literal["ok", "error"]
ScoreSource = Literal["code", "judge", "human", "user"]


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    digest: str
    """SHA-256 over kind, files and parents, in hex."""
    kind: str
    name: str
    version: int
    created: float
    """Seconds since the epoch."""
    size: int
    """Bytes of all files."""
    files: Mapping[str, str]
    """Relative path -> SHA-256."""
    card: Mapping[str, Any]
    parents: Sequence[tuple[str, str]]
    """(role, digest) pairs: what this artifact was made from."""
    run: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class RunRecord:
    id: str
    kind: str
    name: str
    status: RunStatus
    started: float
    ended: float | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    """Code revision, python, platform, package versions, pid."""
    seed: int | None = None
    message: str = ""
    """Why it failed or stopped."""


@dataclass(frozen=True, slots=True)
class MetricPoint:
    step: int
    name: str
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class SpanRecord:
    trace_id: str
    """32 hex digits, as in OpenTelemetry."""
    span_id: str
    """16 hex digits."""
    parent_id: str | None
    name: str
    operation: str
    """An OpenTelemetry GenAI operation name: chat, embeddings, retrieval, invoke_workflow, ..."""
    start_ns: int
    end_ns: int
    status: SpanStatus
    error: str | None
    attributes: Mapping[str, Any]
    """OpenTelemetry GenAI names (see `core.semconv`), plus `windlass.*`."""
    input: Any = None
    output: Any = None

    @property
    def duration_ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


class SpanLike(Protocol):
    """What a store takes as a span: a `SpanRecord`, or a `core.spans.Span` that has ended, without a copy."""

    @property
    def trace_id(self) -> str: ...
    @property
    def span_id(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> str: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def status(self) -> SpanStatus: ...
    @property
    def error(self) -> str | None: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def input(self) -> Any: ...
    @property
    def output(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """A judgement. `value` is None exactly when `error` says why there is none: an error is not a 0."""

    id: str
    subject: str
    """The id of a trace, span (`trace/span`) or dataset item."""
    name: str
    value: float | None
    source: ScoreSource
    author: str
    at: float
    comment: str = ""
    error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One change of what a task serves. The newest row of a task is what is live."""

    id: int
    task: str
    variant: str
    """Digest of the variant that this change made live."""
    previous: str | None
    action: Literal["promote", "rollback"]
    reason: str
    experiment: str | None
    """Digest of the experiment that allowed the promotion."""
    at: float


@dataclass(frozen=True, slots=True)
class PromptUse:
    """What the traces say of one prompt."""

    traces: int
    """Those in which a span names it."""
    failed: int
    """Of them, those in which such a span ended in an error."""
    last: float
    """When the newest of these spans began, in seconds since the epoch."""
    calls: int
    """Calls of a model with it: spans that say what they cost, be it that this is not known."""
    priced: int
    """Of them, those whose cost is known."""
    cost_usd: float | None
    """Of the priced ones together; None when there are none."""
    rated: int
    """Traces with feedback."""
    good: int
    """Of them, those whose newest feedback is at least 0.5."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in what a store was told of calls: spans and scores after it came later."""

    spans: int = 0
    scores: int = 0


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One line of the list of traces: its root span and what its spans add up to."""

    root: SpanRecord
    spans: int
    errors: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    """None when the price of any call is unknown."""
    scores: Mapping[str, float]
    """Latest value by score name."""
