"""Proxies between here and an endpoint: the one that is given, or else those of the environment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import httpx2

from windlass.core.errors import ConfigError


def of_environment() -> Mapping[str, str]:
    """By scheme."""
    from urllib.request import getproxies

    return {scheme: url for scheme, url in getproxies().items() if scheme != "no"}


def passwords(proxy: str | None) -> Iterator[str]:
    """Of the proxy that is given, or else of those in the environment."""
    for url in of_environment().values() if proxy is None else [proxy]:
        with contextlib.suppress(httpx2.InvalidURL):
            yield httpx2.URL(url).password


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Connections are made here, and proxies looked at. Raises `ConfigError` without showing their passwords."""
    try:
        yield
    except (httpx2.InvalidURL, ValueError, ImportError) as error:
        why = f" ({error})" if isinstance(error, ImportError) else ""
        raise ConfigError(
            f"The proxy cannot be used{why}.",
            "Look at proxy=, or HTTP_PROXY, HTTPS_PROXY and ALL_PROXY: for example http://user:password@proxy:3128.",
        ) from None
