"""Embeddings over HTTP: the OpenAI API, which nearly every server speaks, and Gemini's.

The requests are those of the official SDKs for the same parameters; tests send both to one server and compare.
"""

from __future__ import annotations

import abc
import base64
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.wire.http import Endpoint
from windlass.core.errors import ProviderError
from windlass.core.files import sha256_json
from windlass.core.protocols import Embeddings, EmbedKind


class RemoteEmbedder(abc.ABC):
    """Implements `Embedder` over HTTP; a class for each API says what is sent and reads what comes back.

    A remote model has no digest of its own: ours covers address, model and dimension, so a change behind the same
    name is not noticed. The dimension is asked for once, by embedding one word, unless it is given.
    """

    api: str
    """Part of the digest."""

    def __init__(self, endpoint: Endpoint, model: str, *, dimension: int | None = None, batch: int = 100) -> None:
        self._endpoint = endpoint
        self._model = model
        self._asked = dimension
        self._dimension: int | None = dimension
        self._batch = batch
        # Also when it is forgotten: who opens an index by its name does not know that its embedder keeps connections.
        self.close = weakref.finalize(self, endpoint.close)

    @property
    def name(self) -> str:
        return self._model

    @property
    def digest(self) -> str:
        return sha256_json([self.api, self._endpoint.base_url, self._model, self.dimension])

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = int(self._post(["dimension"], "passage")[0].shape[1])
        return self._dimension

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        dimension = self.dimension
        rows, tokens = [np.zeros((0, dimension), np.float32)], 0
        for at in range(0, len(texts), self._batch):
            # the APIs refuse an empty text; a space is the nearest that they take
            vectors, count = self._post([text or " " for text in texts[at : at + self._batch]], kind)
            rows.append(vectors)
            tokens += count
        return Embeddings(np.concatenate(rows), tokens)

    @abc.abstractmethod
    def _call(self, texts: Sequence[str], kind: EmbedKind) -> Call: ...

    @abc.abstractmethod
    def _read(self, value: Mapping[str, Any]) -> tuple[list[Any], int]:
        """A vector for each text, and the tokens read. May raise what a malformed answer raises."""

    def _post(self, texts: Sequence[str], kind: EmbedKind) -> tuple[Any, int]:
        value = self._endpoint.post(self._call(texts, kind))
        try:
            found, tokens = self._read(value)
            vectors = np.stack(found)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ProviderError(f"{self._endpoint.base_url} answered without usable embeddings ({error!r}).") from error
        if len(vectors) != len(texts) or (self._dimension is not None and vectors.shape[1] != self._dimension):
            raise ProviderError(
                f"{self._endpoint.base_url} gave vectors of shape {vectors.shape}, "
                f"not ({len(texts)}, {self._dimension})."
            )
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), tokens


class OpenAIEmbedder(RemoteEmbedder):
    """`POST /embeddings`, or another `path` to the same: Azure's dated API has one for each deployment."""

    api = "openai-compatible"

    def __init__(
        self, endpoint: Endpoint, model: str, *, dimension: int | None = None, batch: int = 128,
        path: str = "/embeddings",
    ) -> None:  # fmt: skip
        super().__init__(endpoint, model, dimension=dimension, batch=batch)
        self._path = path

    def _call(self, texts: Sequence[str], kind: EmbedKind) -> Call:
        body: dict[str, Any] = {"input": list(texts), "model": self._model}
        if self._asked is not None:
            body["dimensions"] = self._asked
        body["encoding_format"] = "base64"
        return Call(self._path, body)

    def _read(self, value: Mapping[str, Any]) -> tuple[list[Any], int]:
        data = sorted(value["data"], key=lambda item: item["index"])
        return [_vector(item["embedding"]) for item in data], int((value.get("usage") or {}).get("prompt_tokens") or 0)


class GeminiEmbedder(RemoteEmbedder):
    """`POST /models/NAME:batchEmbedContents`, which takes at most 100 texts at once."""

    api = "gemini"
    _TASKS: Mapping[EmbedKind, str] = {"query": "RETRIEVAL_QUERY", "passage": "RETRIEVAL_DOCUMENT"}

    def _call(self, texts: Sequence[str], kind: EmbedKind) -> Call:
        common: dict[str, Any] = {"model": f"models/{self._model}", "taskType": self._TASKS[kind]}
        if self._asked is not None:
            common["outputDimensionality"] = self._asked
        requests = [{"content": {"parts": [{"text": text}], "role": "user"}, **common} for text in texts]
        return Call(f"/models/{self._model}:batchEmbedContents", {"requests": requests})

    def _read(self, value: Mapping[str, Any]) -> tuple[list[Any], int]:
        vectors = [_vector(item["values"]) for item in value["embeddings"]]
        return vectors, int((value.get("usageMetadata") or {}).get("promptTokenCount") or 0)


def _vector(value: Any) -> Any:
    """Servers answer base64 of little-endian float32 as asked, or a list of numbers all the same."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float32)
    return np.asarray(value, np.float32)
