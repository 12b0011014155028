"""The list of traces, and one trace as a waterfall of its spans."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, Response

from windlass.apply.prompts import artifact as prompts
from windlass.core import semconv
from windlass.core.errors import NotFound
from windlass.core.records import ArtifactRecord, SpanRecord
from windlass.core.values import Citation
from windlass.loop.lineage.spans import citations_of
from windlass.studio.ask import document_address
from windlass.studio.prompts import address
from windlass.studio.web import Studio, Visit

PAGE = 50
MAX_ROWS = 1_000
"""Spans drawn on one page; the page says when there are more."""
MAX_PAYLOAD = 20_000
"""Characters of an input or output shown before the page points to the whole."""
KINDS = {"evaluations": True, "all": None}
"""What the list shows besides the traffic: items that were evaluated, or both."""
SINCE = {"hour": 3600, "day": 86_400, "week": 604_800}
GOOD = (0.5, math.inf)
BAD = (-math.inf, math.nextafter(0.5, 0))


def listing(visit: Visit) -> Response:
    page = visit.whole("page", 1, low=1)
    filters = {key: visit.query(key) for key in ("name", "status", "score", "rating", "since", "prompt", "calls")}
    score = filters["score"] or "feedback"
    bounds = {"good": GOOD, "bad": BAD}.get(filters["rating"])
    if bounds is None and filters["score"]:
        bounds = (-math.inf, math.inf)
    found = visit.ws.store.traces(
        name=filters["name"] or None,
        since=time.time() - SINCE[filters["since"]] if filters["since"] in SINCE else None,
        errors={"error": True, "ok": False}.get(filters["status"]),
        score=(score, *bounds) if bounds else None,
        prompt=filters["prompt"] or None,
        evaluations=KINDS.get(filters["calls"], False),
        limit=PAGE + 1,
        offset=(page - 1) * PAGE,
    )
    return visit.page(
        "traces.html",
        "traces",
        traces=found[:PAGE],
        filters=filters,
        prompt=visit.ws.store.artifact(filters["prompt"]) if filters["prompt"] else None,
        filtered=any(filters.values()),
        page=page,
        more=len(found) > PAGE,
        slowest=max((t.root.duration_ms for t in found[:PAGE]), default=0.0),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of the waterfall; `left` and `width` are percentages of the trace's length."""

    span: SpanRecord
    depth: int
    left: float
    width: float
    start_ms: float


def waterfall(spans: Sequence[SpanRecord]) -> list[Row]:
    """Children under their parent, by start; a span whose parent is unknown stands at the top level."""
    begin = min(s.start_ns for s in spans)
    length = max(1, max(s.end_ns for s in spans) - begin)
    known = {s.span_id for s in spans}
    below: dict[str | None, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda s: (s.start_ns, -s.end_ns)):
        below.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)

    def rows() -> Iterator[Row]:
        stack = [(span, 0) for span in reversed(below.get(None, []))]
        while stack:
            span, depth = stack.pop()
            left = 100 * (span.start_ns - begin) / length
            width = max(0.4, 100 * (span.end_ns - span.start_ns) / length)
            yield Row(span, depth, min(left, 99.6), min(width, 100 - min(left, 99.6)), (span.start_ns - begin) / 1e6)
            stack.extend((child, depth + 1) for child in reversed(below.pop(span.span_id, [])))

    return list(rows())


def spans_of(visit: Visit, trace: str) -> list[SpanRecord]:
    """The spans of a trace, also of one that ended a moment ago. Raises `NotFound`."""
    if re.fullmatch(r"[0-9a-f]{6,32}", trace):
        spans = visit.ws.store.trace(trace)
        if all(span.parent_id for span in spans):  # none, or parts whose whole, the last to end, is yet to be stored
            visit.ws.recorder.flush()
            spans = visit.ws.store.trace(trace)
        if spans:
            return spans
    raise NotFound(f"There is no trace '{trace[:64]}' in this workspace.", "The list of traces shows what there is.")


def show(visit: Visit) -> Response:
    spans = spans_of(visit, visit.path("trace"))
    rows = waterfall(spans)
    wanted = visit.query("span") or rows[0].span.span_id
    chosen = next((row for row in rows if row.span.span_id == wanted), rows[0])
    root = rows[0].span
    scores = visit.ws.store.scores(root.trace_id)[::-1]
    return visit.page(
        "trace.html",
        "traces",
        root=root,
        rows=rows[:MAX_ROWS],
        count=len(rows),
        chosen=chosen,
        details=span_view(visit.studio, chosen.span),
        answer=_quotes(visit.studio, root),
        total_ms=(max(s.end_ns for s in spans) - min(s.start_ns for s in spans)) / 1e6,
        errors=[s for s in spans if s.status == "error"],
        scores=scores,
        given=next((s.value for s in scores if s.name == "feedback" and s.source == "user"), None),
    )


def details(visit: Visit) -> Response:
    """The panel of one span, for the page to put in place."""
    for span in spans_of(visit, visit.path("trace")):
        if span.span_id == visit.path("span"):
            return HTMLResponse(visit.studio.render("_span.html", details=span_view(visit.studio, span)))
    raise NotFound(f"The trace has no span '{visit.path('span')[:64]}'.", "Load the trace's page again.")


def raw(visit: Visit) -> Response:
    """The whole trace as JSON."""
    spans = spans_of(visit, visit.path("trace"))
    return JSONResponse([{field: getattr(s, field) for field in SpanRecord.__slots__} for s in spans])


def span_view(studio: Studio, span: SpanRecord) -> dict[str, Any]:
    """What the panel of a span shows: its attributes, digests as links, and its payloads."""
    digests: list[tuple[str, str, str | None, str]] = []
    plain: list[tuple[str, Any]] = []
    for key, value in sorted(span.attributes.items()):
        if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
            record = studio.ws.store.artifact(value)
            if record is not None and record.kind == prompts.KIND:
                record = _named(studio, span, record)
                digests.append((key, value, record.ref, address(record)))
            else:
                digests.append((key, value, record.ref if record else None, f"/artifacts/{value}"))
        else:
            plain.append((key, value))
    return {
        "span": span,
        "digests": digests,
        "plain": plain,
        "payloads": [(n, _payload(v)) for n, v in (("Input", span.input), ("Output", span.output)) if v is not None],
    }


def _named(studio: Studio, span: SpanRecord, record: ArtifactRecord) -> ArtifactRecord:
    """The prompt under the name that the span calls it by: the same words may be stored under several."""
    name, version = (span.attributes.get(key) for key in (semconv.PROMPT_NAME, semconv.PROMPT_VERSION))
    if not (isinstance(name, str) and isinstance(version, str) and version.isascii() and version.isdigit()):
        return record
    called = studio.ws.store.artifact(f"{name}@{version}")
    return called if called is not None and called.digest == record.digest else record


def _payload(value: Any) -> dict[str, Any]:
    """Messages as messages, an answer's text before the rest of it, everything else as JSON."""
    text = ""
    if isinstance(value, Mapping):
        key = next((k for k in ("content", "answer", "text") if isinstance(value.get(k), str)), None)
        if key is not None:
            text, value = value[key], {k: v for k, v in value.items() if k != key}
    messages = value.get("messages") if isinstance(value, Mapping) and len(value) == 1 else value
    is_chat = (
        isinstance(messages, Sequence)
        and not isinstance(messages, str)
        and len(messages) > 0
        and all(isinstance(m, Mapping) and "role" in m and isinstance(m.get("content"), str) for m in messages)
    )
    return {"text": text, "messages": messages if is_chat else None, "value": value, "limit": MAX_PAYLOAD}


def citations(root: SpanRecord) -> list[Citation]:
    """The citations that an assistant's root span holds."""
    names = {field.name for field in fields(Citation)}
    needed = {field.name for field in fields(Citation) if field.default is MISSING}
    return [Citation(**{k: v for k, v in c.items() if k in names}) for c in citations_of(root) if needed <= set(c)]


def _quotes(studio: Studio, root: SpanRecord) -> list[tuple[Citation, str | None]]:
    """The same with the addresses of their documents."""
    digest = root.attributes.get(semconv.INDEX_DIGEST) or root.attributes.get(semconv.VARIANT_DIGEST)
    return [(quote, document_address(studio, digest, quote)) for quote in citations(root)]
