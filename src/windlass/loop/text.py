"""What the workspace holds, as plain text: a trace as a waterfall, a metric as a curve of blocks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from windlass.core import semconv
from windlass.core.records import MetricPoint, SpanRecord
from windlass.loop.lineage.graph import answered, asked, citations_of, shortened

_BLOCKS = "▁▂▃▄▅▆▇█"


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


def curve(points: Sequence[MetricPoint], *, width: int = 60) -> str:
    """A metric over its steps in one line of blocks, each the mean of the steps it stands for."""
    values = [point.value for point in points if point.value == point.value and abs(point.value) != float("inf")]
    if not values:
        return "(no finite values)"
    width = min(width, len(values))
    means = []
    for i in range(width):
        part = values[i * len(values) // width : (i + 1) * len(values) // width]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def ago(at: float, now: float | None = None) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max((time.time() if now is None else now) - at, 0.0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def size(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
