"""A tokenizer on the held-out text of a corpus, kind by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from windlass.build.corpus import corpus_report, training_text
from windlass.build.tokenizer.lossless import check_lossless
from windlass.build.tokenizer.measuring import TokenCount, measure
from windlass.core.artifacts import Artifact
from windlass.core.tables import table

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def evaluate_tokenizer(tokenizer: Tokenizer, corpus: Artifact) -> dict[str, dict[str, Any]]:
    """Measures on the held-out text, by kind and for `all` together; empty when the corpus holds nothing out.

    Each text is checked to come back unchanged.
    """
    counts: dict[str, TokenCount] = {}
    for kind, row in corpus_report(corpus)["kept"].items():
        if kind != "all" and row["heldout_documents"]:
            check_lossless(tokenizer, training_text(corpus, "heldout", [kind]))
            counts[kind] = measure(tokenizer, training_text(corpus, "heldout", [kind]))
    if counts:
        columns = ("documents", "bytes", "words", "tokens")
        counts["all"] = TokenCount(*(sum(getattr(c, column) for c in counts.values()) for column in columns))
    return {kind: count.as_json() for kind, count in counts.items()}


def tokenizer_summary(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of measures: name of the text -> what `TokenCount.as_json` gives."""
    columns = ("documents", "bytes", "tokens", "bytes_per_token", "fertility")
    return table(
        ("text", "documents", "bytes", "tokens", "bytes/token", "tokens/word"),
        ((name, *(row[column] for column in columns)) for name, row in rows.items()),
    )
