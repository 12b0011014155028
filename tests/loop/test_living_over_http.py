"""The living index behind the server: each key gets its own answers, and what is ingested is there at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("torch")

from windlass.core.workspace import Workspace
from windlass.loop.assistants.assemble import load_models
from windlass.loop.ingesting import Wishes, opened_for_ingest
from windlass.serve.app import create_app
from windlass.serve.keys import FILE, Keys
from windlass.serve.run import ServerThread

PAGES = {
    "docs/pump.md": "# Pump\n\nThe red pump moves nine litres of water in a minute.\n",
    "docs/hr/pay.md": "# Pay\n\nThe salary of the miller is ninety crowns a month.\n",
}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    for name, text in PAGES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with Workspace(tmp_path) as workspace:
        yield workspace


def ingest(ws: Workspace, path: str, *access: str) -> None:
    wishes = Wishes([ws.home / path], access=access or None, embedder="hashing")
    with opened_for_ingest(ws, "docs", wishes) as into:
        into.ingest()


def test_two_users_get_different_answers_and_new_documents_at_once(ws: Workspace) -> None:
    ingest(ws, "docs/pump.md")
    keys = Keys(ws.root / FILE)
    _, clerk = keys.add("clerk", ["generate"], access=["hr"])
    _, guest = keys.add("guest", ["generate"])
    with ServerThread(create_app(load_models(ws), {}, keys=keys, recorder=ws.recorder)) as server:

        def said(secret: str, question: str) -> str:
            body = {"model": "assistant", "messages": [{"role": "user", "content": question}]}
            headers = {"Authorization": f"Bearer {secret}"}
            answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60).json()
            return str(answer["choices"][0]["message"]["content"])

        salary = "What is the salary of the miller?"
        assert "nine litres" in said(guest, "How much water does the red pump move?")
        assert "ninety" not in said(clerk, salary)
        ingest(ws, "docs/hr", "hr")
        assert "ninety crowns" in said(clerk, salary) and "ninety" not in said(guest, salary)
    keys.close()
