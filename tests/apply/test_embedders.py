"""Embedders by name, and Gemini's, whose requests are the official SDK's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from google import genai
from google.genai import types
from tests.apply.provider_world import KEY, Loopback

from windlass.apply.providers import known
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.protocols import Embedder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    with Loopback() as loopback:
        yield loopback


def vectors(count: int, width: int = 2) -> tuple[int, dict[str, str], bytes]:
    embeddings = [{"values": [3.0 + n, 4.0] + [0.0] * (width - 2)} for n in range(count)]
    return 200, {}, json.dumps({"embeddings": embeddings, "usageMetadata": {"promptTokenCount": 7}}).encode()


@pytest.mark.parametrize(("kind", "task"), [("query", "RETRIEVAL_QUERY"), ("passage", "RETRIEVAL_DOCUMENT")])
def test_gemini_is_asked_as_by_the_official_sdk(server: Loopback, kind: str, task: str) -> None:
    server.answer(vectors(2))
    embedder = known.embedder("gemini:gemini-embedding-001", base_url=server.url, dimension=2)
    assert isinstance(embedder, Embedder) and embedder.name == "gemini-embedding-001" and len(embedder.digest) == 64
    made = embedder.embed(["a", "b"], kind)  # type: ignore[arg-type]
    assert made.tokens == 7 and np.allclose(made.vectors, [[0.6, 0.8], [2**-0.5, 2**-0.5]])
    options = types.HttpOptions(base_url=server.url.removesuffix("/v1"), api_version="v1")
    config = types.EmbedContentConfig(task_type=task, output_dimensionality=2)
    with genai.Client(api_key=KEY, http_options=options) as client:
        client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=config)
    ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert ours[1]["x-goog-api-key"] == theirs[1]["x-goog-api-key"]


def test_gemini_learns_its_dimension_and_asks_for_many_in_turns(server: Loopback) -> None:
    server.answer(vectors(1, 3), vectors(100, 3), vectors(1, 3))
    made = known.embedder("gemini:e", base_url=server.url).embed(["a"] * 100 + [""])
    assert made.vectors.shape == (101, 3) and made.tokens == 14
    assert [len(body["requests"]) for body in server.bodies()] == [1, 100, 1]
    assert server.bodies()[2]["requests"][0]["content"]["parts"] == [{"text": " "}]


def test_answers_that_cannot_be_used(server: Loopback) -> None:
    embedder = known.embedder("gemini:e", base_url=server.url, dimension=2)
    for answer in (b'{"embeddings": [{}]}', b'{"embeddings": "no"}', b"{}", b'{"embeddings": [{"values": ["a"]}]}'):
        server.answer((200, {}, answer))
        with pytest.raises(ProviderError, match="without usable embeddings"):
            embedder.embed(["a"])
    server.answer(vectors(2))
    with pytest.raises(ProviderError, match=r"not \(1, 2\)"):
        embedder.embed(["a"])


def test_names(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert known.embedder("openai:text-embedding-3-small").name == "text-embedding-3-small"
    with pytest.raises(ConfigError, match="'anthropic' is known for no embeddings"):
        known.embedder("anthropic:m")
    with pytest.raises(ConfigError, match="no provider 'opena'"):
        known.embedder("opena:m")
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="MISTRAL_API_KEY is not set"):
        known.embedder("mistral:m")
