"""Reading a corpus artifact: its documents, its report, and the text that a language model is trained on."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from typing import Any

from windlass.build.corpus.mixing import copies
from windlass.build.corpus.split import Split
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError

DOCUMENTS = "documents.jsonl"
REPORT = "report.json"


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


def trained_on(kinds: Collection[str]) -> set[str]:
    """Of the kinds of a corpus those that a language model learns from: all but `docstring` where there is `source`.

    The text of docstrings stands in the source documents already.
    """
    present = set(kinds) - {"all"}
    return present - {"docstring"} if "source" in present else present


def training_documents(corpus: Artifact, split: Split, kinds: Collection[str] | None = None) -> Iterator[Document]:
    """The documents to train (or test) a language model on, each once.

    `kinds` None means those of `trained_on`. Raises `InputError` when there is no such document.
    """
    report = corpus_report(corpus)
    present = {kind for kind in report["kept"] if kind != "all"}
    if kinds is None:
        kinds = trained_on(present)
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
    """The texts of `training_documents`: of `train` one pass over the corpus' mix, of `heldout` each once.

    In the mix a document comes as often as `mixing.copies` says; repetitions of a source follow one another as whole
    rounds, so that equal texts do not stand side by side.
    """
    report = corpus_report(corpus)
    first = training_documents(corpus, split, kinds)  # now, so that what is wrong is said now
    if split == "heldout" or not report["mix"]:
        return (document.text for document in first)
    epochs = {part: row["epochs"] for part, row in report["mix"].items()}
    rounds = (first, *(training_documents(corpus, split, kinds) for _ in range(math.ceil(max(epochs.values())) - 1)))
    seed = report["settings"]["seed"]
    return (
        document.text
        for turn, documents in enumerate(rounds)
        for document in documents
        if turn < copies(document.id, epochs[document.metadata["part"]], seed)
    )


def _check(corpus: Artifact) -> None:
    if corpus.kind != "corpus":
        raise InputError(f"{corpus.ref} is of kind '{corpus.kind}', not a corpus.", "Name a corpus artifact.")
