"""No test reaches beyond its machine: connections elsewhere, and questions for addresses, are errors."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from unittest import mock


class BeyondLoopback(AssertionError):
    """A test wanted to open a connection to another machine."""


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """In this block the sockets of this process, in all its threads, reach this machine only.

    Processes that a test starts are not watched. For all tests, in `conftest.py`:

        @pytest.fixture(scope="session", autouse=True)
        def no_network():
            with loopback_only():
                yield
    """
    with contextlib.ExitStack() as stack:
        for name in ("connect", "connect_ex"):
            stack.enter_context(mock.patch.object(socket.socket, name, _watched(getattr(socket.socket, name))))
        sending = socket.socket.sendto

        def sendto(self: socket.socket, data: Any, *rest: Any) -> int:
            _allow(self.family, rest[-1])
            return sending(self, data, *rest)

        asking = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
            if host is not None and not _number(host) and not _here(host):
                raise BeyondLoopback(f"A test asked for the address of {host!r}.")
            return asking(host, port, *rest, **more)

        stack.enter_context(mock.patch.object(socket.socket, "sendto", sendto))
        stack.enter_context(mock.patch.object(socket, "getaddrinfo", getaddrinfo))
        yield


def _watched(function: Any) -> Any:
    def connecting(self: socket.socket, address: Any) -> Any:
        try:
            _allow(self.family, address)
        except BeyondLoopback:
            self.close()  # libraries close what fails with an error of the system's, which this is not
            raise
        return function(self, address)

    return connecting


def _allow(family: int, address: Any) -> None:
    if family in (socket.AF_INET, socket.AF_INET6) and not _here(address[0]):
        raise BeyondLoopback(f"A test wanted to reach {address[0]}:{address[1]}. Use a Cassette, or a loopback server.")


def _here(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    address = _number(name)
    if address is None:
        return name in ("", "localhost", "localhost.localdomain", socket.gethostname())
    return address.is_loopback or address.is_unspecified


def _number(host: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host's name is; None for one that has to be asked for."""
    try:
        return ipaddress.ip_address((host.decode() if isinstance(host, bytes) else str(host)).partition("%")[0])
    except ValueError:
        return None
