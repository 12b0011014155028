"""`windlass serve` as a user runs it: a real process, the official client, a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _name in ("torch", "tokenizers", "uvicorn", "openai", "httpx2"):
    pytest.importorskip(_name)

import httpx2 as httpx  # noqa: E402
import openai  # noqa: E402
from engine_world import make_folder, make_lora  # noqa: E402

from windlass.core.workspace import Workspace  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    with Workspace(folder) as ws, ws.artifacts.build("model", "tiny") as draft:
        make_folder(draft.path)
    return folder


def start(home: Path | None, *options: str, cwd: Path | None = None, **environment: str) -> subprocess.Popen[str]:
    where = [] if home is None else ["--workspace", str(home)]
    program = [sys.executable, "-m", "windlass", "serve", *where, *options]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment, cwd=cwd
    )


def greeting(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            return "".join(lines)
    raise AssertionError(f"{''.join(lines)}\n{process.stderr.read()}")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with start(home, "tiny", "--port", "0", "--access-log") as process:
        try:
            yield process, greeting(process)
        finally:
            process.kill()


def address(text: str) -> str:
    found = re.search(r"OpenAI API  (\S+)", text)
    assert found
    return found[1]


def test_models_answer_the_official_client_and_a_signal_ends_it_in_order(
    server: tuple[subprocess.Popen[str], str], home: Path
) -> None:
    process, text = server
    assert "\ntiny: linear maps in " in text, "which arithmetic is in force"
    assert "Models      tiny" in text and "curl http://127.0.0.1:" in text
    with openai.OpenAI(base_url=address(text), api_key="unused", max_retries=0) as client:
        assert "tiny" in [model.id for model in client.models.list()]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 8, "seed": 1}
        answer = client.chat.completions.create(**body)
        streamed = "".join(
            c.choices[0].delta.content or "" for c in client.chat.completions.create(**body, stream=True)
        )
        assert streamed == answer.choices[0].message.content and answer.usage.completion_tokens == 8
        with pytest.raises(openai.BadRequestError, match="base model"):
            client.chat.completions.create(model="tiny", messages=[{"role": "system", "content": "x"}])
    page = httpx.get(address(text).removesuffix("/v1"))
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")

    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stdout is not None and "every request that had arrived" in process.stdout.read()
    assert process.stderr is not None
    log = process.stderr.read()
    assert '"path": "/v1/chat/completions", "status": 200' in log and "the cat" not in log
    with Workspace(home) as ws:  # the recorder was flushed before the process ended
        (span,) = ws.store.trace(answer.windlass["trace_id"])
        assert span.attributes["windlass.model.digest"] == ws.artifacts.get("tiny").digest


def test_a_model_that_is_not_there_is_named(home: Path) -> None:
    with start(home, "nobody", "--port", "0") as process:
        assert "nobody" in process.communicate(timeout=60)[1] and process.returncode == 2
    with start(home, "--port", "0", "--tls-cert", "missing.pem") as process:
        assert "--tls-key" in process.communicate(timeout=60)[1] and process.returncode == 2


def test_a_port_in_use_is_one_clear_message(home: Path) -> None:
    from windlass.serve.run import listen

    with listen("127.0.0.1", 0) as taken, start(home, "--port", str(taken.getsockname()[1])) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "is in use" in err and "--port" in err and "Traceback" not in err
    assert "Loading" not in out


def test_the_open_net_needs_a_key(home: Path) -> None:
    with start(home, "--host", "0.0.0.0") as process:
        assert "no API key is set" in process.communicate(timeout=60)[1] and process.returncode == 2
    with start(home, "--host", "0.0.0.0", "--api-key-env", "NO_SUCH_KEY") as process:
        assert "NO_SUCH_KEY is empty" in process.communicate(timeout=60)[1] and process.returncode == 2


def test_adapters_come_with_the_command_and_later_from_the_folder_it_allows(home: Path, tmp_path: Path) -> None:
    make_lora(tmp_path / "allowed/german")
    options = ("--lora", f"french={tmp_path / 'allowed/german'}", "--adapters-dir", str(tmp_path / "allowed"))
    options += ("--speculate", "lookup")
    with start(home, "tiny", "--port", "0", *options) as process:
        try:
            text = greeting(process)
            assert "tiny, french" in text
            assert 'figure="speculation_offered"' in httpx.get(f"{address(text).removesuffix('/v1')}/metrics").text
            loading = f"{address(text)}/load_lora_adapter"
            assert httpx.post(loading, json={"lora_name": "german", "lora_path": "german"}).status_code == 200
            assert httpx.post(loading, json={"lora_name": "x", "lora_path": str(home)}).status_code == 403
            parents = {one["id"]: one["parent"] for one in httpx.get(f"{address(text)}/models").json()["data"]}
            assert parents["french"] == parents["german"] == "tiny" and parents["tiny"] is None
        finally:
            process.kill()
    with start(home, "tiny", "--port", "0", "--lora", "french") as process:
        assert process.wait() == 2 and "NAME=FOLDER" in process.stderr.read()  # type: ignore[union-attr]


def test_a_folder_is_served_where_there_is_no_workspace(tmp_path: Path) -> None:
    make_folder(tmp_path / "tiny")
    make_lora(tmp_path / "french")
    options = ("./tiny", "--port", "0", "--policy", "fp32", "--lora", "french=./french")
    with start(None, *options, cwd=tmp_path) as process:
        try:
            text = greeting(process)
            (said,) = [line for line in text.splitlines() if "no workspace" in line]
            assert "nothing is recorded" in said and "windlass init" in said
            assert "Studio" not in text and "Models      tiny, french" in text
            with openai.OpenAI(base_url=address(text), api_key="unused", max_retries=0) as client:
                body = {"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 4, "seed": 1}
                for model in ("tiny", "french"):
                    assert client.chat.completions.create(model=model, **body).usage.completion_tokens == 4
            assert httpx.get(address(text).removesuffix("/v1")).status_code == 404, "no studio"
            assert httpx.get(f"{address(text)}/batches").status_code == 404
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.stderr.read()  # type: ignore[union-attr]
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "french"}, "nothing was written"


def test_where_there_is_no_workspace_its_things_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for options in ([], ["nobody"], ["folder", "nobody"], ["folder", "--workspace", str(tmp_path)]):
        with start(None, *options, "--port", "0", cwd=tmp_path) as process:
            error = process.communicate(timeout=120)[1]
            assert "No workspace in" in error and process.returncode == 2 and "Traceback" not in error, (options, error)
    assert not (tmp_path / ".windlass").exists()
