"""The data card of a corpus: README.md beside its documents, from the report alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def data_card(name: str, report: Mapping[str, Any]) -> str:
    """Markdown with what it is, licence, counts, drops by reason, split and known limits."""
    kept, read, settings = report["kept"], report["read"], report["settings"]
    lines = [
        f"# Corpus {name}",
        "",
        f"Text of {report['source']}. Licence: {report['licence']}.",
        "",
        "| kind | documents | MB | train MB | held-out MB |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {kind} | {row['documents']:,} | {row['bytes'] / 1e6:.2f} | {row['train_bytes'] / 1e6:.2f} "
        f"| {row['heldout_bytes'] / 1e6:.2f} |"
        for kind, row in kept.items()
    ]
    dropped, skipped = report["dropped_by_reason"], read["skipped_by_reason"]
    changed = {
        f"{reason} ({stage})": entry["count"]
        for stage, row in report["stages"].items()
        for reason, entry in row["changed"].items()
    }
    for title, reasons in (
        (f"Left out: {sum(dropped.values()):,} of {read['documents']:,} documents", dropped),
        (f"Not read: {sum(skipped.values()):,} files or folders", skipped),
        (f"Changed: {sum(changed.values()):,}", changed),
    ):
        lines += ["", f"## {title}", ""]
        lines += [f"- {count:,} {reason}" for reason, count in reasons.items()] or ["- none"]
    lines += [
        "",
        "`dropped.jsonl` and `changed.jsonl` name each of them with its reason; `report.json` counts them by stage.",
        "",
        "## How it was made",
        "",
        "Text is canonical: NFC, no control characters, `\\n` line ends. Of documents of one kind with the same "
        f"words, or whose 5-word shingles have a Jaccard similarity of {settings['near']} or more, the first is kept. "
        "Documents of one cluster (a file, a module) are all in the same split; a hash of the cluster's name decides, "
        f"with an expected held-out share of {settings['heldout']:.0%} of the clusters.",
        "",
        "## Limits",
        "",
        "Personal data and licences of single documents were not looked for. `docstring` documents repeat text of the "
        "`source` documents of the same cluster: train a language model on one of the two.",
        "",
    ]
    return "\n".join(lines)
