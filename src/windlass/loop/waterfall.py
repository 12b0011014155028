"""A trace as plain text: a waterfall of its spans, and what was asked, answered and cited."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core import semconv
from windlass.core.records import SpanRecord
from windlass.loop.lineage.spans import answered, asked, citations_of
from windlass.loop.text import shortened


def waterfall(spans: Sequence[SpanRecord], *, width: int = 40) -> str:
    """A trace: every span below its parent, with a bar where it lies in time, its length, tokens and cost."""
    begin = min(span.start_ns for span in spans)
    total = max(max(span.end_ns for span in spans) - begin, 1)
    below: dict[str | None, list[SpanRecord]] = {}
    known = {span.span_id for span in spans}
    for span in spans:
        below.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    rows: list[tuple[str, str, str, str]] = []

    def add(span: SpanRecord, depth: int) -> None:
        left = min(round((span.start_ns - begin) / total * width), width - 1)
        long = max(min(round((span.end_ns - span.start_ns) / total * width), width - left), 1)
        bar = " " * left + "█" * long + " " * (width - left - long)
        rows.append((f"{'  ' * depth}{span.name}", bar, f"{span.duration_ms:,.1f} ms", _facts(span)))
        for child in below.get(span.span_id, ()):
            add(child, depth + 1)

    for span in below[None]:
        add(span, 0)
    names = max(len(row[0]) for row in rows)
    times = max(len(row[2]) for row in rows)
    lines = [f"{name.ljust(names)}  {bar}  {took.rjust(times)}  {facts}".rstrip() for name, bar, took, facts in rows]
    return "\n".join([*lines, *_said(below[None][0])])


def _facts(span: SpanRecord) -> str:
    facts = []
    tokens = [span.attributes.get(key) for key in (semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS)]
    if any(count is not None for count in tokens):
        facts.append(" + ".join("?" if count is None else f"{count:,}" for count in tokens) + " tokens")
    if semconv.COST_USD in span.attributes:
        cost = span.attributes[semconv.COST_USD]
        facts.append("cost unknown" if cost is None else f"${cost:.6f}")
    if span.error:
        facts.append(f"ERROR {span.error}")
    return ", ".join(facts)


def _said(root: SpanRecord) -> list[str]:
    lines = [""]
    if question := asked(root):
        lines.append(f"asked     {shortened(question, 200)}")
    if answer := answered(root):
        lines.append(f"answered  {shortened(answer, 400)}")
    for number, cited in enumerate(citations_of(root), start=1):
        where = f"{cited.get('title') or cited['document']}, characters {cited['start']}-{cited['end']}"
        lines.append(f"     [{number}]  {where}: “{shortened(str(cited.get('quote', '')), 100)}”")
    digests = {k: v for k, v in root.attributes.items() if k.endswith(".digest") and isinstance(v, str)}
    lines += [f"{key.split('.')[1]:<9} {value[:12]}" for key, value in digests.items()]
    return lines if len(lines) > 1 else []
