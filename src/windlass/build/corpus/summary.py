"""A corpus' report in a few lines for a person: what was kept, what was left out, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from windlass.core.tables import table

_WIDTH = 100


def corpus_summary(report: Mapping[str, Any], *, examples: int = 3) -> str:
    """Tables of what was kept, by kind, and of what was dropped, not read and mended, with up to `examples` names."""
    kept = report["kept"]
    rows = [
        (kind, row["documents"], row["bytes"] / 1e6, row["train_bytes"] / 1e6, row["heldout_bytes"] / 1e6)
        for kind, row in sorted(kept.items(), key=lambda item: (item[0] == "all", item[0]))
    ]
    parts = [table(("kept", "documents", "MB", "train MB", "held-out MB"), rows)]
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for drop in report["dropped"]:
        reasons["dropped", drop["reason"]].append(f"{drop['id']} ({drop['detail']})")
    for what, key in (("not read", "skipped"), ("mended", "mended")):
        for note in report["read"][key]:
            name, _, reason = note.rpartition(": ")
            reasons[what, reason.partition(" (")[0]].append(name)
    found = [
        (what, reason, len(names), _shortened(", ".join(names[:examples]), more=len(names) > examples))
        for (what, reason), names in sorted(reasons.items())
    ]
    if found:
        parts.append(table(("left out", "why", "how many", "for example"), found))
    return "\n\n".join(parts)


def _shortened(text: str, *, more: bool) -> str:
    if len(text) > _WIDTH:
        return text[: _WIDTH - 1] + "…"
    return text + (", …" if more else "")
