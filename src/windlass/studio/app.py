"""The studio's routes: the pages of a workspace, to be served beside the OpenAI-compatible API on one port."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.routing import BaseRoute, Mount, Route

from windlass.core.protocols import ChatModel
from windlass.core.workspace import Workspace
from windlass.studio import artifacts, ask, experiments, feedback, lineage, overview, releases, runs, traces
from windlass.studio.web import LOOPBACK, Static, Studio


def routes(
    ws: Workspace, models: Mapping[str, ChatModel], *, hosts: Collection[str] | None = LOOPBACK
) -> list[BaseRoute]:
    """Routes for `/`, `/ask`, `/traces`, … and `/static`; `/v1`, `/health` and `/metrics` are left to the server.

    `models` are what the ask box offers, the first one by default ("assistant" where there is one). `hosts` are
    the host names, without port, that pages answer to; a server that listens beyond loopback passes the names it
    is reached by, or None for any.
    """
    studio = Studio(ws, models, hosts)
    pages = {
        "/": overview.show,
        "/ask": ask.show,
        "/traces": traces.listing,
        "/traces/{trace}": traces.show,
        "/traces/{trace}/spans/{span}": traces.details,
        "/traces/{trace}/trace.json": traces.raw,
        "/runs": runs.listing,
        "/runs/{run}": runs.show,
        "/runs/{run}/metrics.json": runs.metrics,
        "/experiments": experiments.listing,
        "/experiments/{ref}": experiments.show,
        "/artifacts": artifacts.listing,
        "/artifacts/{ref}": artifacts.show,
        "/artifacts/{ref}/files/{file:path}": artifacts.download,
        "/artifacts/{ref}/documents": artifacts.documents,
        "/artifacts/{ref}/document": artifacts.document,
        "/releases": releases.show,
        "/lineage/{id}": lineage.show,
    }
    return [
        *(Route(path, studio.endpoint(handler), methods=["GET"]) for path, handler in pages.items()),
        Route("/ask", studio.endpoint(ask.answer), methods=["POST"]),
        Route("/feedback", studio.endpoint(feedback.store), methods=["POST"]),
        Mount("/static", Static(), name="studio-static"),
    ]
