"""Connections to a PostgreSQL server, for threads that wait.

asyncpg speaks PostgreSQL's binary protocol, which spares vectors the way through text, but it is made for event
loops. So each connection has a loop of its own, which runs in the thread that uses the connection, for as long as it
does: to wait for another thread would cost as much as a search takes.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.indexes.address import shown
from windlass.core.errors import DiskFull, InputError, MissingExtra, WindlassError, WorkspaceError

try:
    import asyncpg
except ModuleNotFoundError as error:
    raise MissingExtra("An index in PostgreSQL", "postgres") from error

T = TypeVar("T")
Connection = Any  # asyncpg tells no types
Work = Callable[[Connection], Coroutine[Any, Any, T]]

_FORM = "Write postgres://user@host:5432/database; the password belongs in the environment variable PGPASSWORD."
_OLDEST = (0, 5)
"""The pgvector that brought HNSW."""


class Database:
    """A pool of connections to the server that `dsn` names, all of which see the tables of one schema.

    `dsn` is as libpq knows it (`postgres://user@host:5432/database?sslmode=require`); what it leaves out is taken from
    PGHOST, PGUSER, PGPASSWORD, the password file and so on. It is never shown with its password.
    """

    def __init__(self, dsn: str, schema: str, *, ef_search: int, connections: int, timeout: float) -> None:
        self.shown = shown(dsn)
        try:
            urlsplit(dsn).port  # noqa: B018 - reading it checks it
        except ValueError:  # which may quote the password
            raise InputError(f"{self.shown} is no address of a database.", _FORM) from None
        self._schema, self._ef_search = schema, ef_search
        self._dsn, self._timeout = dsn, timeout
        self._closed = False
        self._most = connections
        self._seats = threading.Semaphore(connections)
        self._open = 0
        """Seats that there are, idle or taken."""
        self._idle: list[_Seat] = []
        self._lock = threading.Lock()
        with self._taken():
            pass  # there is a server, and it lets us in

    async def _greet(self, db: Connection, keeps_plans: bool) -> None:
        """Makes a new connection ready: pgvector's type and settings, and where the tables are."""
        found = await _extension(db)
        if found is None:
            try:
                await db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError):
                """Another process made it in the same moment."""
            found = await _extension(db)
        version, where = found
        numbers = tuple(int(number) for number in version.split(".")[:2])
        if numbers < _OLDEST:
            raise InputError(
                f"{self.shown} has pgvector {version}, which cannot index vectors.",
                "Install a newer pgvector, best 0.8 or later, and run ALTER EXTENSION vector UPDATE.",
            )
        await db.set_type_codec("vector", schema=where, encoder=_vector_out, decoder=_vector_in, format="binary")
        settings = [
            f"search_path = {quoted(self._schema)}, {quoted(where)}",
            "jit = off",  # compiling a search takes longer than running it,
            "max_parallel_workers_per_gather = 0",  # and so does starting workers
            f"plan_cache_mode = {'force_generic_plan' if keeps_plans else 'force_custom_plan'}",
            "standard_conforming_strings = on",  # in a text nothing but a quotation mark means anything
            f"hnsw.ef_search = {self._ef_search}",
        ]
        if numbers >= (0, 8):  # go on looking while a filter has let too few through
            settings.append("hnsw.iterative_scan = relaxed_order")
        await db.execute("; ".join(f"SET {setting}" for setting in settings))

    def run(self, work: Work[T], *, keeps_plans: bool = False) -> T:
        """What `work` makes of a connection.

        How many passages pass a filter decides how to search, so that a statement is planned whenever it comes, for the
        values at hand. `keeps_plans`: on a connection that plans it once, which is for statements in which all that
        decides is written out.
        """
        with self._taken(keeps_plans) as seat:
            return self._told(seat, work)

    def read(self, work: Work[T]) -> T:
        """As `run`, where all statements see the same state, whatever is written meanwhile."""

        async def whole(db: Connection) -> T:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                return await work(db)

        return self.run(whole)

    @contextmanager
    def transaction(self) -> Iterator[Callable[[Work[Any]], Any]]:
        """A function like `run`, all of whose works are one transaction; between them the thread may do as it likes.

        When the block is left by an exception the connection is cut, and the server forgets what was written.
        """
        with self._taken() as seat:
            self._told(seat, lambda db: db.execute("BEGIN"))
            try:
                yield lambda work: self._told(seat, work)
                self._told(seat, lambda db: db.execute("COMMIT"))
            except BaseException:
                seat.cut()
                raise

    @contextmanager
    def _taken(self, keeps_plans: bool = False) -> Iterator[_Seat]:
        """A connection for this thread alone; waits for one while all are in use."""
        with self._seats:
            if self._closed:
                raise InputError(f"The index in {self.shown} was closed.", "Open it again.")
            seat = self._seat(keeps_plans)
            try:
                if not seat.alive():
                    self._told(seat, lambda _: self._connected(seat))
                yield seat
            except BaseException:
                if not seat.alive():
                    seat.cut()
                raise
            finally:
                with self._lock:
                    if seat.loop.is_closed():
                        self._open -= 1
                    else:
                        self._idle.append(seat)

    def _seat(self, keeps_plans: bool) -> _Seat:
        """One that is idle, or new; as many as are allowed, in place of one of the other kind."""
        with self._lock:
            for at in reversed(range(len(self._idle))):  # the last one is the likeliest to be alive
                if self._idle[at].keeps_plans == keeps_plans:
                    return self._idle.pop(at)
            if self._open < self._most:
                self._open += 1
            else:
                self._idle.pop(0).cut()
            return _Seat(keeps_plans)

    async def _connected(self, seat: _Seat) -> None:
        seat.db = db = await asyncpg.connect(self._dsn, timeout=self._timeout)
        try:
            await self._greet(db, seat.keeps_plans)
        except BaseException:
            seat.db = None
            db.terminate()
            raise

    def _told(self, seat: _Seat, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """What `work` makes of the seat's connection; errors in words for people."""
        try:
            return seat.wait(work)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            told = _told(error, self.shown)
            if told is None:
                raise
            raise told from error

    def close(self) -> None:
        """Waits for what is under way. Safe to call twice."""
        if self._closed:
            return
        for _ in range(self._most):
            self._seats.acquire()
        self._closed = True
        for seat in self._idle:
            if seat.alive():
                seat.wait(lambda db: db.close())
            seat.cut()
        self._idle.clear()
        self._seats.release(self._most)


class _Seat:
    """A connection and the event loop that it lives on. One thread at a time."""

    def __init__(self, keeps_plans: bool) -> None:
        self.keeps_plans = keeps_plans
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.db: Connection | None = None

    def alive(self) -> bool:
        """Whether there is a connection, and the server has not ended it meanwhile, as far as has been heard."""
        if self.db is None or self.loop.is_closed():
            return False
        if self._selector.select(0):  # it has said something since the last work: running the loop takes that in,
            self._run(_heard)  # and as it costs a tenth of a search by vectors, it runs for nothing else
        return not self.db.is_closed()

    def wait(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """`work` of the connection; where the server has ended that, it says so."""
        return self._run(lambda: work(self.db))

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._here(work)
        done: list[T] = []  # this thread runs a loop already, as a notebook's does, and there cannot be two in one
        failed: list[BaseException] = []

        def there() -> None:
            try:
                done.append(self._here(work))
            except BaseException as error:  # noqa: BLE001 - raised below, where somebody waits for it
                failed.append(error)

        thread = threading.Thread(target=there, name="windlass-postgres")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]

    def _here(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = self.loop.create_task(work())
        try:
            return self.loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # it was the waiting that was interrupted
                task.cancel()
                self.cut(task)
            raise

    def cut(self, task: asyncio.Task[Any] | None = None) -> None:
        """Ends the connection at once; what it had not committed is undone."""
        if self.db is not None and not self.db.is_closed():
            self.db.terminate()
        if not self.loop.is_closed():
            self.loop.run_until_complete(_heard(task))
            self.loop.close()


async def _heard(task: asyncio.Task[Any] | None = None) -> None:
    """Lets the loop take in what has arrived, and a cancelled task its end."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if task is not None:
        await asyncio.wait([task])


async def _extension(db: Connection) -> Any:
    return await db.fetchrow(
        "SELECT extversion, nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
        " WHERE extname = 'vector'"
    )


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _vector_out(vector: NDArray[np.float32]) -> bytes:
    """As pgvector's binary format has it: two numbers of 16 bits, dimension and nothing, then big-endian floats."""
    return len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f4").tobytes()


def _vector_in(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, ">f4", offset=4).astype(np.float32)


# what went wrong ----------------------------------------------------------------------------------------------------

_GONE = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def _told(error: Exception, where: str) -> WindlassError | None:
    """The error in words for whoever runs the server; None for one that is no trouble of theirs."""
    said = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return InputError(
            f"{where} does not let this user in: {said}.",
            _FORM,
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError | asyncpg.ClientConfigurationError):
        return InputError(f"{where} is no database: {said}.", "Make it with `createdb`, or mend the address.")
    if isinstance(error, asyncpg.FeatureNotSupportedError | asyncpg.UndefinedFileError) and '"vector"' in said:
        return InputError(
            f"{where} has no pgvector: {said}.",
            "Install it on the server, for example `apt install postgresql-18-pgvector`.",
        )
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return InputError(
            f"{where} does not allow this user enough: {said}.",
            "Grant CREATE on the database, and have an administrator run CREATE EXTENSION vector.",
        )
    if isinstance(error, asyncpg.DiskFullError):
        return DiskFull(f"No space left on the disk of {where}: {said}.", "Free some space and do the same again.")
    if isinstance(error, _GONE) and not isinstance(error, ValueError):
        return WorkspaceError(
            f"{where} does not answer: {said}.",
            "See that the server runs, then do the same again: what was acknowledged is kept, what was not is undone.",
        )
    return None
