"""Reranking by an embedder: each word of the query looks for its nearest word in the document.

The score is the mean over the query's tokens of the largest cosine with any token of the document, between the vectors
that the encoder gives the tokens in their texts (late interaction: Khattab & Zaharia, arXiv 2004.12832). Nothing has to
be trained; a document costs one pass of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import Relevance
from windlass.serve.encoders.embedder import SentenceEncoder


class LateInteraction:
    """Implements `core.protocols.Reranker`. Safe to share between threads."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self.name = f"{encoder.name} (late interaction)"
        self.digest = sha256_json(["late interaction", 1, encoder.digest])

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        """Raises `InputError` for a query without a word, or naming the document that is not a text."""
        asked, found = self._encoder.words([query], "query"), self._encoder.words(documents)
        (words_QC,) = asked.vectors
        if not len(words_QC):
            raise InputError("The query has no word.")
        scores = [float((words_QC @ words_TC.T).max(1).mean()) if len(words_TC) else -1.0 for words_TC in found.vectors]
        return Relevance(scores, asked.tokens + found.tokens, found.truncated)
