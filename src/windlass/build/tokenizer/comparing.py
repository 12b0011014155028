"""Several tokenizers on the same text: one report, kept as an artifact, and tables for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.build.corpus import corpus_report
from windlass.build.tokenizer.evaluating import evaluate_tokenizer
from windlass.build.tokenizer.loading import load_tokenizer
from windlass.build.tokenizer.specials import load_specials
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.tables import table
from windlass.core.workspace import Workspace


def compare_tokenizers(
    ws: Workspace, tokenizers: Sequence[Artifact | Path], corpus: Artifact, *, by_language: bool = False
) -> Artifact:
    """Evaluates each on the corpus and stores report.json as an artifact of kind `report`.

    A tokenizer is an artifact that holds one, or a model's folder. `by_language` as in `evaluate_tokenizer`. Raises
    `InputError` when the corpus holds nothing out: text that a tokenizer was trained on would flatter it.
    """
    loaded = [(_name(one), load_tokenizer(one), load_specials(one)) for one in tokenizers]
    if not corpus_report(corpus)["kept"]["all"]["heldout_documents"]:
        raise InputError(f"{corpus.ref} holds nothing out.", "Make a corpus of two files or more.")
    names = [name for name, _, _ in loaded]
    with (
        ws.runs.start("tokenizer-eval", names[0], config={"tokenizers": names, "corpus": corpus.digest}) as run,
        ws.artifacts.build("report", f"{Path(names[0]).name.partition('@')[0]}-eval", run=run.id) as draft,
    ):
        draft.add_parent("corpus", corpus)
        reports = {}
        for one, (name, tokenizer, specials) in zip(tokenizers, loaded, strict=True):
            if isinstance(one, Artifact):
                draft.add_parent("tokenizer", one)
            reports[name] = evaluate_tokenizer(tokenizer, specials, corpus, by_language=by_language)
            run.log(0, **{f"bytes_per_token/{name}": reports[name]["heldout"]["all"]["bytes_per_token"]})
        write_json(draft.path / "report.json", {"corpus": corpus.ref, "tokenizers": reports})
        draft.card.update({"description": f"{', '.join(names)} on {corpus.ref}"})
    return draft.done


def comparison_reports(report: Artifact) -> dict[str, dict[str, Any]]:
    """Name -> report of each tokenizer, from what `compare_tokenizers` stored."""
    return dict(json.loads((report.path / "report.json").read_text(encoding="utf-8"))["tokenizers"])


def _name(tokenizer: Artifact | Path) -> str:
    return str(tokenizer) if isinstance(tokenizer, Path) else tokenizer.ref


def tokenizer_summary(report: Mapping[str, Any]) -> str:
    """What one tokenizer makes of a corpus: a table of texts, then what else was found, a line each."""
    rows = {"train": report["train"], **report["heldout"]}
    for group in ("part", "language"):
        rows |= {f"{group} {name}": row for name, row in report[f"{group}s"].items() if name != "all"}
    columns = ("documents", "bytes", "tokens", "bytes_per_token", "fertility")
    text = table(
        ("text", "documents", "bytes", "tokens", "bytes/token", "tokens/word"),
        ((name, *(row[column] for column in columns)) for name, row in rows.items()),
    )
    back, numbers = report["round_trip"], report["numbers"]
    changed = back["first_changed"]
    lines = [
        f"comes back unchanged: {_share(back['heldout'])} of held-out documents, {_share(back['train'])} of training "
        f"documents, {_share(back['random'])} of {back['random_texts']} random Unicode texts",
        *([f"  first change: {changed['text']!r} came back as {changed['came_back']!r}"] if changed else []),
        *([] if report["unknown"] is None else [f"unknown tokens: {_share(report['unknown'])}"]),
        f"numbers: {_number(numbers['digits_per_token'])} digits per token over {numbers['found']:,} found; "
        f"{_share(numbers['same_cut'])} of random ones are cut as their length is",
        f"never used: {report['unused']:,} of {report['vocab_size']:,} tokens ({_share(report['unused_share'])})",
        "longest tokens: " + ", ".join(repr(token) for token in report["longest_tokens"][:5]),
    ]
    return text + "\n\n" + "\n".join(lines)


def tokenizer_comparison(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per tokenizer, all measured on the same text; name -> report."""
    rows = []
    for name, report in reports.items():
        shown = report["heldout"]["all"]
        back, numbers = report["round_trip"], report["numbers"]
        rows.append(
            (
                name,
                report["vocab_size"],
                shown["bytes_per_token"],
                shown["fertility"],
                report["heldout"].get("source", {}).get("bytes_per_token"),
                numbers["digits_per_token"],
                _share(back["heldout"]),
                _share(back["random"]),
                _share(report["unknown"]),
                _share(report["unused_share"]),
            )
        )
    headers = (
        *("tokenizer", "tokens", "bytes/token", "tokens/word", "code bytes/token", "digits/token"),
        *("text back", "Unicode back", "unknown", "unused"),
    )
    return table(headers, rows, right=range(6, 10))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
