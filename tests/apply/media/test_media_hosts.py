"""Orders that are looked at until they are done, cancelled when nobody waits, and fetched with care."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.apply.media.media_world import (
    FILE,
    KEY,
    PICTURE,
    VARIABLES,
    FalWorld,
    OpenAIWorld,
    World,
    body,
    picture,
)
from tests.apply.provider_world import Loopback

from windlass.apply.media import host, media
from windlass.apply.tasks import Surroundings, surrounded
from windlass.core.errors import ConfigError, InputError, ProviderError, TimedOut, Unsupported
from windlass.core.values import AudioPart, FilePart, ImagePart
from windlass.core.workspace import Workspace


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(host, "LOOKS", (0.001, 0.002))


@pytest.fixture(params=[World, FalWorld])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made


def test_it_is_ordered_once_and_looked_at_until_it_is_done(world: World, tmp_path: Path) -> None:
    made = world.host(tmp_path).make("A windlass", {"seed": 3, "image_url": "data:image/png;base64,AAAA"})
    ordered, *later = world.requests
    inputs = body(ordered)
    assert inputs.get("input", inputs) == {
        "prompt": "A windlass", "seed": 3, "image_url": "data:image/png;base64,AAAA"
    }  # fmt: skip
    assert [request.method for request in later] == ["GET"] * len(later) and world.looks == 3
    assert made.id == "p1" and made.seconds == 1.5 and not world.cancelled
    assert isinstance(made.files[0].part(), ImagePart)


def test_files_go_in_as_addresses(world: World, tmp_path: Path) -> None:
    image, sound = ImagePart(data=b"P", media_type="image/png"), AudioPart(b"R", "audio/wav")
    there = FilePart(url="https://a.example/x.pdf")
    world.host(tmp_path).make("", {"text": "Hello", "image": image, "more": [sound, there]})
    sent = body(world.requests[0])
    assert sent.get("input", sent) == {
        "text": "Hello", "image": "data:image/png;base64,UA==",
        "more": ["data:audio/wav;base64,Ug==", "https://a.example/x.pdf"],
    }  # fmt: skip
    for wrong in (b"P", tmp_path / "x.png"):
        with pytest.raises(InputError, match="input 'image' is"):
            world.host(tmp_path).make("A windlass", {"image": wrong})


def test_an_order_that_fails(world: World, tmp_path: Path) -> None:
    world.problem = "The picture was withheld."
    with pytest.raises(ProviderError, match=r"maker/picture.* made nothing: The picture was withheld\."):
        world.host(tmp_path).make("A windlass")
    assert not world.cancelled and not any(tmp_path.iterdir())


def test_a_result_that_is_an_error(tmp_path: Path) -> None:
    world = FalWorld()
    usual = world.answer
    detail = {"detail": [{"loc": ["body", "seed"], "msg": "value is not a valid integer"}]}

    def answer(request: httpx2.Request, path: str) -> httpx2.Response:
        return httpx2.Response(422, json=detail) if path.endswith("/p1") else usual(request, path)

    world.answer = answer  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="value is not a valid integer"):
        world.host(tmp_path).make("A windlass")


def test_looks_that_fail_are_made_again(world: World, tmp_path: Path) -> None:
    """It has been paid for: a host that is busy, or down for a moment, does not end it."""
    faults: list[httpx2.Response | None] = [
        None, httpx2.Response(429, headers={"retry-after": "0"}), httpx2.Response(503, headers={"retry-after": "0"}),
        httpx2.Response(502, headers={"retry-after": "0"}), httpx2.Response(500, headers={"retry-after": "0"}),
    ]  # fmt: skip

    def busy(request: httpx2.Request) -> httpx2.Response:
        if not faults:
            raise StopIteration
        fault = faults.pop(0)
        return world.answer(request, request.url.path.removeprefix("/v1")) if fault is None else fault

    world.before = busy
    assert world.host(tmp_path).make("A windlass").files and not world.cancelled


def test_nobody_waits_for_ever(world: World, tmp_path: Path) -> None:
    world.done_at = 1_000_000
    with pytest.raises(TimedOut, match=r"was not done after 0\.2 seconds"):
        world.host(tmp_path).make("A windlass", timeout=0.2)
    assert world.cancelled == 1


def test_a_task_that_is_cancelled_cancels_its_order(world: World, tmp_path: Path) -> None:
    world.done_at = 1_000_000

    async def left() -> None:
        task = asyncio.create_task(world.host(tmp_path).amake("A windlass"))
        while not world.looks:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(left())
    assert world.cancelled == 1


def test_ctrl_c_cancels_the_order(world: World, tmp_path: Path) -> None:
    world.done_at = 1_000_000
    usual = world.answer

    def interrupted(request: httpx2.Request, path: str) -> httpx2.Response:
        if request.method == "GET" and world.looks == 1:
            signal.raise_signal(signal.SIGINT)
        return usual(request, path)

    world.answer = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.host(tmp_path).make("A windlass")
    assert world.cancelled == 1


def test_a_host_that_does_not_cancel_is_said_on_the_trace(world: World, tmp_path: Path) -> None:
    world.done_at = 1_000_000
    usual = world.answer

    def stubborn(request: httpx2.Request, path: str) -> httpx2.Response:
        return httpx2.Response(400, text="too late") if path.endswith("/cancel") else usual(request, path)

    world.answer = stubborn  # type: ignore[method-assign]
    with Workspace(tmp_path) as ws, surrounded(Surroundings(ws)):
        with pytest.raises(TimedOut):
            world.host(None).make("A windlass", timeout=0.2)
        ws.recorder.flush()
        (trace,) = ws.store.traces()
    assert "too late" in trace.root.attributes["windlass.cancelled"] and "TimedOut" in (trace.root.error or "")


# what was made --------------------------------------------------------------------------------------------------------


def test_files_are_fetched_over_redirects_without_a_key(world: World, tmp_path: Path) -> None:
    moved = httpx2.Response(302, headers={"location": "https://cdn.example/there.png"})
    world.files = {"files.example": lambda request: moved, "cdn.example": lambda request: picture()}
    assert world.host(tmp_path).make("A windlass").files[0].path.read_bytes() == PICTURE
    away = [request for request in world.requests if request.url.host != "api.example"]
    assert [request.url.host for request in away] == ["files.example", "cdn.example"]
    assert not any(KEY in str(request.headers) for request in away)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: httpx2.Response(302, headers={"location": "http://files.example/out.png"}), "which is not https"),
        (lambda: httpx2.Response(302, headers={"location": FILE}), "leads on and on"),
        (lambda: httpx2.Response(302, headers={"location": "file:///etc/passwd"}), "which is not https"),
        (lambda: httpx2.Response(200, html="<html>Sign in</html>"), "text/html, which is nothing that was made"),
        (lambda: httpx2.Response(404, text="gone"), "status 404"),
        (lambda: httpx2.Response(200, content=b""), "is empty"),
        (lambda: httpx2.Response(200, content=b"x" * 5000), r"larger than 4,000 bytes"),
    ],
)
def test_files_that_are_none(tmp_path: Path, answer: Callable[[], httpx2.Response], why: str) -> None:
    world = World()
    world.files = {"files.example": lambda request: answer()}
    with pytest.raises(ProviderError, match=why) as caught:
        world.host(tmp_path, largest=4000).make("A windlass")
    assert not any(tmp_path.iterdir()), "nothing half is left"
    assert "signature" not in str(caught.value)


def test_a_file_that_breaks_off_is_fetched_again(tmp_path: Path) -> None:
    world = World()
    faults = [httpx2.ReadError("gone"), httpx2.ConnectError("nobody there")]

    def broken(request: httpx2.Request) -> httpx2.Response:
        if faults:
            raise faults.pop()
        return picture()

    world.files = {"files.example": broken}
    assert world.host(tmp_path).make("A windlass").files
    faults += [httpx2.ReadError("gone")] * 3
    with pytest.raises(ProviderError, match="broke off what was made"):
        world.host(tmp_path).make("A windlass")


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        ("https://files.example/a.mp4", ["video/mp4"]),
        (["data:audio/mpeg;base64,SUQz", "https://files.example/b"], ["audio/mpeg", "application/octet-stream"]),
        ({"video": {"url": "https://files.example/c", "content_type": "video/webm"}}, ["video/webm"]),
    ],
)
def test_of_what_kind_it_is(tmp_path: Path, output: Any, kinds: list[str]) -> None:
    world = World()
    world.output = output
    world.files = {"files.example": lambda request: httpx2.Response(200, content=b"some data")}
    made = world.host(tmp_path).make("A sound")
    assert [file.media_type for file in made.files] == kinds
    parts = {"audio/mpeg": AudioPart}
    assert all(isinstance(file.part(), parts.get(file.media_type, FilePart)) for file in made.files)


@pytest.mark.parametrize("output", [None, "Just words.", {"seed": 3}, [], "data:image/png;base64,%%", "data:,x"])
def test_answers_without_a_file(tmp_path: Path, output: Any) -> None:
    world = World()
    world.output = output
    with pytest.raises(ProviderError, match=r"without a file|base64"):
        world.host(tmp_path).make("A windlass")


# by name --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("replicat:a/b", "names no media host"), ("fal", "names no media host"), ("fal:", "names no media host"),
        ("replicate:flux", "no model at Replicate"), ("fal:flux", "no model at fal"),
        ("fal:comfy/a", "no model at fal"),
    ],
)  # fmt: skip
def test_names_that_are_none(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        media(name)


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAL_KEY")
    with pytest.raises(ConfigError, match="FAL_KEY is not set"):
        media("fal:fal-ai/flux/dev")
    named = media("fal:workflows/me/mine", base_url="http://127.0.0.1:1")
    assert named.dialect.look("r").path == "/workflows/me/mine/requests/r/status"


def test_where_no_folder_is_known() -> None:
    with surrounded(Surroundings()), pytest.raises(ConfigError, match="there is none"):
        World().host(None).make("A windlass")


def test_openai_is_told_what_it_knows(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no input 'seed'"):
        OpenAIWorld().host(tmp_path).make("A windlass", {"seed": 3})


def test_our_image_requests_are_the_official_sdks(tmp_path: Path) -> None:
    world = OpenAIWorld()
    answer = world.answer(httpx2.Request("POST", "https://api.example/images/generations"), "/images/generations")
    with Loopback() as server:
        server.answer((200, {}, answer.content))
        media("openai:gpt-image-1", base_url=server.url, folder=tmp_path).make("A windlass", {"n": 1, "quality": "low"})
        with openai.OpenAI(base_url=server.url, api_key=KEY) as client:
            client.images.generate(model="gpt-image-1", prompt="A windlass", n=1, quality="low")
        ours, theirs = server.requests
    assert ours[0] == theirs[0] and ours[2] == theirs[2] and ours[1]["authorization"] == theirs[1]["authorization"]


def test_our_predictions_are_the_official_sdks(tmp_path: Path) -> None:
    replicate = pytest.importorskip("replicate")
    told = {
        "id": "p1", "model": "maker/picture", "version": "v1", "status": "succeeded", "output": [FILE], "input": {},
        "logs": "", "error": None, "urls": {}, "created_at": "", "metrics": {},
    }  # fmt: skip
    with Loopback() as server:
        server.answer((201, {}, json.dumps(told).encode()))
        client = replicate.Client(api_token=KEY, base_url=server.url.removesuffix("/v1"))
        for model in ("maker/picture", "maker/picture:v1"):
            named = {"version": "v1"} if ":" in model else {"model": model}
            client.predictions.create(**named, input={"prompt": "A windlass", "seed": 3})
            ours = media(f"replicate:{model}", base_url=server.url).dialect.order("A windlass", {"seed": 3})
            path, headers, sent = server.requests.pop()
            assert path == f"/v1{ours.path}" and sent == ours.body and headers["authorization"] == f"Bearer {KEY}"
