"""The media hosts that windlass knows by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.apply.media.download import LARGEST
from windlass.apply.media.fal import Fal
from windlass.apply.media.host import MediaHost
from windlass.apply.media.openai_images import OpenAIImages
from windlass.apply.media.prediction import MediaDialect
from windlass.apply.media.replicate import Replicate
from windlass.apply.providers.wire.http import Endpoint, Timeouts
from windlass.apply.providers.wire.keys import ApiKey
from windlass.core.errors import ConfigError
from windlass.core.pricing import prices_at
from windlass.core.protocols import Made


@dataclass(frozen=True, slots=True)
class Host:
    base_url: str
    variable: str
    """Environment variable of the key."""
    dialect: Callable[[str], MediaDialect]
    prefix: str = "Bearer "


HOSTS: Mapping[str, Host] = {
    "replicate": Host("https://api.replicate.com/v1", "REPLICATE_API_TOKEN", Replicate),
    "fal": Host("https://queue.fal.run", "FAL_KEY", Fal, "Key "),
    "openai": Host("https://api.openai.com/v1", "OPENAI_API_KEY", OpenAIImages),
}


def media(
    name: str,
    *,
    folder: str | Path | None = None,
    base_url: str | None = None,
    key_variable: str | None = None,
    timeouts: Timeouts | None = None,
    retries: int = 2,
    proxy: str | None = None,
    price_of: Callable[[Made], float | None] | None = None,
    largest: int = LARGEST,
    transport: Any = None,
) -> MediaHost:
    """The model `host:name`: `media("fal:fal-ai/flux/dev")`. Nothing is sent yet; see `MediaHost`.

    Raises `ConfigError` for a host that is not known, and for a key that is not set, naming its variable.
    """
    kind, colon, wanted = name.partition(":")
    host = HOSTS.get(kind)
    if host is None or not colon or not wanted:
        raise ConfigError(f"'{name}' names no media host.", f"Write host:model; known: {', '.join(HOSTS)}.")
    auth = ApiKey(host.variable if key_variable is None else key_variable, prefix=host.prefix)
    if auth.missing is not None and base_url is None:
        raise ConfigError(f"{auth.missing} is not set.", f"Set the environment variable {auth.missing} to your key.")
    endpoint = Endpoint(
        base_url or host.base_url, auth, timeouts=timeouts, retries=retries, proxy=proxy, transport=transport
    )
    listed = prices_at(endpoint.host)
    return MediaHost(
        endpoint,
        host.dialect(wanted),
        folder=None if folder is None else Path(folder),
        price_of=price_of or (lambda made: listed(made.model, made.usage)),
        largest=largest,
        transport=transport,
    )
