"""The gateway's file: which providers there are, and which routes (the model names of clients) lead to them.

    [providers.openai]
    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"

    [providers.local]
    kind = "vllm"
    base_url = "http://127.0.0.1:8000/v1"

    [routes."gpt-4.1"]
    targets = [{ provider = "openai" }]
    fallbacks = [{ provider = "local", model = "Qwen/Qwen3-32B" }]

Unknown keys, wrong types and names that lead nowhere are refused before the first request.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from windlass.core.config import secret, strict
from windlass.core.errors import ConfigError
from windlass.core.files import sha256_json
from windlass.core.pricing import Price

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
Kind = Literal["openai", "azure", "gemini", "mistral", "vllm", "sglang", "llamacpp", "ollama", "windlass"]
Balance = Literal["weight", "least_busy"]


@dataclass(frozen=True, slots=True)
class Provider:
    """A server that speaks the OpenAI API."""

    base_url: str
    """Up to and including the version: https://api.openai.com/v1"""
    kind: Kind = "openai"
    """Whose server it is, for what it does differently (see `quirks`)."""
    api_key_env: str = ""
    """The environment variable that holds its key; empty: it needs none. Clients never see the key."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent along with every request, for what a provider wants to know: an organization, a referrer."""
    ca_file: str = ""
    """Certificates to trust instead of the system's, for https inside a company."""
    proxy: str = ""
    """The HTTP proxy on the way there: http://proxy.example:3128. Empty: the one that HTTPS_PROXY, HTTP_PROXY or
    ALL_PROXY names, unless NO_PROXY or this machine's own address says otherwise; "none": none at all."""
    connect_s: float = 5.0
    first_byte_s: float = 300.0
    """From the request to the answer's headers. Not streamed, that is the whole computation."""
    idle_s: float = 60.0
    """Between two pieces of an answer."""

    def __post_init__(self) -> None:
        _positive(self, "connect_s", "first_byte_s", "idle_s")
        for name, value in self.headers.items():
            if not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
                raise ValueError(f"headers: '{name}' is no header with a value in ASCII")


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider."""

    provider: str
    model: str = ""
    """The provider's name for the model; empty: the name that the client asked for."""
    weight: float = 1.0
    """Share of the requests, relative to the other targets of its route."""
    price: Price | None = None
    """US dollars per million tokens; without it the price list decides, and what that does not know stays unknown."""

    def __post_init__(self) -> None:
        _positive(self, "weight")


@dataclass(frozen=True, slots=True)
class Route:
    """Where requests for one model name go. A name that ends in * stands for all that begin like it."""

    targets: tuple[Target, ...]
    fallbacks: tuple[Target, ...] = ()
    """Asked in this order once no target has answered."""
    balance: Balance = "weight"
    """How the first target is chosen: by chance in proportion to weight, or fewest running requests per weight."""
    retries: int = 2
    """Further rounds over targets and fallbacks, with a growing wait before each."""
    longest_wait_s: float = 20.0
    """A provider that asks to wait longer than this (`Retry-After`) is not waited for: the client is told instead."""
    cache_s: float = 0.0
    """Seconds for which the same request gets the same answer again; 0: never."""
    connect_s: float | None = None
    first_byte_s: float | None = None
    idle_s: float | None = None
    """Instead of the providers' own, for a model that takes longer than others, or must not."""
    request_s: float | None = None
    """Instead of the gateway's own."""

    def __post_init__(self) -> None:
        _positive(self, "connect_s", "first_byte_s", "idle_s", "request_s")
        if not self.targets:
            raise ValueError("targets is empty; a route leads to at least one")
        if self.retries < 0 or self.cache_s < 0 or self.longest_wait_s < 0:
            raise ValueError("retries, longest_wait_s and cache_s cannot be negative")


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a target that keeps failing is left alone."""

    failures: int = 5
    """Failures in a row that open it: no connection, no answer in time, a broken answer, 5xx."""
    rest_s: float = 20.0
    """How long it then rests; afterwards one request tries."""

    def __post_init__(self) -> None:
        _positive(self, "failures", "rest_s")


@dataclass(frozen=True, slots=True)
class Cache:
    """The memory that all routes with `cache_s` share."""

    bytes: int = 64 << 20
    shared: bool = False
    """Whether a client may get an answer that was made for another client's key."""

    def __post_init__(self) -> None:
        _positive(self, "bytes")


@dataclass(frozen=True, slots=True)
class Traces:
    content: bool = False
    """Whether traces hold what was asked and answered, or only counts, times and costs."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    providers: Mapping[str, Provider]
    routes: Mapping[str, Route]
    breaker: Breaker = field(default_factory=Breaker)
    cache: Cache = field(default_factory=Cache)
    traces: Traces = field(default_factory=Traces)
    prices: Mapping[str, Price] = field(default_factory=dict)
    """`[prices."provider/model"]` or `[prices."model"]`, as in windlass.toml."""
    most_running: int = 1000
    """Requests that may be under way at once; further ones are told to come back (429)."""
    request_bytes: int = 32 << 20
    """The largest request; images travel inside."""
    request_s: float = 900.0
    """From a request to the last byte of its answer, all attempts and waits included."""
    assumed_output_tokens: int = 1000
    """What a request may write that does not say, when its cost is estimated for the budget of its key."""
    answer_bytes: int = 64 << 20
    """The longest answer that is held in memory whole, that is without streaming."""

    def __post_init__(self) -> None:
        _positive(self, "most_running", "request_bytes", "request_s", "assumed_output_tokens", "answer_bytes")
        if not self.routes:
            raise ValueError("there is no route; write [routes.NAME] with targets")
        for name, route in self.routes.items():
            for target in (*route.targets, *route.fallbacks):
                if target.provider not in self.providers:
                    known = ", ".join(self.providers) or "none"
                    raise ValueError(f"route '{name}' leads to provider '{target.provider}'; known are: {known}")
            if "*" in name[:-1]:
                raise ValueError(f"route '{name}' has a * that is not at its end")

    @property
    def digest(self) -> str:
        """SHA-256 over everything the file says, so that a trace can name the settings it ran under."""
        return sha256_json(asdict(self))


def load_gateway(path: Path) -> GatewayConfig:
    """Reads and checks the file. Raises `ConfigError`, which names the file and the key, also for an unset API key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name the file of the gateway.") from error
    config = strict(GatewayConfig, values, where=str(path))
    for name, provider in config.providers.items():
        if provider.api_key_env and secret(provider.api_key_env) is None:
            raise ConfigError(
                f"{path}: the environment variable {provider.api_key_env} of provider '{name}' is empty.",
                f"Set it: export {provider.api_key_env}=…",
            )
    return config


def _positive(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, but must be above 0")
