"""The server as one Starlette application: OpenAI-compatible endpoints, health, metrics, and whatever routes are added.

    app = create_app({"assistant": assistant}, {"all-MiniLM-L6-v2": minilm}, store, recorder)

`serve.run` runs it; `serve.api` holds the endpoints, `serve.gate` the checks before them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

from windlass.core.errors import MissingExtra
from windlass.core.memory import give_back_freed_memory
from windlass.core.protocols import ChatModel, Classifying, Embedder, Reranker
from windlass.core.store import Store
from windlass.core.trace import Recorder

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from windlass.serve import status
    from windlass.serve.adapter_folders import AdapterFolders
    from windlass.serve.api.batches import BatchAnswers
    from windlass.serve.api.batches import operations as batch_operations
    from windlass.serve.api.catalogue import Catalogue
    from windlass.serve.api.context import Context
    from windlass.serve.api.files import operations as file_operations
    from windlass.serve.api.operation import Operation
    from windlass.serve.api.routes import operations
    from windlass.serve.api.routes import routes as api_routes
    from windlass.serve.batches import Batches
    from windlass.serve.errors import HttpError, error_response
    from windlass.serve.filestore import FileStore
    from windlass.serve.gate import LOOPBACK, Gate
    from windlass.serve.keys import Keys
    from windlass.serve.limits import Limits
    from windlass.serve.metrics import Metrics
    from windlass.serve.work import Workers
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "windlass":
        raise
    raise MissingExtra("The server", "serve") from missing

GIVE_BACK_SECONDS = 30.0
"""Requests and adapters of all sizes come and go for weeks; this often the holes that they leave are given back. A
thousandth of a processor goes into that, and into pages that are wanted again (docs/lab.md)."""


def create_app(
    models: Mapping[str, ChatModel],
    embedders: Mapping[str, Embedder],
    store: Store | None = None,
    recorder: Recorder | None = None,
    *,
    rerankers: Mapping[str, Reranker] | None = None,
    classifiers: Mapping[str, Classifying] | None = None,
    adapter_folders: AdapterFolders | None = None,
    folder: Path | None = None,
    limits: Limits | None = None,
    api_key: str | None = None,
    keys: Keys | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    log: IO[str] | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Models, embedders, rerankers and classifiers by the name that clients ask for. `store` is where feedback goes
    (None: refused), `folder` holds uploaded files and batches (None: there are no such endpoints), `adapter_folders`
    the adapters that clients may have loaded (None: none).

    `hosts` are the host names, without port, that the server answers to (None: any). With an `api_key`, or once there
    are `keys`, every path but `/health` and `/ready` asks for one. `routes` come after the server's own: the studio's
    pages, for example.
    """
    limits, metrics = limits or Limits(), Metrics()
    workers = Workers(limits.running, limits.waiting, metrics)
    context = Context(
        models=Catalogue(models), embedders=embedders, rerankers=rerankers or {}, classifiers=classifiers or {},
        store=store, recorder=recorder or Recorder(None), limits=limits, workers=workers, metrics=metrics, keys=keys,
        adapter_folders=adapter_folders or AdapterFolders(),
    )  # fmt: skip
    answering = operations(context)
    batches: Batches | None = None
    keeping: list[Operation] = []
    if folder is not None:
        files = FileStore(folder / "files")
        batches = Batches(folder / "batches", files, BatchAnswers(context, {one.path: one for one in answering}))
        keeping = [*file_operations(context, files), *batch_operations(context, files, batches)]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        beside = [asyncio.create_task(_give_back_memory())]
        if batches is not None:
            beside.append(asyncio.create_task(batches.work()))
        yield
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        await workers.close()

    return Starlette(
        routes=[
            *status.routes(
                context,
                lambda: [*operations(context), *keeping],
                keyed=lambda: api_key is not None or (keys is not None and keys.any()),
            ),
            *api_routes(context, [*answering, *keeping]),
            *routes,
        ],
        middleware=[Middleware(Gate, metrics=metrics, hosts=hosts, api_key=api_key, keys=keys, log=log)],
        exception_handlers={HTTPException: _unroutable, Exception: _failed},
        lifespan=lifespan,
    )


async def _give_back_memory() -> None:
    """For as long as the server runs. In a thread, so that answers go on."""
    while True:
        await asyncio.sleep(GIVE_BACK_SECONDS)
        await asyncio.to_thread(give_back_freed_memory)


async def _failed(request: Request, error: Exception) -> Response:
    return error_response(error)


async def _unroutable(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, which are plain text: a path or method that nobody declared."""
    assert isinstance(error, HTTPException)
    said = f"{request.method[:20]} {request.url.path[:200]}: {error.detail}."
    return error_response(HttpError(error.status_code, said, headers=error.headers))
