"""A map in batches whose process is killed makes no batch twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
from tests.apply.tasks.batch_world import PROVIDERS, Provider

from windlass.apply.providers import known

CHILD = """
import sys
from windlass.apply.providers import known
from windlass.apply.providers.batches import batch as batches
from windlass.apply.tasks import task

batches.LOOKS = (0.001, 0.002)
name, url, journal = sys.argv[1:]


@task
def size(text: str) -> int:
    '''Say how long the text is.'''


done = size.using(model=known.model(f"{name}:m", base_url=url)).map(
    ["a", "bb", "ccc"], journal=journal, batch=True, progress=False
)
print([result.value for result in done])
"""


class Killing:
    """Serves a provider, and kills whoever asks at its `at`-th request from the making of a batch on: the request has
    arrived and done its work, its answer is lost."""

    def __init__(self, provider: Provider) -> None:
        self.at: int | None = None
        self.seen = 0
        self.process: subprocess.Popen[str] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                url = f"http://model.example{self.path}"
                kind = self.headers.get("content-type", "")
                said = provider(httpx2.Request(self.command, url, content=content, headers={"content-type": kind}))
                if provider.batches and outer.at is not None:
                    outer.seen += 1
                    if outer.seen > outer.at:
                        assert outer.process is not None
                        os.kill(outer.process.pid, signal.SIGKILL)
                        return
                self.send_response(said.status_code)
                self.send_header("content-length", str(len(said.content)))
                self.end_headers()
                self.wfile.write(said.content)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(params=list(PROVIDERS))
def provider(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Provider, Killing]]:
    monkeypatch.setenv(known.PROVIDERS[request.param].variable, "key")
    made = PROVIDERS[request.param]()
    killing = Killing(made)
    yield request.param, made, killing
    killing.server.shutdown()
    killing.server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 3], ids=["while it is made", "while it is looked at", "when it is over"])
def test_killed_and_resumed(tmp_path: Path, provider: tuple[str, Provider, Killing], at: int) -> None:
    name, world, killing = provider
    arguments = [sys.executable, "-c", CHILD, name, killing.url, str(tmp_path / "journal")]
    killing.at = at
    killing.process = subprocess.Popen(arguments, text=True)
    assert killing.process.wait(120) == -signal.SIGKILL
    assert len(world.batches) == 1
    killing.at = None
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout == "[1, 2, 3]\n"
    assert world.asked == ["a", "bb", "ccc"] and len(world.batches) == 1, "nothing was asked and paid twice"
