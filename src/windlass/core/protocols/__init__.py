"""The small interfaces where implementations plug in. Each has one conformance suite in `tests/conformance`."""

from __future__ import annotations

from windlass.core.protocols.chat import Adaptable, AsyncChatModel, Cancellable, ChatModel, Measured, Polled, Tokenizing
from windlass.core.protocols.embedding import Embedder, Embeddings, EmbedKind, LateEmbedder
from windlass.core.protocols.index import BatchIndex, Hit, Index, LiveIndex
from windlass.core.protocols.language import LanguageModel, Likelihood, Prompt
from windlass.core.protocols.media import Made, MediaFile, MediaModel
from windlass.core.protocols.reading import (
    Classes,
    Classifying,
    Extract,
    Extracting,
    Finding,
    Relevance,
    Reranker,
    Scan,
)

__all__ = [
    "Adaptable", "AsyncChatModel", "BatchIndex", "Cancellable", "ChatModel", "Classes", "Classifying", "EmbedKind",
    "Embedder", "Embeddings", "Extract", "Extracting", "Finding", "Hit", "Index", "LanguageModel", "LateEmbedder",
    "Likelihood", "LiveIndex", "Made", "Measured", "MediaFile", "MediaModel", "Polled", "Prompt", "Relevance",
    "Reranker", "Scan", "Tokenizing",
]  # fmt: skip
