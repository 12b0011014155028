"""The probe sees what two servers have in common and what not, and what breaks the API."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from engine_world import TEMPLATE, make_folder
from safetensors.torch import load_file, save_file
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from windlass.cli import main as cli
from windlass.core.errors import ConfigError, ProviderError
from windlass.serve.app import create_app
from windlass.serve.engine.local import LocalModel
from windlass.serve.probe import checks
from windlass.serve.probe.checks import CHECKS, Finding, _scores, examine
from windlass.serve.probe.server import Server
from windlass.serve.run import ServerThread


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(checks, "TOO_LONG", 500)  # more than the window of these models
    monkeypatch.setattr(checks, "LENGTH", 8)


def serve(folder, name="tiny"):
    model = LocalModel.load(folder, name=name, policy="fp32")
    return ServerThread(create_app({name: model}, {}))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("probe")
    make_folder(root / "a", template=TEMPLATE, context=256)
    for name, amount in (("near", 1e-5), ("far", 0.5)):
        shutil.copytree(root / "a", root / name)
        tensors = load_file(root / "a" / "model.safetensors")
        generator = torch.Generator().manual_seed(5)
        moved = {k: t + amount * torch.randn(t.shape, generator=generator) for k, t in tensors.items()}
        save_file(moved, root / name / "model.safetensors", metadata={"format": "pt"})
    return root


@pytest.fixture(scope="module")
def urls(folders):
    """Of a model, its copy with noise in the last digits, and another one."""
    with serve(folders / "a") as a, serve(folders / "near", "other") as near, serve(folders / "far") as far:
        yield a.url, near.url, far.url


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def test_a_server_agrees_with_a_copy(urls):
    findings = examine(Server(urls[0]), Server(urls[1]))
    found = verdicts(findings)
    assert found.keys() == {check.name for check in CHECKS}
    assert set(found.values()) <= {"same", "close", "neither"}, findings
    for check in ("chat, greedy", "usage", "streaming", "seed", "length", "stop string"):
        assert found[check] == "same", findings


def test_another_model_is_told_apart(urls):
    findings = examine(Server(urls[0]), Server(urls[2]))
    found = verdicts(findings)
    assert found["chat, greedy"] == "differs" and found["completions, greedy"] == "differs"
    detail = next(f.detail for f in findings if f.check == "chat, greedy")
    assert "parts at character" in detail
    assert found["streaming"] == "same" and found["error: broken JSON"] == "same"


def careless(**changes):
    """A server that answers everything with the same words, whatever is asked."""

    async def chat(request) -> Response:
        body = await request.body()
        answer = {
            "choices": [{"message": {"content": "once upon a time"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 9},
        }
        if b'"stream": true' in body:
            events = [{"choices": [{"delta": {"content": "once"}}]}]
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            return Response(text, media_type="text/event-stream")
        return JSONResponse(answer)

    async def models(request) -> Response:
        return JSONResponse({"data": [{"id": "careless"}]})

    async def nothing(request) -> Response:
        return PlainTextResponse("no", 501)

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", nothing, methods=["POST"]),
        Route("/v1/models", changes.get("models", models)),
    ]
    return ServerThread(Starlette(routes=routes))


def test_what_breaks_the_api_is_called_wrong(urls):
    with careless() as b:
        findings = {finding.check: finding for finding in examine(Server(urls[0]), Server(b.url))}
    wrong = {name for name, finding in findings.items() if finding.verdict == "wrong"}
    assert {"log-probabilities", "usage", "stop string", "streaming", "error: broken JSON"} <= wrong
    assert "B: total_tokens is not the sum" in findings["usage"].detail
    assert "no [DONE]" in findings["streaming"].detail and "pieces are not" in findings["streaming"].detail
    assert "instead of 404 or 400" in findings["error: unknown model"].detail
    assert findings["completions, greedy"].detail == "B: neither an answer nor an error object"
    assert all("A:" not in finding.detail for finding in findings.values())


def test_texts_that_part_at_a_tie_are_close():
    tie = [("a", -1.0, (-1.0, -2.0)), ("b", -0.7, (-0.7, -0.7001))]
    other = [("a", -1.001, (-1.001, -2.0)), ("c", -0.7, (-0.7, -0.7001))]
    assert _scores(tie, other, 0.05)[0] == "close"
    assert _scores(tie, [other[0], ("c", -0.7, (-0.7, -3.0))], 0.05)[0] == "close"
    assert _scores([("b", -0.7, (-0.7, -3.0))], [("c", -0.7, (-0.7, -3.0))], 0.05)[0] == "differs"
    assert _scores(tie, tie, 0.05)[0] == "same"
    assert _scores(tie, [("a", -1.2, (-1.2, -2.0)), tie[1]], 0.05)[0] == "differs"
    assert _scores(tie, tie[:1], 0.05)[0] == "differs"


def test_silence_is_an_error():
    with pytest.raises(ProviderError, match="does not answer"):
        examine(Server("http://127.0.0.1:9/v1"), Server("http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="not an http"):
        Server("ftp://x")


def test_the_command_prints_a_table_and_fails_on_differences(urls, capsys):
    assert cli.main(["probe", urls[0], urls[2]]) == 1
    said = capsys.readouterr().out
    assert "verdict" in said and "differs" in said and f"A  {urls[0]}/v1  tiny" in said
    assert cli.main(["probe", urls[0], urls[0], "--json"]) == 0
    assert {finding["verdict"] for finding in json.loads(capsys.readouterr().out)} <= {"same", "neither"}
