"""Whoever reads a message, a log, a trace, a cassette or a map's journal learns no eight characters of a key."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from tests.apply.every_provider import SPOKEN, TEXT, Spoken, streamed
from tests.apply.provider_world import Loopback, ask, reply

from windlass.apply.providers import known
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.remote import RemoteChat
from windlass.apply.providers.wire.http import Endpoint
from windlass.apply.providers.wire.keys import ApiKey
from windlass.apply.tasks import Surroundings, surrounded, task
from windlass.cli.main import main
from windlass.core.errors import ConfigError, ProviderError, WindlassError
from windlass.core.workspace import Workspace
from windlass.testing.cassettes import Cassette

KEYS = {
    "WINDLASS_TEST_KEY": "tk-0123456789/abcdef+ghij=",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",  # a name, sent and shown by Amazon itself
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEBYaDKqQmlJ4+Q/x",
}
PASS, PROXY = "gate-pass-77aa", "pr0xy-passw0rd"
SECRETS = [value for name, value in KEYS.items() if name != "AWS_ACCESS_KEY_ID"] + [PASS, PROXY]


def words(spoken: Spoken) -> str:
    """All that a request may have held, in several ways to write it."""
    secrets = [*spoken.auth().secrets(), PASS, PROXY]
    return " and ".join([*secrets, json.dumps(secrets).replace("/", "\\/"), quote(" ".join(secrets), safe="")])


def leaked(text: str) -> list[str]:
    return [s for s in SECRETS if any(s[at : at + 8] in text for at in range(len(s) - 7))]


def spoilt(value: object, words: str) -> object:
    """An answer that says `words` where no text should be."""
    if isinstance(value, dict):
        return {key: spoilt(one, words) for key, one in value.items()}
    if isinstance(value, list):
        return [spoilt(one, words) for one in value]
    return {"said": words} if value == TEXT else value


ECHOES: dict[str, Callable[[Spoken, str], httpx2.Response]] = {
    "a refusal": lambda spoken, words: httpx2.Response(400, json={"error": {"message": f"wrong key: {words}"}}),
    "a refusal in a page": lambda spoken, words: httpx2.Response(502, html=f"<p>{words}</p>"),
    "a page with a good status": lambda spoken, words: httpx2.Response(200, html=f"<p>{words}</p>"),
    "an error with a good status": lambda spoken, words: httpx2.Response(200, json={"error": {"message": words}}),
    "another form": lambda spoken, words: httpx2.Response(200, json=spoilt(spoken.answer, words)),
    "a line that is no event": lambda spoken, words: event(spoken, f"{words}\n\n"),
    "an event that is no JSON": lambda spoken, words: event(spoken, f"data: {words}\n\n"),
}


def event(spoken: Spoken, text: str) -> httpx2.Response:
    return httpx2.Response(200, content=text.encode(), headers={"content-type": spoken.stream[0]})


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTP_PROXY", f"http://someone:{PROXY}@proxy.example:3128")


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


def chat(spoken: Spoken, handle: Callable[[httpx2.Request], httpx2.Response]) -> RemoteChat:
    endpoint = Endpoint(
        "http://model.example/v1", spoken.auth(), headers={"X-Gate": f"Pass {PASS}"}, retries=0,
        transport=httpx2.MockTransport(handle),
    )  # fmt: skip
    return RemoteChat(endpoint, spoken.dialect("m"))


@task
def hours(place: str) -> str:
    """Say how many hours a day has there."""
    raise NotImplementedError


@pytest.mark.parametrize("dialect", SPOKEN)
def test_a_server_that_repeats_what_it_was_sent(
    dialect: str, ws: Workspace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoken, seen = SPOKEN[dialect], list[str]()
    caplog.set_level(logging.DEBUG)
    for name, echo in ECHOES.items():
        for before in (0, 70, 185, 290, 3980):  # wherever a message is cut, it is not cut within a key
            model = chat(spoken, lambda request, echo=echo, n=before: echo(spoken, "." * n + words(spoken)))
            for stream in (False, True):
                with pytest.raises(ProviderError) as caught:
                    list(hours.using(model=model).stream("here")) if stream else hours.using(model=model)("here")
                seen += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
                assert len(caught.value.message) < 4000, name
        found = hours.using(model=model).map(["a", "b"], journal=tmp_path / "journal.jsonl", progress=False)
        seen += [repr([*found]), str(found)]
    seen += [repr(model), repr(model.endpoint), repr(model.endpoint.auth), repr(hours.using(model=model).settings)]
    ws.recorder.flush()
    assert len(ws.store.traces(errors=True, limit=1000)) > 50
    assert not leaked("\n".join(seen)) and not leaked(caplog.text)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not leaked(path.read_bytes().decode("utf-8", "replace")), path


@pytest.mark.parametrize("dialect", SPOKEN)
def test_an_answer_that_repeats_the_key_is_stored_without_it(dialect: str, ws: Workspace, tmp_path: Path) -> None:
    spoken = SPOKEN[dialect]
    said = KEYS["WINDLASS_TEST_KEY"]
    answer = json.loads(json.dumps(spoken.answer).replace(TEXT, f"You sent {said}"))
    model = chat(spoken, lambda request: httpx2.Response(200, json=answer))
    assert hours.using(model=model)("here") == f"You sent {said}"
    ws.recorder.flush()
    for path in (tmp_path / ".windlass").rglob("*"):
        if path.is_file():
            assert not leaked(path.read_bytes().decode("utf-8", "replace")), path


@pytest.mark.parametrize("dialect", SPOKEN)
def test_a_cassette_holds_nothing_that_a_header_held(dialect: str, tmp_path: Path) -> None:
    spoken = SPOKEN[dialect]

    def echo(request: httpx2.Request) -> httpx2.Response:
        if streamed(request):
            return httpx2.Response(200, content=spoken.stream[1], headers={"content-type": spoken.stream[0]})
        return httpx2.Response(401, json={"error": {"message": str(dict(request.headers))}})

    path = tmp_path / "c.json"
    cassette = Cassette(path, record=True, inner=httpx2.MockTransport(echo))
    endpoint = Endpoint(
        "http://model.example/v1", spoken.auth(), headers={"X-Gate": f"Pass {PASS}"}, transport=cassette
    )
    model = RemoteChat(endpoint, spoken.dialect("m"))
    with pytest.raises(ProviderError):
        model.complete(ask(f"My pass is {PASS}"))
    list(model.stream(ask()))
    assert not leaked(path.read_text()) and "redacted" in path.read_text()


def test_a_proxys_password_stays_with_the_proxy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with Loopback() as proxy:
        proxy.answer(reply())
        address = proxy.url.removesuffix("/v1").replace("//", f"//someone:{PROXY}@")
        endpoint = Endpoint("http://model.example/v1", ApiKey("WINDLASS_TEST_KEY"), proxy=address)
        assert RemoteChat(endpoint, ChatCompletions("m")).complete(ask()).message.text == "Hello!"
        (path, headers, _), *_ = proxy.requests
        assert path.startswith("http://model.example/v1/") and headers["proxy-authorization"].startswith("Basic ")
        endpoint.close()
    assert not leaked(caplog.text) and headers["proxy-authorization"][6:] not in caplog.text


@pytest.mark.parametrize(
    "proxy", [f"ftp://someone:{PROXY}@h", f"http://someone:{PROXY}#/@h:3128", f"http://someone:{PROXY}@h:no"]
)
def test_a_proxy_that_is_none(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint("http://model.example/v1", ApiKey("WINDLASS_TEST_KEY"), proxy=proxy, retries=0)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    for one in (endpoint, Endpoint("http://model.example/v1", ApiKey("WINDLASS_TEST_KEY"), retries=0)):
        with pytest.raises(WindlassError) as caught:
            RemoteChat(one, ChatCompletions("m")).complete(ask())
        assert not leaked("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.parametrize("around", ["{}\n", " {}", "\t{}\r\n"])
def test_space_around_a_key_is_no_part_of_it(dialect: str, around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken, sent = SPOKEN[dialect], list[httpx2.Request]()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, around.format(value))
    chat(spoken, lambda request: sent.append(request) or httpx2.Response(200, json=spoken.answer)).complete(ask())
    assert all(value == value.strip() for value in sent[0].headers.values())


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.parametrize("wrong", ["{}\n{}", "{}…", "“{}”"])
def test_a_key_that_no_header_can_hold(dialect: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP library would show it."""
    spoken = SPOKEN[dialect]
    variable = "AWS_SESSION_TOKEN" if dialect == "bedrock" else "WINDLASS_TEST_KEY"
    monkeypatch.setenv(variable, wrong.format(KEYS[variable], KEYS[variable]))
    with pytest.raises(ConfigError, match=f"{variable} holds a character") as caught:
        chat(spoken, lambda request: httpx2.Response(200, json=spoken.answer)).complete(ask())
    assert not leaked("".join(traceback.format_exception(caught.value)))


def test_headers_that_cannot_be_sent_are_named() -> None:
    with pytest.raises(ConfigError, match="The header X-Gate") as caught:
        Endpoint("http://model.example/v1", headers={"X-Gate": f"{PASS}\nX-Other: 1"})
    assert not leaked(str(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        f"https://someone:{PASS}@model.example/v1", f"https://{PASS}@model.example/v1", f"someone:{PASS}@model.example",
        f"https://someone:{PASS}#@model.example/v1", f"https://model.example/v1?key={PASS}",
        f"https://someone:{PASS}@[::1/v1",
    ],
)  # fmt: skip
def test_a_password_in_an_address_is_refused_unseen(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="base_url") as caught:
        known.model("openai:m", base_url=url)
    assert not leaked("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("key", ["sk-proj-a1b2c3d4e5f6", "gsk_a1b2c3d4e5f6g7h8", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"])
def test_a_key_where_its_variables_name_should_stand(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="looks like the key itself") as caught:
        known.model("openai:m", key_variable=key)
    assert key not in "".join(traceback.format_exception(caught.value))
    monkeypatch.setenv("a_key_of_2", "k")
    assert known.model("openai:m", key_variable="a_key_of_2").name == "m"
    settings = f'[model]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\napi_key_env = "{key}"\n'
    (tmp_path / "windlass.toml").write_text(settings)
    (tmp_path / ".windlass").mkdir()
    main(["doctor", str(tmp_path)])
    assert main(["traces", "--workspace", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "windlass.toml" in shown.err + shown.out and key not in shown.err + shown.out
