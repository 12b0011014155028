"""The server as one Starlette application: OpenAI-compatible endpoints, health, metrics, and whatever routes are added.

    app = create_app({"assistant": assistant}, {"all-MiniLM-L6-v2": minilm}, store, recorder)

`serve.run` runs it; `serve.openai_api` holds the endpoints, `serve.gate` the checks before them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from windlass.core.errors import MissingExtra
from windlass.core.protocols import ChatModel, Embedder
from windlass.core.store import Store
from windlass.core.trace import Recorder

try:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import BaseRoute, Route

    from windlass.serve.errors import error_response, json_response
    from windlass.serve.gate import LOOPBACK, Gate
    from windlass.serve.limits import Limits
    from windlass.serve.metrics import Metrics
    from windlass.serve.openai_api import OpenAI
    from windlass.serve.work import Workers
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "windlass":
        raise
    raise MissingExtra("The server", "serve") from missing


def create_app(
    models: Mapping[str, ChatModel],
    embedders: Mapping[str, Embedder],
    store: Store | None = None,
    recorder: Recorder | None = None,
    *,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """`models` and `embedders` by the name that clients ask for. `store` is where feedback goes (None: refused).

    `hosts` are the host names, without port, that the server answers to (None: any). With an `api_key` every path but
    `/health` asks for it. `routes` come after the server's own: the studio's pages, for example.
    """
    limits = limits or Limits()
    metrics = Metrics()
    workers = Workers(limits.running, limits.waiting, metrics)
    api = OpenAI(models, embedders, store, recorder or Recorder(None), limits, workers, metrics)

    async def health(request: Request) -> Response:
        return json_response({"status": "ok", "models": len(models), "embedders": len(embedders)})

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4")

    async def failed(request: Request, error: Exception) -> Response:
        return error_response(error)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        workers.close()

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            *api.routes(),
            *routes,
        ],
        middleware=[Middleware(Gate, metrics=metrics, hosts=hosts, api_key=api_key)],
        exception_handlers={Exception: failed},
        lifespan=lifespan,
    )
