"""Personal data: what share is found and what share of the findings is right, on Presidio's synthetic sentences.

    python -m bench.pii [--data FOLDER] [--errors KIND]

A person's datum counts as found when a finding of its kind covers at least half of it, and a finding as right when it
covers at least half of a datum of its kind. The sentences come from templates: rules were made by looking at the ones
with an even number only, so the others tell how the rules do on text that nobody fitted them to. datatrove's formatter
knows e-mail and IP addresses; its patterns are measured in the same way.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench._data import data_folder

from windlass.build.corpus.pii import DEFAULT_KINDS, EVERY_KIND, find
from windlass.core.tables import table

DATA = data_folder()
FILE = "safety/presidio_pii/synth_dataset_v2.json.gz"
KINDS: Mapping[str, str] = {
    "EMAIL_ADDRESS": "email",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "US_SSN": "national_id",
    "US_DRIVER_LICENSE": "national_id",
    "STREET_ADDRESS": "address",
    "PERSON": "person",
}
"""Presidio's name -> ours. Countries, organisations, ages, weekdays and titles alone say nothing about a person."""
AROUND = {"GPE": "address", "ZIP_CODE": "address", "TITLE": "person"}
"""What may belong to a datum without being one: no error when a finding takes it along."""

Span = tuple[str, int, int]


@dataclass(frozen=True)
class Sentence:
    text: str
    template: int
    data: list[Span]
    around: list[Span]


def sentences(data: Path) -> list[Sentence]:
    """All of the public set."""

    def spans(row: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Span]:
        return [
            (kinds[span["entity_type"]], span["start_position"], span["end_position"])
            for span in row["spans"]
            if span["entity_type"] in kinds
        ]

    with gzip.open(data / FILE, "rt", encoding="utf-8") as file:
        rows = json.load(file)
    return [Sentence(row["full_text"], row["template_id"], spans(row, KINDS), spans(row, AROUND)) for row in rows]


def ours(text: str) -> list[Span]:
    return [(kind, start, end) for kind, start, end in find(text, EVERY_KIND)]


def datatrove() -> Callable[[str], list[Span]]:
    from datatrove.pipeline.formatters import PIIFormatter

    formatter = PIIFormatter()
    patterns = (("email", formatter.emails_replacer), ("ip", formatter.ip_replacer))

    def found(text: str) -> list[Span]:
        return [
            (kind, *match.span())
            for kind, replacer in patterns
            for match in replacer.regex.finditer(text)
            if replacer.validator is None or replacer.validator(match[0])
        ]

    return found


def half_covered(span: Span, by: Iterable[Span]) -> bool:
    """Whether spans of the same kind, which do not overlap each other, cover at least half of it."""
    kind, start, end = span
    return 2 * sum(max(0, min(end, b) - max(start, a)) for other, a, b in by if other == kind) >= end - start


def measured(rows: Iterable[Sentence], finder: Callable[[str], list[Span]]) -> dict[str, Counter[str]]:
    """By kind: `there` (data in the text), `found` of them, `findings`, and `right` ones of these."""
    counts = {kind: Counter[str]() for kind in EVERY_KIND}
    for row in rows:
        findings = finder(row.text)
        for span in row.data:
            counts[span[0]].update(there=1, found=int(half_covered(span, findings)))
        for finding in findings:
            counts[finding[0]].update(findings=1, right=int(half_covered(finding, row.data + row.around)))
    return counts


def scores(counts: Mapping[str, Counter[str]], kinds: Iterable[str]) -> tuple[float, float, float]:
    """(precision, recall, F1) over the data of these kinds together."""
    total = sum((counts[kind] for kind in kinds), Counter())
    precision = total["right"] / max(total["findings"], 1)
    recall = total["found"] / max(total["there"], 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the public data folder")
    parser.add_argument("--errors", choices=EVERY_KIND, help="print what was missed and wrong (fitted templates only)")
    args = parser.parse_args(arguments)
    everything = sentences(args.data)
    fitted = [row for row in everything if row.template % 2 == 0]
    unseen = [row for row in everything if row.template % 2]
    if args.errors:
        _print_errors(fitted, args.errors)
        return 0
    theirs = datatrove()
    f1: dict[str, float] = {}
    for name, rows in (("fitted", fitted), ("unseen", unseen)):
        mine, other = measured(rows, ours), measured(rows, theirs)
        lines = [
            (kind, mine[kind]["there"], *scores(mine, [kind]), *scores(other, [kind]))
            for kind in EVERY_KIND
            if mine[kind]["there"]
        ]
        for label, kinds in (("by default", DEFAULT_KINDS), ("every kind", EVERY_KIND)):
            f1[f"{name} {label}"], f1[f"{name} {label} datatrove"] = scores(mine, kinds)[2], scores(other, kinds)[2]
            there = sum(mine[kind]["there"] for kind in kinds)
            lines.append((label, there, *scores(mine, kinds), *scores(other, kinds)))
        print(f"\n{len(rows)} sentences of {name} templates\n")
        print(table(("kind", "data", "precision", "recall", "F1", "their precision", "recall", "F1"), lines))
    best, peer = f1["unseen by default"], f1["unseen by default datatrove"]
    result = {
        "bench": "pii",
        "ratio": round(best / peer, 2),
        "against": "datatrove PIIFormatter, F1 on unseen templates",
    }
    print(json.dumps(result | {key: round(value, 3) for key, value in f1.items()}))
    return 0


def _print_errors(rows: Iterable[Sentence], kind: str) -> None:
    for row in rows:
        findings = ours(row.text)
        there = row.data + row.around
        missed = [row.text[a:b] for k, a, b in row.data if k == kind and not half_covered((k, a, b), findings)]
        wrong = [row.text[a:b] for k, a, b in findings if k == kind and not half_covered((k, a, b), there)]
        if missed or wrong:
            print(f"missed {missed} wrong {wrong}: {row.text!r}")


if __name__ == "__main__":
    raise SystemExit(main())
