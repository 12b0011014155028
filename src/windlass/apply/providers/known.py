"""The providers that windlass knows by name: `model("openai:gpt-5-mini")`, `model("ollama:qwen3")`.

A name stands for an address, a key's environment variable and a dialect; each can be given otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from windlass.apply.providers.anthropic import HEADERS, Anthropic
from windlass.apply.providers.chat_completions import ChatCompletions
from windlass.apply.providers.dialect import Dialect, OnUnsupported
from windlass.apply.providers.gemini import Gemini
from windlass.apply.providers.http import Endpoint, Timeouts
from windlass.apply.providers.keys import ApiKey, Auth
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.responses import Responses
from windlass.core.config import Config, secret
from windlass.core.errors import ConfigError
from windlass.core.pricing import Price, prices_at


@dataclass(frozen=True, slots=True)
class Provider:
    base_url: str
    variable: str
    """Environment variable of the key. Empty: a server of one's own, which needs none."""
    dialect: Callable[[str], Dialect] = ChatCompletions
    auth: Callable[[str], Auth] = ApiKey
    headers: Mapping[str, str] | None = None


def _openai(model: str) -> Dialect:
    return ChatCompletions(model, limit="max_completion_tokens")


# vLLM, SGLang and llama.cpp sample in ways of their own, asked for by these names.
_LOCAL_EXTRA = frozenset(
    {"top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "chat_template_kwargs"}
)


def _local(model: str) -> Dialect:
    return ChatCompletions(model, extra=_LOCAL_EXTRA)


PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", _openai),
    "openai-responses": Provider("https://api.openai.com/v1", "OPENAI_API_KEY", Responses),
    "gemini": Provider(
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        Gemini,
        lambda variable: ApiKey(variable, "x-goog-api-key", ""),
    ),
    "anthropic": Provider("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", Anthropic, headers=HEADERS),
    "mistral": Provider("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "groq": Provider("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "together": Provider("https://api.together.xyz/v1", "TOGETHER_API_KEY", _local),
    "openrouter": Provider("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", _local),
    "deepseek": Provider("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
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
    kind, colon, wanted = name.partition(":")
    if not colon or not wanted:
        raise ConfigError(f"'{name}' names no provider.", "Write provider:model, for example ollama:qwen3.")
    provider = PROVIDERS.get(kind)
    if provider is None:
        near = difflib.get_close_matches(kind, PROVIDERS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(PROVIDERS)}."
        raise ConfigError(f"There is no provider '{kind}'.", hint)
    variable = provider.variable if key_variable is None else key_variable
    if base_url is None and variable and secret(variable) is None and not provider.base_url.startswith("http://127."):
        raise ConfigError(f"{variable} is not set.", f"Set the environment variable {variable} to your key.")
    endpoint = Endpoint(
        base_url or provider.base_url,
        provider.auth(variable),
        timeouts=timeouts,
        retries=retries,
        headers={**(provider.headers or {}), **(headers or {})},
        proxy=proxy,
        transport=transport,
    )
    return RemoteChat(
        endpoint, provider.dialect(wanted), price_of=prices_at(endpoint.host, prices), on_unsupported=on_unsupported
    )


def from_config(config: Config) -> RemoteChat:
    """The model of `[model]` in windlass.toml. Raises `ConfigError` when it is incomplete."""
    settings = config.model
    if not settings.base_url or not settings.model:
        missing = "base_url" if not settings.base_url else "model"
        raise ConfigError(f"windlass.toml: [model] has no {missing}.", "Set both base_url and model.")
    timeouts = Timeouts(read=settings.timeout_s)
    return at(settings.base_url, settings.model, settings.api_key_env, timeouts=timeouts, prices=config.prices)


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
    dialect = _openai(name) if endpoint.host == "api.openai.com" else ChatCompletions(name)
    return RemoteChat(endpoint, dialect, price_of=prices_at(endpoint.host, prices))
