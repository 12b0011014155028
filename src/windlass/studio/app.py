"""The studio's routes: the pages of a workspace, to be served beside the OpenAI-compatible API on one port."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Scope

from windlass.core.errors import NotFound
from windlass.core.protocols import ChatModel
from windlass.core.workspace import Workspace
from windlass.studio import (
    artifacts,
    ask,
    chat,
    comparison,
    experiments,
    feedback,
    indexes,
    lineage,
    overview,
    prompt_editing,
    prompt_trying,
    prompts,
    releases,
    review,
    runs,
    traces,
)
from windlass.studio.web import Static, Studio, Visit


def routes(ws: Workspace, models: Mapping[str, ChatModel]) -> list[BaseRoute]:
    """Routes for `/`, `/ask`, `/traces`, … and `/static`, to be given to `serve.app.create_app(routes=…)`.

    `models` are what the ask box offers, "assistant" by default where there is one. The pages show everything the
    workspace holds: the server's gate decides which hosts and keys may read them.
    """
    studio = Studio(ws, models)
    pages = {
        "/": overview.show,
        "/ask": ask.show,
        "/chat": chat.show,
        "/traces": traces.listing,
        "/traces/{trace}": traces.show,
        "/traces/{trace}/spans/{span}": traces.details,
        "/traces/{trace}/trace.json": traces.raw,
        "/runs": runs.listing,
        "/runs/compare": comparison.show,
        "/runs/compare/metrics.json": comparison.metrics,
        "/runs/{run}": runs.show,
        "/runs/{run}/metrics.json": runs.metrics,
        "/experiments": experiments.listing,
        "/experiments/compare": experiments.compared,
        "/experiments/{ref}": experiments.show,
        "/prompts": prompts.listing,
        "/prompts/{ref}": prompts.show,
        "/prompts/{ref}/edit": prompt_editing.show,
        "/prompts/{ref}/try": prompt_trying.show,
        "/review": review.listing,
        "/review/{ref}": review.show,
        "/review/{ref}/label": review.labelling,
        "/review/{ref}/different": review.differing,
        "/review/{ref}/labels.{form}": review.export,
        "/artifacts": artifacts.listing,
        "/artifacts/{ref}": artifacts.show,
        "/artifacts/{ref}/files/{file:path}": artifacts.download,
        "/artifacts/{ref}/documents": artifacts.documents,
        "/artifacts/{ref}/document": artifacts.document,
        "/indexes/{name}/document": indexes.document,
        "/releases": releases.show,
        "/lineage/{id}": lineage.show,
    }
    return [
        *(Route(path, studio.endpoint(handler), methods=["GET"]) for path, handler in pages.items()),
        Route("/ask", studio.endpoint(ask.answer), methods=["POST"]),
        Route("/chat", studio.endpoint(chat.answer), methods=["POST"]),
        Route("/feedback", studio.endpoint(feedback.store), methods=["POST"]),
        Route("/prompts/{ref}/label", studio.endpoint(prompts.move), methods=["POST"]),
        Route("/prompts/{ref}/edit", studio.endpoint(prompt_editing.save, prompt_editing.MAX_BYTES), methods=["POST"]),
        Route("/prompts/{ref}/try", studio.endpoint(prompt_trying.run, prompt_trying.MAX_BYTES), methods=["POST"]),
        Route("/review/{ref}/label", studio.endpoint(review.store), methods=["POST"]),
        Mount("/static", Static(), name="studio-static"),
        _Elsewhere("/{path:path}", studio.endpoint(_lost), methods=["GET"]),
    ]


class _Elsewhere(Route):
    """Whatever else a browser asks for. Programs, and who asks for the API, get the server's own answer."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        page = scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", "")
        return super().matches(scope) if page and not scope["path"].startswith("/v1/") else (Match.NONE, {})


def _lost(visit: Visit) -> Response:
    raise NotFound(f"There is no page /{visit.path('path')[:200]}.", "It may have been mistyped.")
