"""How the studio writes numbers, times and payloads. What is unknown is a dash, never a zero."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

NONE = "–"


def number(value: float | None) -> str:
    """Whole numbers with separators, others with four significant digits."""
    if value is None or isinstance(value, bool):
        return NONE if value is None else str(value).lower()
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def fixed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def signed_tick(value: float) -> str:
    """A tick mark of an axis of differences."""
    return "0" if value == 0 else f"{value:+.4g}".replace("-", "−")


def cost(usd: float | None) -> str:
    if usd is None:
        return NONE
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.2g}"


def share(value: float | None) -> str:
    """A part of a whole in percent; 100 % and 0 % only where that is exact."""
    if value is None:
        return NONE
    return f"{min(99.9, max(0.1, 100 * value)):.3g} %" if 0 < value < 1 else f"{100 * value:.0f} %"


def duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NONE
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    if milliseconds < 999.5:
        return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(count: float | None) -> str:
    if count is None:
        return NONE
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def short(digest: str | None) -> str:
    """The first digits of a digest or id, enough to tell it from others."""
    return NONE if digest is None else digest[:10]


def when(at: float | None) -> str | Markup:
    """A `<time>` that reads as an age and holds the exact moment."""
    if at is None:
        return NONE
    moment = datetime.fromtimestamp(at, UTC)
    exact = moment.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), exact, _age(at))


def _age(at: float) -> str:
    seconds = time.time() - at
    if seconds < 45:
        return "just now"
    for limit, unit, divisor in ((90, "1 min", 0), (5400, "min", 60), (129_600, "h", 3600), (30 * 86_400, "d", 86_400)):
        if seconds < limit:
            return f"{round(seconds / divisor)} {unit} ago" if divisor else f"{unit} ago"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def pretty(value: Any) -> str:
    """JSON for reading."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def preview(value: Any, limit: int = 110) -> str:
    """One line that says what a call was about: the last user message when there is one."""
    text = " ".join(_question(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _question(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for key in ("messages", "question", "query", "content", "text", "input"):
            if key in value:
                return _question(value[key])
        if len(value) == 1 and isinstance(only := next(iter(value.values())), str):
            return only  # the one input of a task
    elif isinstance(value, Sequence) and value:
        asked = [m for m in value if isinstance(m, Mapping) and m.get("role") == "user"]
        return _question(asked[-1] if asked else value[-1])
    return json.dumps(value, ensure_ascii=False, default=str)


def slug(text: str) -> str:
    """A name as a CSS class: letters, digits and dashes only."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())


def breakable(text: str) -> Markup:
    """A long dotted or slashed name that may wrap after its separators."""
    broken = escape(text)
    for mark in ("/", ".", "_"):
        broken = broken.replace(mark, Markup(mark + "<wbr>"))
    return broken


FILTERS = {
    "number": number,
    "fixed": fixed,
    "signed": signed,
    "signed_tick": signed_tick,
    "cost": cost,
    "share": share,
    "duration": duration,
    "size": size,
    "short": short,
    "when": when,
    "pretty": pretty,
    "preview": preview,
    "slug": slug,
    "breakable": breakable,
}
