"""Rerankers over HTTP: Cohere's and Jina's answers, our own server's, and those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.apply.provider_world import KEY, Loopback

from windlass.apply.providers.reranking import reranker
from windlass.core.errors import ConfigError, ProviderError
from windlass.core.protocols import Reranker


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


def said(scores: dict[int, Any], **more: Any) -> tuple[int, dict[str, str], bytes]:
    results = [{"index": index, "relevance_score": score} for index, score in scores.items()]
    return 200, {}, json.dumps({"results": results, **more}).encode()


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"model": "m", "usage": {"total_tokens": 31}}, 31),
        ({"id": "1", "meta": {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 17}}}, 17),
        ({"meta": {"billed_units": {"search_units": 1}}}, 0),
        ({}, 0),
    ],
)
def test_scores_come_back_in_the_order_of_the_documents(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], tokens: int
) -> None:
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    server.answer(said({2: 0.9, 0: 0.5, 1: 0.1}, **more))
    with closing(reranker("cohere:rerank-v3.5", base_url=server.url)) as remote:
        assert isinstance(remote, Reranker) and remote.name == "rerank-v3.5" and remote.digest is None
        found = remote.rank("who oils it?", ["a", "", "c"])
    assert list(found.scores) == [0.5, 0.1, 0.9] and found.tokens == tokens
    path, headers, body = server.requests[0]
    assert path == "/v1/rerank" and headers["authorization"] == f"Bearer {KEY}"
    assert body == {"model": "rerank-v3.5", "query": "who oils it?", "documents": ["a", " ", "c"]}


def test_of_no_documents_nobody_is_asked(server: Loopback) -> None:
    assert list(reranker("windlass:r", base_url=server.url).rank("q", []).scores) == []
    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [said({0: 0.5}), said({0: 0.5, 1: None}), said({0: 0.5, 2: 0.1}), (200, {}, b'{"results": 3}'), (200, {}, b"{}")],
)
def test_answers_that_cannot_be_used(server: Loopback, answer: tuple[int, dict[str, str], bytes]) -> None:
    server.answer(answer)
    with (
        closing(reranker("vllm:r", base_url=server.url)) as remote,
        pytest.raises(ProviderError, match="usable scores"),
    ):
        remote.rank("q", ["a", "b"])


def test_names_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="names no provider"):
        reranker("ranker")
    with pytest.raises(ConfigError, match="'cohre' is known for reranking") as refused:
        reranker("cohre:rerank-v3.5")
    assert "cohere" in refused.value.hint
    with pytest.raises(ConfigError, match="JINA_API_KEY is not set"):
        reranker("jina:jina-reranker-v2-base-multilingual")
