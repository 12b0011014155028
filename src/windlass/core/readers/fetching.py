"""One web page, fetched with care: what it may cost is bounded, and it may not lead into the network that we stand in.

A list of addresses may come from a stranger, and a page may redirect anywhere. A server that fetches what it is told
can be sent to machines that only it can reach (server-side request forgery, CWE-918). So each name is looked up once,
all of its addresses must be public, and the connection goes to the address that was checked: a name that changes its
mind between check and use (DNS rebinding) gains nothing. Proxies of the environment are not used: they look up names
themselves.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    import httpx2

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """The address is not fetched, or its answer not taken. `reason` is a phrase for a report."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unreachable(Exception):
    """Nobody answered, or not in time: later it may be there again."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """What a fetch may cost and where it may go."""

    max_bytes: int = 20_000_000
    """Of the page, unpacked."""
    seconds: float = 30.0
    """For all of it: looking up the name, redirects, the last byte."""
    redirects: int = 5
    private: bool = False
    """Whether addresses of this machine and of private networks are allowed."""
    agent: str = "windlass"


@dataclass(frozen=True, slots=True)
class Fetched:
    status: int
    url: str
    """Where the redirects led."""
    headers: Mapping[str, str]
    """Names in lower case."""


def fetch(url: str, into: Path, settings: Fetching, headers: Mapping[str, str] | None = None) -> Fetched:
    """GETs a page and writes what it holds to a file, if its status is 200.

    Raises `Refused` or `Unreachable`. May be called from anywhere, also below a running event loop.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _fetched(url, into, settings, dict(headers or {}))).result()


async def _fetched(url: str, into: Path, settings: Fetching, headers: dict[str, str]) -> Fetched:
    import asyncio

    import httpx2

    try:
        async with asyncio.timeout(settings.seconds):
            async with httpx2.AsyncClient(trust_env=False, verify=_certificates(), timeout=settings.seconds) as client:
                for _ in range(settings.redirects + 1):
                    async with _asked(client, await _target(url, settings), settings, headers) as answer:
                        if answer.status_code not in _REDIRECTS or "location" not in answer.headers:
                            if answer.status_code == 200:
                                await _write(answer, into, settings.max_bytes)
                            return Fetched(answer.status_code, url, dict(answer.headers))
                        url = str(httpx2.URL(url).join(answer.headers["location"]))
    except TimeoutError as error:
        raise Unreachable(f"no answer within {settings.seconds:g} seconds") from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise Refused("not a web address", str(error)) from error
    raise Refused("redirected too often", f"more than {settings.redirects} times")


@dataclass(frozen=True, slots=True)
class _Target:
    url: httpx2.URL
    """With the address that was checked in place of the host's name."""
    host: str
    """As the server is to be called."""
    name: str
    """As its certificate names it."""


async def _target(url: str, settings: Fetching) -> _Target:
    import asyncio

    import httpx2

    parsed = httpx2.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Refused(
            "not a web address", f"it has to begin with https:// or http://, not {parsed.scheme or 'nothing'}"
        )
    if parsed.userinfo:
        raise Refused("not a web address", "it holds a password: windlass would store it with the documents")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    found = await asyncio.get_running_loop().getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    addresses = [str(one[4][0]) for one in found]
    if not settings.private:
        for address in addresses:
            if not is_public(address):
                hint = "allow private addresses, if you trust the list and what its pages redirect to"
                raise Refused("address is not public", f"{parsed.host} is {address}; {hint}")
    return _Target(parsed.copy_with(host=addresses[0]), parsed.netloc.decode("ascii"), parsed.raw_host.decode("ascii"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, also by what is wrapped in it (mapped, 6to4, NAT64)."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        inner = number.ipv4_mapped or number.sixtofour or (number.teredo or (None, None))[1]
        if number in _NAT64:
            inner = ipaddress.IPv4Address(number.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return number.is_global and not number.is_multicast and not number.is_reserved


def _asked(client: httpx2.AsyncClient, target: _Target, settings: Fetching, headers: dict[str, str]) -> Any:
    said = {"host": target.host, "user-agent": settings.agent, "accept": "text/html, text/*;q=0.9, */*;q=0.5"}
    return client.stream("GET", target.url, headers=said | headers, extensions={"sni_hostname": target.name})


async def _write(answer: httpx2.Response, into: Path, max_bytes: int) -> None:
    size = 0
    with into.open("wb") as file:
        async for block in answer.aiter_bytes():
            size += len(block)
            if size > max_bytes:
                raise Refused("too large", f"more than {max_bytes / 1e6:,.0f} MB")
            file.write(block)


@cache
def _certificates() -> ssl.SSLContext:
    """Made once: it takes as long as many a page."""
    import ssl

    return ssl.create_default_context()
