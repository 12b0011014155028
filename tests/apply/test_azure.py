"""Azure OpenAI: the requests are those of OpenAI's own SDK, for the v1 API and for the dated one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.apply.provider_world import KEY, Loopback, ask, events, piece, reply

from windlass.apply.providers import known
from windlass.apply.providers.dialects.azure import AzureDeployment
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import ConfigError, ProviderError


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    with Loopback() as loopback:
        monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", loopback.url.removesuffix("v1"))  # Azure shows it with its slash
        yield loopback


def sdk(server: Loopback, version: str | None) -> openai.OpenAI:
    address = server.url.removesuffix("/v1")
    if version is None:
        # the v1 API takes the key in Azure's header, and as OpenAI's SDK sends it
        return openai.OpenAI(base_url=f"{address}/openai/v1", api_key=KEY, default_headers={"api-key": KEY})
    return openai.AzureOpenAI(azure_endpoint=address, api_key=KEY, api_version=version)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("version", [None, "2024-10-21", "2025-04-01-preview"])
def test_our_requests_are_the_official_sdks(
    server: Loopback, monkeypatch: pytest.MonkeyPatch, version: str | None, stream: bool
) -> None:
    server.answer(events(piece("Hel"), piece("lo!"), piece(finish="stop")) if stream else reply())
    if version == "2025-04-01-preview":
        monkeypatch.setenv("OPENAI_API_VERSION", version)
    chat = known.model("azure:my gpt" if version is None else "azure-deployments:my gpt")
    limit = "max_completion_tokens" if version is None else "max_tokens"
    arguments: dict[str, Any] = {
        "model": "my gpt", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5, limit: 9,
    }  # fmt: skip
    with sdk(server, version) as client:
        if stream:
            *_, last = chat.stream(ask(temperature=0.5, max_tokens=9))
            assert last.response is not None and last.response.message.text == "Hello!"
            list(client.chat.completions.create(**arguments, stream=True, stream_options={"include_usage": True}))
        else:
            assert chat.complete(ask(temperature=0.5, max_tokens=9)).message.text == "Hello!"
            client.chat.completions.create(**arguments)
    chat.close()
    ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2]
    assert ours[1]["api-key"] == theirs[1]["api-key"] == KEY and "authorization" not in ours[1]


@pytest.mark.parametrize("name", ["azure", "azure-deployments"])
def test_embeddings_are_the_official_sdks(server: Loopback, name: str) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [3.0, 4.0]}]
    server.answer((200, {}, json.dumps({"data": data, "model": "e", "usage": {"prompt_tokens": 2}}).encode()))
    made = known.embedder(f"{name}:e", dimension=2).embed(["a"])
    assert made.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]] and made.tokens == 2
    with sdk(server, None if name == "azure" else "2024-10-21") as client:
        client.embeddings.create(input=["a"], model="e", dimensions=2)
    ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2]


def test_what_azure_adds_to_answers_is_read_over(server: Loopback) -> None:
    first = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    server.answer(events(first, piece("Hello!"), piece(finish="stop")))
    *_, last = known.model("azure:m").stream(ask())
    assert last.response is not None and (last.response.id, last.response.model) == ("c-1", "m")
    refusal = {"error": {"message": "The response was filtered.", "code": "content_filter", "status": 400}}
    server.answer((400, {}, json.dumps(refusal).encode()))
    with pytest.raises(ProviderError, match="The response was filtered") as caught:
        known.model("azure:m").complete(ask())
    assert caught.value.status == 400


def test_what_is_not_set_is_named(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT")
    with pytest.raises(ConfigError, match="AZURE_OPENAI_ENDPOINT is not set"):
        known.model("azure:m")
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="AZURE_OPENAI_API_KEY is not set"):
        known.embedder("azure-deployments:m")


def test_the_version_can_be_given(server: Loopback) -> None:
    server.answer(reply())
    endpoint = known.model("azure-deployments:m").endpoint
    RemoteChat(endpoint, AzureDeployment("m", version="2024-06-01", limit="max_completion_tokens")).complete(
        ask(max_tokens=5)
    )
    assert server.requests[0][0] == "/openai/deployments/m/chat/completions?api-version=2024-06-01"
    assert server.bodies()[0]["max_completion_tokens"] == 5
