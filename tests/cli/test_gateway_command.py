"""`windlass gateway` as a process: it serves, traces, and stops at a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from windlass.cli.main import main
from windlass.core.workspace import find_workspace

pytest.importorskip("uvicorn")
openai = pytest.importorskip("openai")

PROVIDER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        choice = {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
        about = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"]}
        body = json.dumps({**about, "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_the_gateway_serves_traces_and_stops(tmp_path: Path) -> None:
    (tmp_path / ".windlass").mkdir()
    provider = subprocess.Popen(
        [sys.executable, "-c", PROVIDER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert provider.stdout is not None
    try:
        (tmp_path / "gateway.toml").write_text(
            f'[providers.fake]\nbase_url = "http://127.0.0.1:{provider.stdout.readline().strip()}/v1"\n'
            '[routes.m]\ntargets = [{ provider = "fake", model = "small" }]\n'
        )
        command = [sys.executable, "-m", "windlass.cli.main", "gateway", "gateway.toml", "--port", "0"]
        gateway = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert gateway.stdout is not None
            url = next(line for line in gateway.stdout if line.startswith("OpenAI API")).split()[-1]
            with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
                answer = client.chat.completions.create(model="m", messages=[])
            assert answer.model == "small" and answer.choices[0].message.content == "four"
            gateway.send_signal(signal.SIGTERM)
            rest, _ = gateway.communicate(timeout=40)
            assert gateway.returncode == 0 and "every request that had arrived was answered" in rest
        finally:
            gateway.kill()
            gateway.wait()
    finally:
        provider.kill()
        provider.wait()
        provider.stdout.close()
    with find_workspace(tmp_path) as workspace:
        (trace,) = workspace.store.traces()
    assert trace.root.attributes["gen_ai.provider.name"] == "fake" and trace.cost_usd is None


def test_what_keeps_it_from_starting_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", str(tmp_path / "absent.toml")]) == 2
    assert "absent.toml cannot be read" in capsys.readouterr().err
