"""Runs an application under uvicorn: in the foreground until a signal, or in a thread for tests and demos.

The socket is opened here, before anything slow happens, so that a port in use is one clear message.

SIGTERM and Ctrl-C end it in order: `/ready` turns to 503 and answers carry `Connection: close`, while requests are
still accepted for `linger` seconds, in which a load balancer looks elsewhere; then the port closes, the requests in
flight are finished, and `run` returns, so that the caller can close its workspace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from windlass.core.errors import ConfigError, InputError, MissingExtra

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.types import ASGIApp

    from windlass.serve.connection import Connection
except ImportError as missing:
    raise MissingExtra("The server", "serve") from missing

DRAIN_SECONDS = 30.0
"""How long requests in flight may take to finish once the server was told to stop."""
LINGER_SECONDS = 0.5
IDLE_SECONDS = 75
"""How long a connection is kept for a further request: longer than clients do, so that it is never they who find it
closed."""
_ON_THE_WIRE = 0.25
"""Seconds in which a request of a connection that was just accepted arrives."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and private key, as PEM files."""

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise InputError(f"{path} is missing.", "Name a PEM file with --tls-cert and one with --tls-key.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except ssl.SSLError as error:
            raise InputError(
                f"{self.certificate} and {self.key} are not a certificate and its key ({error})."
            ) from error


def run(
    app: ASGIApp, listener: socket.socket, *, on_start: Callable[[], None] | None = None,
    on_hangup: Callable[[], None] | None = None, tls: Tls | None = None, drain: float = DRAIN_SECONDS,
    linger: float = LINGER_SECONDS,
) -> int:  # fmt: skip
    """Serves `app` on an open socket (see `listen`) until SIGTERM or Ctrl-C; a second Ctrl-C does not wait.

    With `on_hangup`, SIGHUP reads the certificate anew and then calls it, on the event loop.

    Returns how many requests were cut off: those that took longer than `drain` seconds after the signal, or that nobody
    wanted to wait for.
    """
    server = _Server(app, on_start, on_hangup, tls=tls, drain=drain, linger=linger)
    with listener, _without_cut_offs():
        server.run(sockets=[listener])
    return server.cut_off


def listen(host: str, port: int, *, api_key: str | None = None, keyed: bool = False) -> socket.socket:
    """Opens the port; 0 takes any free one. Raises `InputError` when that cannot be.

    An address that other machines can reach needs an `api_key`, or keys of the workspace (`keyed`): `ConfigError`
    otherwise.
    """
    if not is_loopback(host) and not api_key and not keyed:
        raise ConfigError(
            f"Listening on {host} lets other machines in, and no API key is set.",
            "Make one with `windlass keys add NAME`, or name an environment variable that holds one: --api-key-env.",
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


def url(listener: socket.socket, tls: Tls | None = None) -> str:
    """Where a client on this machine finds an open socket."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class ServerThread:
    """A server in the background: `with ServerThread(app) as server: … server.url …`. Leaving the block drains it."""

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = listen(host, port)
        self._server = _Server(app)
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
    def __init__(
        self, app: ASGIApp, on_start: Callable[[], None] | None = None, on_hangup: Callable[[], None] | None = None,
        *, tls: Tls | None = None, drain: float = DRAIN_SECONDS, linger: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                log_level="warning",
                access_log=False,  # `serve.gate` writes one without content and addresses
                server_header=False,
                timeout_graceful_shutdown=drain,  # type: ignore[arg-type] # it goes to asyncio.wait_for
                timeout_keep_alive=IDLE_SECONDS,
                ws="none",
                ssl_certfile=None if tls is None else tls.certificate,
                ssl_keyfile=None if tls is None else tls.key,
            )
        )
        self._app = app
        self._on_start = on_start
        self._on_hangup = on_hangup
        self._tls = tls
        self._linger = linger
        self.cut_off = 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if isinstance(self._app, Starlette):
            self._app.state.draining = True
        await asyncio.sleep(self._linger)
        for listener in sockets or ():
            # Who is in the kernel's line when the port closes is turned away by it. A line of one place, and a moment
            # to take in who stands in it: from then on, others are not let in at all, and know that.
            listener.listen(0)
        await asyncio.sleep(0.01)
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ON_THE_WIRE if self._linger else 0)
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves at once, and the application would not hear of it
            await self.lifespan.shutdown()

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        except asyncio.CancelledError:  # by the limit of `drain` seconds
            self.cut_off = len(self.server_state.tasks)
            raise
        self.cut_off = len(self.server_state.tasks)  # none, unless a second Ctrl-C came
        for task in self.server_state.tasks:
            task.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_hangup is not None and hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)
        if self.started and self._on_start is not None:
            self._on_start()

    def _hung_up(self) -> None:
        assert self._on_hangup is not None
        if self._tls is not None and self.config.ssl is not None:
            try:  # one that does not fit its key is found before it touches the one in use
                again = Tls(self._tls.certificate, self._tls.key)
            except InputError as error:
                print(f"{error.message} {error.hint}\nThe certificate stays as it was.", file=sys.stderr, flush=True)
            else:
                self.config.ssl.load_cert_chain(again.certificate, again.key)
        self._on_hangup()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which however raises the signal anew in the end: that would kill us before we have closed
        the workspace."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


@contextlib.contextmanager
def _without_cut_offs() -> Iterator[None]:
    """uvicorn logs a traceback for every request that it cuts off; `run` says how many there were."""

    def counts(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, asyncio.CancelledError) and not str(record.msg).startswith("Cancel %s running")

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(counts)
    try:
        yield
    finally:
        logger.removeFilter(counts)


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
