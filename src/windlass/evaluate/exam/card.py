"""What an exam says of itself: its warnings, and its data card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.evaluate.exam.items import SPLITS, Exam, ExamItem, count

FEW_FILES = 12
"""With fewer files than this, sections stand in as clusters."""
SHARED = "same sentence in another document"
_ENOUGH = 200
"""Fewer test questions than this get a warning: the gate will hardly decide on them."""


def warnings_of(items: Sequence[ExamItem], by_section: bool, dropped: Mapping[str, int]) -> list[str]:
    """What keeps this exam from telling much. `by_section`: whether sections stand in as clusters."""
    counts = count(items)
    found = []
    if by_section:
        found.append(
            f"Fewer than {FEW_FILES} files: sections stand in as clusters, so the splits are less independent."
        )
    if dropped.get(SHARED, 0) > len(items):
        found.append(
            f"{dropped[SHARED]} first sentences stand in more than one document and ask for none: the documents seem "
            "to hold copies of pages, for example as Markdown and as HTML."
        )
    test = counts["test"]
    if test["answerable"] < _ENOUGH:
        found.append(
            f"Only {test['answerable']} answerable test questions in {test['clusters']} clusters: "
            "intervals will be wide and the gate will often be INCONCLUSIVE. More documents help."
        )
    found += [f"The {split} split has no answerable question." for split in SPLITS if not counts[split]["answerable"]]
    found += [
        f"The {split} split has no unanswerable question: abstention cannot be judged on it."
        for split in SPLITS
        if counts[split]["answerable"] and not counts[split]["unanswerable"]
    ]
    return found


def data_card(exam: Exam, counts: Mapping[str, Mapping[str, int]], settings: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {split} | {c['answerable']:,} | {c['unanswerable']:,} | {c['clusters']:,} |" for split, c in counts.items()
    )
    dropped = "\n".join(f"- {number:,}: {reason}" for reason, number in exam.dropped.items()) or "- none"
    warnings = "\n".join(f"- {warning}" for warning in exam.warnings) or "- none"
    return f"""# Exam

{len(exam.items):,} questions derived from {exam.documents:,} documents. A question is the first sentence of a docstring
or section; that span is to be masked from the index. {len(exam.withheld):,} documents are to be left out of the index:
those whose questions are to have no answer, and source files that repeat masked docstrings.

| split | answerable | unanswerable | clusters |
|---|---|---|---|
{rows}

The splits share no cluster (file). Settings: `{json.dumps(settings, sort_keys=True)}`.

First sentences that did not become questions:

{dropped}

Warnings:

{warnings}

Limits: the questions are statements in their authors' words, not what users type; one document counts as right per
question although another may also help.
"""
