"""A corpus' report in a few tables for a person: what was kept, what was left out or changed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from windlass.build.corpus.mixing import MANY
from windlass.core.tables import table

_WIDTH = 100


def corpus_summary(report: Mapping[str, Any], *, examples: int = 3) -> str:
    """Tables of what was kept by kind, of the mix, of the stages, and of what they left out, with some names."""
    kept = sorted(report["kept"].items(), key=lambda item: (item[0] == "all", item[0]))
    parts = [table(("kept", "documents", "MB", "train MB", "held-out MB"), [_sizes(*item) for item in kept])]
    if report["settings"]["heldout"] and not report["kept"]["all"]["heldout_documents"]:
        parts.append(
            "Nothing is held out, so that no model trained on this can be scored. Whole files are held out:\n"
            "bring more of them, or cut the text into several."
        )
    if report["mix"]:
        mix = [
            (part, row["train_bytes"] / 1e6, f"{row['share']:.1%}", row["epochs"])
            for part, row in report["mix"].items()
        ]
        parts.append(table(("source", "train MB", "share of the mix", "times seen"), mix, right=(2,)))
        many = [part for part, row in report["mix"].items() if row["epochs"] > MANY]
        if many:
            parts.append(
                f"Seen more than {MANY} times in one pass, which teaches clearly less than new text: {', '.join(many)}."
            )
    if report["languages"]:
        found = [_sizes(name or "not prose", row) for name, row in report["languages"].items()]
        parts.append(table(("language", "documents", "MB", "train MB", "held-out MB"), found))
    through = [
        (stage, row["documents_in"], row["documents_out"], row["bytes_in"] / 1e6, row["bytes_out"] / 1e6)
        for stage, row in report["stages"].items()
        if "documents_in" in row
    ]
    parts.append(table(("stage", "documents in", "out", "MB in", "out"), through))
    if reasons := list(_reasons(report["stages"], examples)):
        parts.append(table(("stage", "what", "why", "how many", "MB", "for example"), reasons))
    return "\n\n".join(parts)


def _sizes(kind: str, row: Mapping[str, int]) -> tuple[str | int | float, ...]:
    return kind, row["documents"], row["bytes"] / 1e6, row["train_bytes"] / 1e6, row["heldout_bytes"] / 1e6


def _reasons(stages: Mapping[str, Any], examples: int) -> Iterator[tuple[object, ...]]:
    for stage, row in stages.items():
        for what in ("dropped", "changed"):
            for reason, entry in row[what].items():
                shown = _shortened(", ".join(entry["examples"][:examples]), more=entry["count"] > examples)
                size = entry["bytes"] / 1e6 if entry["bytes"] else None
                yield (
                    stage,
                    "not read" if (stage, what) == ("read", "dropped") else what,
                    reason,
                    entry["count"],
                    size,
                    shown,
                )


def _shortened(text: str, *, more: bool) -> str:
    if len(text) > _WIDTH:
        return text[: _WIDTH - 1] + "…"
    return text + (", …" if more else "")
