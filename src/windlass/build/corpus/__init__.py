"""Corpora: cleaned, deduplicated, split documents with a data card, and a reason for everything that was left out."""

from __future__ import annotations

from windlass.build.corpus.building import Part, build_corpus, parts_of
from windlass.build.corpus.engines import engine
from windlass.build.corpus.reading import corpus_documents, corpus_report, training_documents, training_text
from windlass.build.corpus.settings import CorpusSettings, corpus_settings
from windlass.build.corpus.summary import corpus_summary

__all__ = [
    "CorpusSettings",
    "Part",
    "build_corpus",
    "corpus_documents",
    "corpus_report",
    "corpus_settings",
    "corpus_summary",
    "engine",
    "parts_of",
    "training_documents",
    "training_text",
]
