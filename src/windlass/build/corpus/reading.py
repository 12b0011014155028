"""Reading a corpus artifact: its documents, its report, and the text that a language model is trained on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from windlass.build.corpus.mixing import copies
from windlass.build.corpus.split import Split
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, documents_at, placed_documents
from windlass.core.errors import InputError

DOCUMENTS = "documents.jsonl"
REPORT = "report.json"


def corpus_documents(
    corpus: Artifact, split: Split | None = None, kinds: Collection[str] | None = None
) -> Iterator[Document]:
    """The documents of a split (None: both) and of the given kinds (None: all), in their fixed order."""
    return (document for _, document in _placed(corpus, split, kinds))


def _placed(
    corpus: Artifact, split: Split | None = None, kinds: Collection[str] | None = None
) -> Iterator[tuple[int, Document]]:
    """The same with their places in the file."""
    _check(corpus)
    for place, document in placed_documents(corpus.path / DOCUMENTS):
        if (split is None or document.metadata["split"] == split) and (
            kinds is None or document.metadata["kind"] in kinds
        ):
            yield place, document


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
    return corpus_documents(corpus, split, _kinds(corpus, split, kinds))


def _kinds(corpus: Artifact, split: Split, kinds: Collection[str] | None) -> Collection[str]:
    """The kinds of `training_documents`. Raises `InputError` where a split has nothing of them."""
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
            "Make a corpus of more files, or of a text cut into several: whole files are held out.",
        )
    return kinds


def training_text(corpus: Artifact, split: Split, kinds: Collection[str] | None = None) -> Iterator[str]:
    """The texts of `training_documents`: of `train` one pass over the corpus' mix, of `heldout` each once.

    In the mix a document comes as often as `mixing.copies` says; repetitions of a source follow one another as whole
    rounds, so that equal texts do not stand side by side.
    """
    report = corpus_report(corpus)
    wanted = _kinds(corpus, split, kinds)  # now, so that what is wrong is said now
    if split == "heldout" or not report["mix"]:
        return (document.text for document in corpus_documents(corpus, split, wanted))
    epochs = {part: row["epochs"] for part, row in report["mix"].items()}
    return _mixed(corpus, wanted, epochs, report["settings"]["seed"])


def _mixed(corpus: Artifact, kinds: Collection[str], epochs: Mapping[str, float], seed: int) -> Iterator[str]:
    """The file is read once; what comes again is found by its place, or a source that is seen sixty times would have
    the whole corpus read sixty times."""
    again: list[tuple[int, int]] = []
    for place, document in _placed(corpus, "train", kinds):
        times = copies(document.id, epochs[document.metadata["part"]], seed)
        if times:
            yield document.text
        if times > 1:
            again.append((place, times))
    turn = 1
    while again := [(place, times) for place, times in again if times > turn]:
        for document in documents_at(corpus.path / DOCUMENTS, (place for place, _ in again)):
            yield document.text
        turn += 1


def _check(corpus: Artifact) -> None:
    if corpus.kind != "corpus":
        raise InputError(f"{corpus.ref} is of kind '{corpus.kind}', not a corpus.", "Name a corpus artifact.")
