"""Corpora: cleaned, deduplicated, split documents with a data card, and a reason for everything that was left out."""

from __future__ import annotations

from windlass.build.corpus.building import build_corpus
from windlass.build.corpus.reading import corpus_documents, corpus_report, training_documents, training_text
from windlass.build.corpus.summary import corpus_summary

__all__ = [
    "build_corpus",
    "corpus_documents",
    "corpus_report",
    "corpus_summary",
    "training_documents",
    "training_text",
]
