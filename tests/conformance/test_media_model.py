"""What every `MediaModel` must do. A new implementation adds itself to `WORLDS`."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx2
import pytest
from tests.apply.media.media_world import KEY, PICTURE, VARIABLES, WORLDS, World

from windlass.apply.media import host
from windlass.apply.tasks import Surroundings, surrounded
from windlass.core import semconv
from windlass.core.errors import ProviderError
from windlass.core.protocols import Made, MediaModel
from windlass.core.workspace import Workspace


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in VARIABLES:
        monkeypatch.setenv(name, KEY)
    monkeypatch.setattr(host, "LOOKS", (0.001, 0.002))
    return WORLDS[request.param]()


def checked(made: Made, folder: Path) -> Made:
    (file,) = made.files
    assert file.path.parent == folder and file.path.suffix == ".png" and file.path.read_bytes() == PICTURE
    assert file.digest == hashlib.sha256(PICTURE).hexdigest() == file.path.stem
    assert (file.media_type, file.size) == ("image/png", len(PICTURE))
    assert [path.name for path in folder.iterdir()] == [file.path.name]
    return made


def test_it_makes_files_waiting_and_on_an_event_loop(world: World, tmp_path: Path) -> None:
    model = world.host(tmp_path)
    assert isinstance(model, MediaModel) and model.name and model.digest is None
    first = checked(model.make("A windlass at dusk"), tmp_path)
    second = checked(asyncio.run(model.amake("A windlass at dusk")), tmp_path)
    assert first.files == second.files, "the same content is the same file"
    assert not any(
        "authorization" in request.headers for request in world.requests if request.url.host != "api.example"
    )
    assert KEY in world.requests[0].headers["authorization"]


def test_the_trace_holds_what_was_made_and_an_unknown_cost(world: World, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws, surrounded(Surroundings(ws)):
        made = world.host(None, price_of=lambda made: None).make("A windlass", {"n": 1} if "gpt" in world.model else {})
        checked(made, ws.root / "media")
        priced = world.host(None, price_of=lambda made: 0.04 * len(made.files)).make("A windlass")
        ws.recorder.flush()
        spans = [trace.root for trace in ws.store.traces()]
    assert made.cost_usd is None and priced.cost_usd == 0.04
    assert sorted(str(span.attributes[semconv.COST_USD]) for span in spans) == ["0.04", "None"]
    for span in spans:
        assert span.input["prompt"] == "A windlass" and span.output[0]["digest"] == made.files[0].digest
        assert KEY not in repr(span)


@pytest.mark.parametrize("status", [400, 401, 402, 404, 422])
def test_an_order_that_is_refused(world: World, tmp_path: Path, status: int) -> None:
    world.before = lambda request: httpx2.Response(status, json={"detail": f"not with {KEY}"})
    with pytest.raises(ProviderError) as caught:
        world.host(tmp_path).make("A windlass")
    assert caught.value.status == status and KEY not in str(caught.value) and len(world.requests) == 1


@pytest.mark.parametrize("said", [b"<html>Sign in</html>", b"[]", b"{}", b'{"id": 1, "status": []}', b'{"data": [{}]}'])
def test_nonsense_with_status_200(world: World, tmp_path: Path, said: bytes) -> None:
    world.before = lambda request: httpx2.Response(200, content=said)
    with pytest.raises(ProviderError, match=r"https://api\.example"):
        world.host(tmp_path).make("A windlass")


def test_a_key_does_not_travel_to_another_host(world: World, tmp_path: Path) -> None:
    world.before = lambda request: httpx2.Response(307, headers={"location": "https://evil.example/"})
    with pytest.raises(ProviderError, match="status 307"):
        world.host(tmp_path).make("A windlass")
    assert {request.url.host for request in world.requests} == {"api.example"}


def test_it_is_not_ordered_twice_when_the_connection_breaks(world: World, tmp_path: Path) -> None:
    def broken(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.RemoteProtocolError("gone")

    world.before = broken
    with pytest.raises(ProviderError, match="cannot be reached"):
        world.host(tmp_path).make("A windlass")
    assert len(world.requests) == 1
