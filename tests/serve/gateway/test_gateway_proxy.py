"""A proxy on the way to a provider: whole addresses for http, a tunnel for https, and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from gateway_fakes import Provider, running, whole

from windlass.core.config import strict
from windlass.core.errors import ConfigError
from windlass.serve.gateway.app import create_gateway
from windlass.serve.gateway.config import GatewayConfig
from windlass.serve.gateway.proxy import Proxy, proxy_for
from windlass.serve.run import ServerThread

LOGIN = "Basic " + base64.b64encode(b"ann:p@ss").decode()


@dataclass
class Middleman:
    """A proxy that connects to whatever it is asked for, or refuses with `status`."""

    status: int = 200
    port: int = 0
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        others: list[asyncio.StreamWriter] = []
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                method, where, _ = head.split("\r\n")[0].split()
                if self.status != 200:
                    writer.write(f"HTTP/1.1 {self.status} No\r\nContent-Length: 0\r\n\r\n".encode())
                    return
                host, port = (urlsplit(f"//{where}") if method == "CONNECT" else urlsplit(where)).netloc.split(":")
                back, forth = await asyncio.open_connection(host, int(port))
                others.append(forth)
                if method == "CONNECT":
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    forth.write(head.replace(f"http://{host}:{port}", "").encode("latin-1"))
                await asyncio.gather(self._copy(reader, forth), self._copy(back, writer))
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for one in (writer, *others):
                one.close()

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65536):
                target.write(piece)
        target.close()


@contextlib.contextmanager
def proxying(**about: Any) -> Iterator[Middleman]:
    made, ready, loop = Middleman(**about), threading.Event(), asyncio.new_event_loop()

    async def work() -> None:
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = server.sockets[0].getsockname()[1]
        ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await server.serve_forever()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    task = loop.create_task(work())
    thread = threading.Thread(target=lambda: (loop.run_until_complete(task), loop.close()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)


@contextlib.contextmanager
def client(provider: Provider, **settings: Any) -> Iterator[openai.OpenAI]:
    values = {
        "providers": {"one": {"base_url": provider.url, **settings}},
        "routes": {"m": {"targets": [{"provider": "one"}], "retries": 0}},
    }
    with (
        ServerThread(create_gateway(strict(GatewayConfig, values, where="test"))) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


def ask(made: openai.OpenAI) -> str | None:
    return made.chat.completions.create(model="m", messages=[]).choices[0].message.content


def test_http_goes_by_whole_addresses_on_kept_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(whole()) as provider, proxying() as proxy:
        with client(provider, proxy=f"http://127.0.0.1:{proxy.port}") as made:
            assert [ask(made), ask(made)] == ["four", "four"]
        assert len(proxy.heads) == 1 and proxy.heads[0].startswith(f"POST {provider.url}/chat/completions HTTP/1.1\r\n")
        assert len(provider.requests) == 2 and provider.connections == 1
        monkeypatch.setattr("windlass.serve.gateway.proxy.is_loopback", lambda host: False)
        monkeypatch.setenv("HTTP_PROXY", f"http://ann:p%40ss@127.0.0.1:{proxy.port}")
        with client(provider) as made:
            assert ask(made) == "four"
        assert f"\r\nProxy-Authorization: {LOGIN}\r\n" in proxy.heads[1]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    if shutil.which("openssl") is None:
        pytest.skip("makes its certificate with the openssl command")
    file, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", file, "-keyout", key],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return file, context


def test_https_goes_through_a_tunnel_and_is_checked_in_it(certificate: tuple[Path, ssl.SSLContext]) -> None:
    file, context = certificate
    with running(whole(), tls=context) as provider, proxying() as proxy:
        through = f"http://127.0.0.1:{proxy.port}"
        with client(provider, proxy=through, ca_file=str(file)) as made:
            assert [ask(made), ask(made)] == ["four", "four"]
        where = provider.url.removeprefix("https://").removesuffix("/v1")
        assert [head.split("\r\n")[0] for head in proxy.heads] == [f"CONNECT {where} HTTP/1.1"]
        assert provider.requests[0].path == "/v1/chat/completions"
        assert "proxy-authorization" not in provider.requests[0].headers
        with client(provider, proxy=through) as made, pytest.raises(openai.APIStatusError, match="certificate"):
            ask(made)


def test_a_proxy_that_refuses_is_named(certificate: tuple[Path, ssl.SSLContext]) -> None:
    file, context = certificate
    with running(whole(), tls=context) as provider, proxying(status=407) as proxy:
        settings = {"proxy": f"http://127.0.0.1:{proxy.port}", "ca_file": str(file)}
        with client(provider, **settings) as made, pytest.raises(openai.APIStatusError) as caught:
            ask(made)
        assert f"the proxy 127.0.0.1:{proxy.port} makes no tunnel (it answered status 407)" in str(caught.value)
        assert provider.requests == []


@pytest.mark.parametrize(
    ("variables", "host", "found"),
    [
        ({}, "api.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "api.example", Proxy("p", 1)),
        ({"https_proxy": "p:1"}, "api.example", Proxy("p", 1)),
        ({"ALL_PROXY": "http://p"}, "api.example", Proxy("p", 80)),
        ({"HTTP_PROXY": "http://p:1"}, "api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other, .example"}, "api.example", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "api.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "127.0.0.1", None),
        ({"HTTPS_PROXY": "http://p:1"}, "localhost", None),
        ({"HTTPS_PROXY": "http://ann:p%40ss@p:1"}, "api.example", Proxy("p", 1, LOGIN)),
    ],
    ids=str,
)
def test_the_environment_is_read_as_others_do(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], host: str, found: Proxy | None
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for("one", "", "https", host, 443) == found
    assert proxy_for("one", "none", "https", host, 443) is None


@pytest.mark.parametrize("url", ["socks5://p:1", "https://p:1", "http://", "http://p:99999", "http://p:1/path"])
def test_what_is_no_http_proxy_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError, match="no plain HTTP proxy"):
        proxy_for("one", url, "https", "api.example", 443)
    monkeypatch.setenv("https_proxy", url.replace("//", "//ann:secret@"))
    with pytest.raises(ConfigError) as caught:
        proxy_for("one", "", "https", "api.example", 443)
    assert "secret" not in str(caught.value)


def test_a_password_in_the_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="secrets never stand in the file") as caught:
        proxy_for("one", "http://ann:secret@p:1", "https", "api.example", 443)
    assert "ann:secret" not in caught.value.message
