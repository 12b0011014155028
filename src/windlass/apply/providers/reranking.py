"""Reranking over HTTP, as Cohere, Jina, vLLM and windlass's own server offer it: `POST /rerank`.

reranker("jina:jina-reranker-v2-base-multilingual")
reranker("windlass:ranker", base_url="http://127.0.0.1:8080/v1")
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.config import secret
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.protocols import Relevance

RERANKERS: Mapping[str, tuple[str, str]] = {
    "cohere": ("https://api.cohere.com/v2", "COHERE_API_KEY"),
    "jina": ("https://api.jina.ai/v1", "JINA_API_KEY"),
    "vllm": ("http://127.0.0.1:8000/v1", "VLLM_API_KEY"),
    "windlass": ("http://127.0.0.1:8080/v1", "WINDLASS_API_KEY"),
}
"""Address, and environment variable of the key; a server of one's own may need none."""


class RemoteReranker:
    """Implements `core.protocols.Reranker`. Its tokens are 0 where the endpoint does not count them."""

    digest = None

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model

    @property
    def name(self) -> str:
        return self._model

    def close(self) -> None:
        """Closes its connections."""
        self._endpoint.close()

    def rank(self, query: str, documents: Sequence[str]) -> Relevance:
        """Raises `ProviderError`, also for an answer that does not score each document once."""
        if not documents:
            return Relevance([], 0)
        # the APIs refuse an empty text; a space is the nearest that they take
        texts = [text or " " for text in documents]
        value = self._endpoint.post(Call("/rerank", {"model": self._model, "query": query, "documents": texts}))
        try:
            scores = {int(one["index"]): float(one["relevance_score"]) for one in value["results"]}
            tokens = _tokens(value)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ProviderError(f"{self._endpoint.base_url} answered without usable scores ({error!r}).") from error
        if scores.keys() != set(range(len(texts))) or not all(map(math.isfinite, scores.values())):
            raise ProviderError(
                f"{self._endpoint.base_url} gave {len(scores)} usable scores for {len(texts)} documents."
            )
        return Relevance([scores[place] for place in range(len(texts))], tokens)


def reranker(
    name: str,
    *,
    base_url: str | None = None,
    key_variable: str | None = None,
    timeouts: Timeouts | None = None,
    retries: int = 2,
    transport: Any = None,
) -> RemoteReranker:
    """The reranker `provider:model`. Nothing is sent yet. Raises `ConfigError` for a provider that is not known, and
    for a key that is not set, naming its variable."""
    kind, colon, model = name.partition(":")
    if not colon or not model:
        raise ConfigError(f"'{name}' names no provider.", "Write provider:model, for example windlass:ranker.")
    if kind not in RERANKERS:
        near = difflib.get_close_matches(kind, RERANKERS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(RERANKERS)}."
        raise ConfigError(f"No provider '{kind}' is known for reranking.", hint)
    address, variable = RERANKERS[kind]
    key = variable if key_variable is None else key_variable
    if base_url is None and not address.startswith("http://127.") and not secret(key):
        raise ConfigError(f"{key} is not set.", f"Set the environment variable {key} to your key.")
    made = Endpoint(base_url or address, ApiKey(key), timeouts=timeouts, retries=retries, transport=transport)
    return RemoteReranker(made, model)


def _tokens(value: Mapping[str, Any]) -> int:
    """What was read: Jina and windlass say it under `usage`, Cohere under `meta`, if at all."""
    usage, meta = value.get("usage") or {}, value.get("meta") or {}
    counted = usage.get("total_tokens") or (meta.get("tokens") or {}).get("input_tokens")
    return int(counted or 0)
