"""The providers that windlass knows by name: `model("openai:gpt-5-mini")`, `model("ollama:qwen3")`.

A name stands for an address, a key's environment variable and a dialect; each can be given otherwise. `embedder` knows
those of the same names that embed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.apply.providers.dialects.anthropic import HEADERS, Anthropic
from windlass.apply.providers.dialects.azure import AzureDeployment, deployed
from windlass.apply.providers.dialects.bedrock import Bedrock
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.dialect import Dialect, OnUnsupported
from windlass.apply.providers.dialects.gemini import Gemini
from windlass.apply.providers.dialects.mistral import Mistral
from windlass.apply.providers.dialects.responses import Responses
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey, Auth
from windlass.apply.providers.wire.sigv4 import SigV4
from windlass.core.config import Config, secret
from windlass.core.errors import ConfigError
from windlass.core.pricing import Price, prices_at
from windlass.core.protocols import Embedder


@dataclass(frozen=True, slots=True)
class Provider:
    base_url: str
    """`{NAME}` in it is the value of that environment variable; `{ONE|OTHER}` of the first that is set."""
    variable: str
    """Environment variable of the key. Empty: a server of one's own, which needs none."""
    dialect: Callable[[str], Dialect] = ChatCompletions
    auth: Callable[[str], Auth] = ApiKey
    headers: Mapping[str, str] | None = None
    embeds: bool = True


def _openai(model: str) -> Dialect:
    return ChatCompletions(model, limit="max_completion_tokens")


# vLLM, SGLang and llama.cpp sample in ways of their own, asked for by these names.
_LOCAL_EXTRA = frozenset(
    {"top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "chat_template_kwargs"}
)


def _local(model: str) -> Dialect:
    return ChatCompletions(model, extra=_LOCAL_EXTRA)


def _without_batches(model: str) -> Dialect:
    return ChatCompletions(model, batches=False)


def _router(model: str) -> Dialect:
    """A seller of models that run on such servers."""
    return ChatCompletions(model, extra=_LOCAL_EXTRA, batches=False)


_REGION = "AWS_REGION|AWS_DEFAULT_REGION"


def _aws(variable: str) -> Auth:
    """Amazon's keys for this service go before those of the account, as in its SDKs."""
    if variable or secret("AWS_BEARER_TOKEN_BEDROCK"):
        return ApiKey(variable or "AWS_BEARER_TOKEN_BEDROCK")
    return SigV4("bedrock", _set(_REGION))


def _azure(variable: str) -> Auth:
    return ApiKey(variable, "api-key", "")


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", _openai),
    "openai-responses": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", Responses, embeds=False),
    "azure": Provider("{AZURE_OPENAI_ENDPOINT}/openai/v1", "AZURE_OPENAI_API_KEY", _openai, _azure),
    "azure-deployments": Provider("{AZURE_OPENAI_ENDPOINT}/openai", "AZURE_OPENAI_API_KEY", AzureDeployment, _azure),
    "bedrock": Provider(f"https://bedrock-runtime.{{{_REGION}}}.amazonaws.com", "", Bedrock, _aws, embeds=False),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        Gemini,
        lambda variable: ApiKey(variable, "x-goog-api-key", ""),
    ),
    "anthropic": Provider(
        "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", Anthropic, headers=HEADERS, embeds=False
    ),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY", Mistral),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY", embeds=False),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY", _router),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", _router),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", _without_batches, embeds=False),
    "ollama": Provider("http://127.0.0.1:11434/v1", ""),
    "vllm": Provider("http://127.0.0.1:8000/v1", "VLLM_API_KEY", _local),
    "llamacpp": Provider("http://127.0.0.1:8080/v1", "LLAMA_API_KEY", _local),
    "lmstudio": Provider("http://127.0.0.1:1234/v1", ""),
    "windlass": Provider("http://127.0.0.1:8080/v1", "WINDLASS_API_KEY", _local),
}


def model(
    name: str,
    *,
    base_url: str | None = None,
    key_variable: str | None = None,
    timeouts: Timeouts | None = None,
    retries: int = 2,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    prices: Mapping[str, Price] | None = None,
    on_unsupported: OnUnsupported = "error",
    transport: Any = None,
) -> RemoteChat:
    """The model `provider:name`. Nothing is sent yet.

    Raises `ConfigError` for a provider that is not known, and for a key that is not set, naming its variable.
    """
    provider, wanted = _named(name)
    made = Endpoint(
        *_door(provider, base_url, key_variable),
        timeouts=timeouts,
        retries=retries,
        headers={**(provider.headers or {}), **(headers or {})},
        proxy=proxy,
        transport=transport,
    )
    return RemoteChat(
        made, provider.dialect(wanted), price_of=prices_at(made.host, prices), on_unsupported=on_unsupported
    )


def embedder(
    name: str,
    *,
    base_url: str | None = None,
    key_variable: str | None = None,
    dimension: int | None = None,
    timeouts: Timeouts | None = None,
    retries: int = 2,
    proxy: str | None = None,
    transport: Any = None,
) -> Embedder:
    """The embedder `provider:name`: `embedder("openai:text-embedding-3-small")`. Nothing is sent yet.

    `dimension`: of the vectors, where the model can shorten them. Raises as `model`.
    """
    from windlass.apply.providers.embeddings import GeminiEmbedder, OpenAIEmbedder  # numpy: not for chats

    provider, wanted = _named(name)
    if not provider.embeds:
        able = ", ".join(key for key, value in PROVIDERS.items() if value.embeds)
        raise ConfigError(f"'{name.partition(':')[0]}' is known for no embeddings.", f"These are: {able}.")
    made = Endpoint(
        *_door(provider, base_url, key_variable), timeouts=timeouts, retries=retries, proxy=proxy, transport=transport
    )
    if provider.dialect is Gemini:
        return GeminiEmbedder(made, wanted, dimension=dimension)
    path = deployed(wanted, "/embeddings") if provider.dialect is AzureDeployment else "/embeddings"
    return OpenAIEmbedder(made, wanted, dimension=dimension, path=path)


def _named(name: str) -> tuple[Provider, str]:
    kind, colon, wanted = name.partition(":")
    if not colon or not wanted:
        raise ConfigError(f"'{name}' names no provider.", "Write provider:model, for example ollama:qwen3.")
    provider = PROVIDERS.get(kind)
    if provider is None:
        near = difflib.get_close_matches(kind, PROVIDERS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(PROVIDERS)}."
        raise ConfigError(f"There is no provider '{kind}'.", hint)
    return provider, wanted


def _door(provider: Provider, base_url: str | None, key_variable: str | None) -> tuple[str, Auth]:
    """Address and key. Another address than the provider's own may need no key."""
    auth = provider.auth(provider.variable if key_variable is None else key_variable)
    if base_url is not None:
        return base_url, auth
    if auth.missing is not None and not provider.base_url.startswith("http://127."):
        raise ConfigError(f"{auth.missing} is not set.", f"Set the environment variable {auth.missing} to your key.")
    return re.sub(r"\{(.+?)\}", lambda match: _set(match[1]).rstrip("/"), provider.base_url), auth


def _set(names: str) -> str:
    """The value of the first of these environment variables that is set."""
    first, *_ = variables = names.split("|")
    value = next((value for name in variables if (value := secret(name))), None)
    if value is None:
        raise ConfigError(f"{first} is not set.", f"Set the environment variable {first}.")
    return value


def from_config(config: Config) -> RemoteChat:
    """The model of `[model]` in windlass.toml. Raises `ConfigError` when it is incomplete."""
    settings = config.model
    if not settings.base_url or not settings.model:
        missing = "base_url" if not settings.base_url else "model"
        raise ConfigError(f"windlass.toml: [model] has no {missing}.", "Set both base_url and model.")
    timeouts = Timeouts(read=settings.timeout_s)
    try:
        return at(settings.base_url, settings.model, settings.api_key_env, timeouts=timeouts, prices=config.prices)
    except ConfigError as error:
        raise ConfigError(f"windlass.toml: [model] {error.message}", error.hint) from None


def at(
    base_url: str,
    name: str,
    key_variable: str = "OPENAI_API_KEY",
    *,
    timeouts: Timeouts | None = None,
    prices: Mapping[str, Price] | None = None,
) -> RemoteChat:
    """The model of that name behind an address that speaks the OpenAI API."""
    endpoint = Endpoint(base_url, ApiKey(key_variable), timeouts=timeouts)
    own: Mapping[str, Callable[[str], Dialect]] = {"api.openai.com": _openai, "api.mistral.ai": Mistral}
    dialect = own.get(endpoint.host, ChatCompletions)(name)
    return RemoteChat(endpoint, dialect, price_of=prices_at(endpoint.host, prices))
