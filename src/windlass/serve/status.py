"""What a server says of itself: health, readiness, metrics, and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from windlass.core.protocols import Measured
from windlass.serve.api.context import Context
from windlass.serve.api.openapi import document
from windlass.serve.api.operation import Operation
from windlass.serve.errors import json_response

ENGINE = "windlass_engine"


def routes(context: Context, operations: Callable[[], Sequence[Operation]], keyed: Callable[[], bool]) -> list[Route]:
    """`operations` are asked for anew for each document, since it names the models of the moment; `keyed` is whether
    requests need a key by now."""
    metrics = context.metrics
    metrics.declare(ENGINE, "gauge", "What a model's engine says of its queue, batch and memory, by model.")

    async def health(request: Request) -> Response:
        return json_response({"status": "ok", **{kind: len(known) for kind, known in context.kinds().items()}})

    async def ready(request: Request) -> Response:
        draining = getattr(request.app.state, "draining", False)
        return json_response({"status": "draining" if draining else "ready"}, 503 if draining else 200)

    async def show_metrics(request: Request) -> Response:
        for name, model in context.models.bases.items():
            if isinstance(model, Measured):
                for what, value in model.stats().items():
                    metrics.set(ENGINE, value, model=name, figure=what)
        return PlainTextResponse(metrics.render(), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        return json_response(document(operations(), keyed=keyed()))

    pages = {"/health": health, "/ready": ready, "/metrics": show_metrics, "/openapi.json": openapi}
    return [Route(path, page, methods=["GET"]) for path, page in pages.items()]
