"""A seeded workspace for the studio's tests, shared by those that only read it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

import uvicorn
from prompt_seed import search, seed_prompts
from review_seed import seed_review
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studio_seed import Live, Site, seed

from windlass.core.workspace import Workspace
from windlass.studio.app import routes


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Workspace(tmp_path_factory.mktemp("studio")) as ws:
        search(ws)
        seed_prompts(ws)
        seed_review(ws)
        seeded, models = seed(ws)
        app = Starlette(routes=routes(ws, models))
        with TestClient(app, base_url="http://localhost", follow_redirects=False) as client:
            yield Site(ws, seeded, models, client)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[TestClient]:
    with Workspace(tmp_path) as ws:
        yield TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost")


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with Workspace(tmp_path_factory.mktemp("live")) as ws, socket.socket() as listening:
        search(ws)
        seed_prompts(ws)
        seed_review(ws)
        seeded, models = seed(ws)
        listening.bind(("127.0.0.1", 0))
        app = Starlette(routes=routes(ws, models))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield Live(ws, seeded, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.should_exit = True
        thread.join(20)
