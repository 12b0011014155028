"""The proxy on the way to a provider: named by the configuration, or by the environment as curl and others read it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

from windlass.core.errors import ConfigError
from windlass.serve.run import is_loopback

NONE = "none"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: asked with whole addresses for http, and for a tunnel (CONNECT, RFC 9110 9.3.6) for https."""

    host: str
    port: int
    authorization: str = ""
    """The value of `Proxy-Authorization`; empty: it asks for none."""

    @property
    def headers(self) -> list[str]:
        return [f"Proxy-Authorization: {self.authorization}"] if self.authorization else []

    def tunnel(self, host: str, port: int) -> bytes:
        """The request for a connection to a server behind it."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return "\r\n".join([f"CONNECT {where} HTTP/1.1", f"Host: {where}", *self.headers, "", ""]).encode("latin-1")


def proxy_for(provider: str, setting: str, scheme: Literal["http", "https"], host: str, port: int) -> Proxy | None:
    """The proxy between here and `host`; None: it is asked directly. Raises `ConfigError`.

    `setting` is the provider's `proxy`. The environment's is not used for addresses of this machine.
    """
    if setting == NONE:
        return None
    if setting:
        return _parsed(setting, f"the proxy of provider '{provider}'", password=False)
    found = getproxies_environment()
    chosen = found.get(scheme) or found.get("all")
    if not chosen or is_loopback(host) or proxy_bypass_environment(f"{host}:{port}", found):
        return None
    return _parsed(chosen, f"the environment's proxy for {scheme}", password=True)


def _parsed(url: str, what: str, *, password: bool) -> Proxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path.strip("/") or parts.query:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without the password
        raise ConfigError(f"{what} is '{shown}', which is no plain HTTP proxy.", "For example http://127.0.0.1:3128")
    if parts.username is None:
        return Proxy(parts.hostname, port)
    if not password:
        raise ConfigError(
            f"{what} has a user's name in it; secrets never stand in the file.",
            "Leave 'proxy' out, and set HTTPS_PROXY=http://user:password@host:port.",
        )
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(parts.hostname, port, f"Basic {base64.b64encode(login.encode()).decode()}")
