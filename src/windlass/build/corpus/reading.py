"""Reading a corpus artifact: its documents, its report, and the text that a language model is trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from windlass.build.corpus.building import DOCUMENTS, REPORT
from windlass.build.corpus.split import Split
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError


def corpus_documents(
    corpus: Artifact, split: Split | None = None, kinds: Collection[str] | None = None
) -> Iterator[Document]:
    """The documents of a split (None: both) and of the given kinds (None: all), in their fixed order."""
    _check(corpus)
    for document in read_documents(corpus.path / DOCUMENTS):
        if (split is None or document.metadata["split"] == split) and (
            kinds is None or document.metadata["kind"] in kinds
        ):
            yield document


def corpus_report(corpus: Artifact) -> dict[str, Any]:
    """report.json: what was kept, dropped and skipped, and why."""
    _check(corpus)
    return dict(json.loads((corpus.path / REPORT).read_text(encoding="utf-8")))


def training_documents(corpus: Artifact, split: Split, kinds: Collection[str] | None = None) -> Iterator[Document]:
    """The documents to train (or test) a language model on.

    `kinds` None means every kind except `docstring`, whose text the `source` documents hold already; a corpus that
    has no source documents gives its docstrings. Raises `InputError` when there is no such document.
    """
    report = corpus_report(corpus)
    present = {kind for kind in report["kept"] if kind != "all"}
    if kinds is None:
        kinds = present - {"docstring"} if "source" in present else present
    elif unknown := set(kinds) - present:
        raise InputError(
            f"{corpus.ref} has no documents of kind {', '.join(sorted(unknown))}.",
            f"Its kinds are {', '.join(sorted(present))}.",
        )
    if not sum(report["kept"][kind][f"{split}_documents"] for kind in kinds):
        raise InputError(
            f"{corpus.ref} has no {split} documents of kind {', '.join(sorted(kinds))}.",
            "Make a corpus of more files, or with another held-out share.",
        )
    return corpus_documents(corpus, split, kinds)


def training_text(corpus: Artifact, split: Split, kinds: Collection[str] | None = None) -> Iterator[str]:
    """The texts of `training_documents`, one per document."""
    return (document.text for document in training_documents(corpus, split, kinds))


def _check(corpus: Artifact) -> None:
    if corpus.kind != "corpus":
        raise InputError(f"{corpus.ref} is of kind '{corpus.kind}', not a corpus.", "Name a corpus artifact.")
