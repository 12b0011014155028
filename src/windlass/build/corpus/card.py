"""The data card of a corpus: README.md beside its documents, from the report alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from windlass.build.corpus.mixing import MANY


def data_card(name: str, report: Mapping[str, Any]) -> str:
    """Markdown: what it is, licence, counts, mix, languages, what was left out or changed and why, and known limits."""
    return "\n".join(
        [
            f"# Corpus {name}",
            "",
            f"Text of {report['source']}. Licence: {report['licence']}.",
            "",
            *_counts("kind", report["kept"]),
            *_counts("language", report["languages"]),
            *_counts("licence that rows name", report["licences_of_rows"]),
            *_mix(report),
            *_reasons(report),
            "",
            "`dropped.jsonl` and `changed.jsonl` name each one with its reason; `report.json` counts them by stage.",
            "",
            "## How it was made",
            "",
            *_method(report["settings"], report["evaluation_texts"]),
            "",
            "## Limits",
            "",
            *_limits(report),
            "",
        ]
    )


def _counts(what: str, rows: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    if rows:
        yield from (f"| {what} | documents | MB | train MB | held-out MB |", "|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        sizes = " | ".join(f"{row[key] / 1e6:.2f}" for key in ("bytes", "train_bytes", "heldout_bytes"))
        yield f"| {name or 'not prose'} | {row['documents']:,} | {sizes} |"
    if rows:
        yield ""


def _mix(report: Mapping[str, Any]) -> Iterator[str]:
    if report["mix"]:
        yield from ("## Mix", "", "| source | licence | train MB | share of training text | times seen |")
        yield "|---|---|---:|---:|---:|"
    for part, row in report["mix"].items():
        size = f"{row['train_bytes'] / 1e6:.2f}"
        yield f"| {part} | {report['licences'][part]} | {size} | {row['share']:.1%} | {row['epochs']:.2f} |"


def _reasons(report: Mapping[str, Any]) -> Iterator[str]:
    dropped, skipped = report["dropped_by_reason"], report["read"]["skipped_by_reason"]
    changed = {
        f"{reason} ({stage})": entry["count"]
        for stage, row in report["stages"].items()
        for reason, entry in row["changed"].items()
    }
    for title, reasons in (
        (f"Left out: {sum(dropped.values()):,} of {report['read']['documents']:,} documents", dropped),
        (f"Not read: {sum(skipped.values()):,} files, folders or rows", skipped),
        ("Changed" if changed else "Changed: nothing", changed),
    ):
        yield from ("", f"## {title}", "")
        yield from [f"- {count:,} {reason}" for reason, count in reasons.items()] or ["- none"]


def _method(settings: Mapping[str, Any], evaluation: Mapping[str, int]) -> Iterator[str]:
    yield "- Text is canonical: NFC, no control characters, `\\n` line ends."
    if settings["repair"]:
        yield "- Characters of prose that were decoded with the wrong table were mended."
    if settings["languages"]:
        yield f"- Prose was kept in {', '.join(settings['languages'])} only, as py3langid names languages."
    if settings["decontaminate"]:
        what = "was cut out" if settings["contaminated"] == "cut" else "dropped its document"
        yield (
            f"- Text shared with {', '.join(settings['decontaminate'])}, in runs of 13 words or more, {what}: "
            f"{evaluation['looked_for']:,} texts were looked for, {evaluation['too_short']:,} were too short."
        )
    changed = f", with {', '.join(f'{key} = {value}' for key, value in settings['rules'].items())}"
    yield f"- Quality rules: `{settings['quality']}`{changed if settings['rules'] else ''}."
    if settings["pii"] != "keep":
        done = "masked" if settings["pii"] == "mask" else "a reason to drop the document"
        yield f"- Personal data found by rule was {done}: {', '.join(settings['pii_kinds'])}."
    yield (
        "- Of documents of one kind with the same text, or whose 5-word shingles have a Jaccard similarity of "
        f"{settings['near']} or more, the first is kept."
    )
    yield (
        "- Documents of one cluster (a file, a module) are all in one split; a hash of the cluster's name decides, "
        f"with an expected held-out share of {settings['heldout']:.0%} of the clusters."
    )


def _limits(report: Mapping[str, Any]) -> Iterator[str]:
    settings = report["settings"]
    not_done: Sequence[tuple[bool, str]] = (
        (settings["pii"] == "keep", "personal data"),
        (not settings["languages"], "languages"),
        (not settings["decontaminate"], "text of evaluation sets"),
        (not report["licences_of_rows"], "licences of single documents"),
    )
    if missing := [what for absent, what in not_done if absent]:
        yield f"- Not looked for: {', '.join(missing)}."
    if report["licences_of_rows"]:
        yield "- Licences are those that rows name, as they name them; nobody checked them."
    if settings["pii"] != "keep":
        yield "- Personal data without a format (names, places) and what the rules miss is still there."
    many = [part for part, row in report["mix"].items() if row["epochs"] > MANY]
    if many:
        yield f"- Seen more than {MANY} times in one pass, which teaches clearly less than new text: {', '.join(many)}."
    if {"source", "docstring"} <= set(report["kept"]):
        yield "- `docstring` documents repeat text of `source` documents: train a language model on one of the two."
