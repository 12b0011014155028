"""`windlass chat` as its users meet it: through a pipe, at a terminal, with a local model and with a server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from windlass.serve.run import ServerThread


@pytest.fixture(scope="module")
def server():
    """A server whose answers take long when asked for a long one."""

    async def chat(request):
        body = await request.json()
        words = ["slow"] * 500 if "long" in body["messages"][-1]["content"] else ["heard", "you"]

        async def events():
            for word in words:
                piece = {"choices": [{"index": 0, "delta": {"content": word + " "}}]}
                yield f"data: {json.dumps(piece)}\n\n"
                await asyncio.sleep(0.05 if len(words) > 2 else 0)
            yield 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")

    async def models(request):
        return JSONResponse({"data": [{"id": "distant"}]})

    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)]
    with ServerThread(Starlette(routes=routes)) as running:
        yield running.url


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "windlass.cli.main", "chat", *arguments]


def test_a_pipe_gets_the_answer_and_nothing_else(server, tmp_path):
    done = subprocess.run(command(server), input="hello", capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard you \n", "")


def test_what_is_not_there_is_two_lines(tmp_path):
    done = subprocess.run(command("nothing"), input="x", capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and "No workspace" in done.stderr and "Traceback" not in done.stderr


def test_a_model_in_a_folder_needs_no_workspace(tmp_path):
    for name in ("torch", "tokenizers"):
        pytest.importorskip(name)
    from engine_world import make_folder

    make_folder(tmp_path / "tiny")
    asked = command("./tiny", "--temperature", "0")
    done = subprocess.run(asked, input="the cat", capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"], "nothing is kept"

    elsewhere = command("./tiny", "--workspace", str(tmp_path))
    refused = subprocess.run(elsewhere, input="x", capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert refused.returncode == 2 and "No workspace" in refused.stderr, "one that was asked for"


def until(master: int, wanted: str, seconds: float = 40) -> str:
    """What the terminal shows until it shows `wanted`."""
    seen, deadline = "", time.monotonic() + seconds
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 4096).decode()
    return seen


def test_ctrl_c_stops_the_answer_at_a_terminal(server, tmp_path):
    (tmp_path / ".windlass").mkdir()
    master, slave = pty.openpty()
    running = subprocess.Popen(
        command(server), stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, start_new_session=True
    )
    os.close(slave)
    try:
        until(master, "> ")
        os.write(master, b"a long answer\n")
        until(master, "slow slow slow")
        os.kill(running.pid, signal.SIGINT)
        until(master, "(stopped)")
        os.write(master, b"still there?\n")
        until(master, "heard you")
        os.write(master, b"/quit\n")
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()
        os.close(master)
    files = list(Path(tmp_path, ".windlass", "chats").glob("*.json"))
    assert len(files) == 1 and "still there?" in files[0].read_text()
