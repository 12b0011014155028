"""The gateway as an ASGI application: OpenAI's endpoints, answered by other servers.

    app = create_gateway(load_gateway(Path("gateway.toml")), recorder)

`serve.run` runs it, `serve.gate` stands before it. The way of a request: its `Door` reads it, `Gateway.answer`
finds a target that answers, the door passes the answer on, and a `Record` says in a trace what it took.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import IO, Any

from windlass.core.errors import MissingExtra
from windlass.core.trace import Recorder

try:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    from windlass.serve.errors import HttpError, error_response, json_response
    from windlass.serve.gate import LOOPBACK, Gate
    from windlass.serve.gateway.budget import Budgets
    from windlass.serve.gateway.config import GatewayConfig
    from windlass.serve.gateway.door import Door, House
    from windlass.serve.gateway.events import ChoicesWatcher, ResponsesWatcher, Watcher
    from windlass.serve.gateway.gateway import Gateway
    from windlass.serve.keys import Keys, Scope
    from windlass.serve.metrics import Metrics
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "windlass":
        raise
    raise MissingExtra("The gateway", "serve") from missing

ENDPOINTS: Mapping[str, tuple[str, Scope, Callable[[], Watcher] | None]] = {
    "/chat/completions": ("chat", "generate", ChoicesWatcher),
    "/completions": ("text_completion", "generate", ChoicesWatcher),
    "/responses": ("chat", "generate", ResponsesWatcher),
    "/embeddings": ("embeddings", "embed", None),
    "/rerank": ("rerank", "embed", None),
    "/moderations": ("moderation", "embed", None),
    "/images/generations": ("generate_content", "generate", None),
}
"""Path below /v1 -> (operation of its span, what a key must be allowed, how to follow its stream; None: it has none).
"""


def create_gateway(
    config: GatewayConfig,
    recorder: Recorder | None = None,
    *,
    api_key: str | None = None,
    keys: Keys | None = None,
    hosts: Collection[str] | None = LOOPBACK,
    log: IO[str] | None = None,
) -> Starlette:
    """`api_key`, `keys`, `hosts` and `log` as in `serve.app.create_app`. Every request is recorded by `recorder`."""
    metrics = Metrics()
    house = House(Gateway(config), recorder or Recorder(None), metrics, Budgets(keys))
    started = int(time.time())

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "windlass"}

    async def list_models(request: Request) -> Response:
        return json_response({"object": "list", "data": [card(name) for name in house.gateway.models]})

    async def show_model(request: Request) -> Response:
        try:
            house.gateway.route(request.path_params["model"])
        except HttpError as error:
            return error_response(error)
        return json_response(card(request.path_params["model"]))

    async def health(request: Request) -> Response:
        return json_response({"status": "ok", "models": len(house.gateway.models), "config": house.gateway.digest})

    async def ready(request: Request) -> Response:
        draining = getattr(request.app.state, "draining", False)
        return json_response({"status": "draining" if draining else "ready"}, 503 if draining else 200)

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4")

    async def unknown(request: Request) -> Response:
        known = ", ".join(f"/v1{path}" for path in ENDPOINTS)
        message = f"There is no {request.method} {request.url.path[:200]} on this gateway."
        return error_response(HttpError(404, message, f"It has {known} and /v1/models.", code="unknown_path"))

    async def failed(request: Request, error: Exception) -> Response:
        return error_response(error)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        house.gateway.close()

    app = Starlette(
        routes=[
            *(Route(f"/v1{path}", Door(path, *about, house), methods=["POST"]) for path, about in ENDPOINTS.items()),
            Route("/v1/models", list_models, methods=["GET"]),
            Route("/v1/models/{model:path}", show_model, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            Route("/metrics", show_metrics, methods=["GET"]),
            Route("/{rest:path}", unknown, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ],
        middleware=[Middleware(Gate, metrics=metrics, hosts=hosts, api_key=api_key, keys=keys, log=log)],
        exception_handlers={Exception: failed},
        lifespan=lifespan,
    )
    app.state.house = house
    return app


def reconfigure(app: Starlette, config: GatewayConfig) -> None:
    """From now on requests go by `config`; those under way end as they began. To be called on the app's event loop.

    Kept answers, and what was learned of targets that fail, are forgotten with the old configuration. Raises
    `ConfigError`, and leaves the old one in force.
    """
    house: House = app.state.house
    old, house.gateway = house.gateway, Gateway(config)
    old.close()
