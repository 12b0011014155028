"""Embeddings over the OpenAI HTTP API, which nearly every server speaks.

The requests are those of the official SDK for the same parameters; tests send both to one server and compare.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from windlass.apply.providers.dialect import Call
from windlass.apply.providers.http import Endpoint
from windlass.core.errors import ProviderError
from windlass.core.files import sha256_json
from windlass.core.protocols import Embeddings, EmbedKind


class OpenAIEmbedder:
    """Implements `Embedder` over `POST /embeddings`.

    A remote model has no digest of its own: ours covers address, model and dimension, so a change behind the same
    name is not noticed. The dimension is asked for once, by embedding one word, unless it is given.
    """

    def __init__(self, endpoint: Endpoint, model: str, *, dimension: int | None = None, batch: int = 128) -> None:
        self._endpoint = endpoint
        self._model = model
        self._asked = dimension
        self._dimension: int | None = dimension
        self._batch = batch

    @property
    def name(self) -> str:
        return self._model

    @property
    def digest(self) -> str:
        return sha256_json(["openai-compatible", self._endpoint.base_url, self._model, self.dimension])

    @property
    def dimension(self) -> int:
        if self._dimension is None:
            self._dimension = int(self._post(["dimension"])[0].shape[1])
        return self._dimension

    def embed(self, texts: Sequence[str], kind: EmbedKind = "passage") -> Embeddings:
        dimension = self.dimension
        rows, tokens = [np.zeros((0, dimension), np.float32)], 0
        for at in range(0, len(texts), self._batch):
            # the API refuses an empty text; a space is the nearest that it takes
            vectors, count = self._post([text or " " for text in texts[at : at + self._batch]])
            rows.append(vectors)
            tokens += count
        return Embeddings(np.concatenate(rows), tokens)

    def _post(self, texts: Sequence[str]) -> tuple[Any, int]:
        body: dict[str, Any] = {"input": list(texts), "model": self._model}
        if self._asked is not None:
            body["dimensions"] = self._asked
        body["encoding_format"] = "base64"
        value = self._endpoint.post(Call("/embeddings", body))
        try:
            data = sorted(value["data"], key=lambda item: item["index"])
            vectors = np.stack([_vector(item["embedding"]) for item in data])
            tokens = int((value.get("usage") or {}).get("prompt_tokens") or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise ProviderError(f"{self._endpoint.base_url} answered without usable embeddings ({error!r}).") from error
        if len(vectors) != len(texts) or (self._dimension is not None and vectors.shape[1] != self._dimension):
            raise ProviderError(
                f"{self._endpoint.base_url} gave vectors of shape {vectors.shape}, "
                f"not ({len(texts)}, {self._dimension})."
            )
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), tokens


def _vector(value: Any) -> Any:
    """Servers answer base64 of little-endian float32 as asked, or a list of numbers all the same."""
    if isinstance(value, str):
        return np.frombuffer(base64.b64decode(value), "<f4").astype(np.float32)
    return np.asarray(value, np.float32)
