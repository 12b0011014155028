"""Runs an application under uvicorn: in the foreground until a signal, or in a thread for tests and demos.

The socket is opened here, before anything slow happens, so that a port in use is one clear message. SIGTERM and
Ctrl-C stop accepting, finish the requests in flight, and return, so that the caller can close its workspace.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from windlass.core.errors import ConfigError, InputError, MissingExtra

try:
    import uvicorn
    from starlette.types import ASGIApp
except ImportError as missing:
    raise MissingExtra("The server", "serve") from missing

DRAIN_SECONDS = 30
"""How long requests in flight may take to finish once the server was told to stop."""


def run(app: ASGIApp, listener: socket.socket, *, on_start: Callable[[], None] | None = None) -> None:
    """Serves `app` on an open socket (see `listen`) until SIGTERM or Ctrl-C; a second Ctrl-C does not wait."""
    with listener:
        _Server(app, on_start).run(sockets=[listener])


def listen(host: str, port: int, *, api_key: str | None = None) -> socket.socket:
    """Opens the port; 0 takes any free one. Raises `InputError` when that cannot be.

    An address that other machines can reach needs an `api_key`: `ConfigError` otherwise.
    """
    if not is_loopback(host) and not api_key:
        raise ConfigError(
            f"Listening on {host} lets other machines in, and no API key is set.",
            "Put a key into an environment variable and name it: --api-key-env WINDLASS_API_KEY.",
        )
    if not 0 <= port <= 65535:
        raise InputError(f"There is no port {port}.", "Ports are 0 (any free one) to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except socket.gaierror as error:
        raise InputError(f"There is no host '{host}' ({error.strerror}).", "Use 127.0.0.1 for this machine.") from error
    except OSError as error:
        raise _explained(error, host, port) from error
    # Accepted sockets inherit it. asyncio sets it only on sockets that were made with IPPROTO_TCP, which this one was
    # not; without it an answer of two writes (head, body) waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def url(listener: socket.socket) -> str:
    """Where a client on this machine finds an open socket."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ServerThread:
    """A server in the background: `with ServerThread(app) as server: … server.url …`. Leaving the block drains it."""

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = listen(host, port)
        self._server = _Server(app, None)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="windlass-server", daemon=True
        )
        self.url = url(self._listener)

    def __enter__(self) -> ServerThread:
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise InputError("The server did not start; the message above says why.")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, on_start: Callable[[], None] | None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,  # traces and metrics say more, and a log of paths and addresses is personal data
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                ws="none",
            )
        )
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_start is not None:
            self._on_start()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which however raises the signal anew in the end: that would kill us before we have closed
        the workspace."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def _explained(error: OSError, host: str, port: int) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(
            f"Port {port} on {host} is in use.",
            "Stop the server that holds it, or choose another with --port (0 takes any free one).",
        )
    if error.errno == errno.EACCES:
        return InputError(f"Port {port} may not be opened by this user.", "Choose one above 1023 with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(f"{host} is not an address of this machine.", "Use 127.0.0.1, or 0.0.0.0 for all of them.")
    return InputError(f"Port {port} on {host} cannot be opened: {error.strerror}.")
