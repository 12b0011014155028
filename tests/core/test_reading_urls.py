"""Web pages from a double on this machine: fetched once, politely, within limits, and never from a private network."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from windlass.core.errors import InputError
from windlass.core.readers import ReadReport
from windlass.core.readers.fetching import Fetching, Refused, Unreachable, fetch, is_public
from windlass.core.readers.urls import UrlList

HERE = Fetching(private=True, seconds=20.0)
Answer = tuple[int, dict[str, str], bytes]


class Site:
    """A web site on this machine. `pages` holds answers, or functions of the request's headers, by path."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer | Callable[[Any], Answer]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                page = site.pages.get(self.path, (404, {}, b""))
                status, headers, body = page(self.headers) if callable(page) else page
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def html(self, path: str, text: str, **headers: str) -> str:
        self.pages[path] = (200, {"Content-Type": "text/html; charset=utf-8", **headers}, text.encode())
        return self.url + path

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def read(*urls: str, pause: float = 0, **how: Any) -> tuple[list[Any], ReadReport]:
    report = ReadReport()
    fetching = Fetching(**{"private": True, "seconds": 20.0, **how})
    source = UrlList(urls, fetching, pause=pause)
    return [one for file in source.files(report) for one in file.documents(report)], report


def reasons(report: ReadReport) -> dict[str, str]:
    return {note.source.rpartition("/")[2]: f"{note.reason} {note.detail}" for note in report.skipped}


def test_the_type_that_the_server_gives_decides_the_reader(site: Site) -> None:
    page = site.html("/page?id=7", "<title>Hello</title><h1>Rope</h1><p>It holds.</p>")
    site.pages["/rows"] = (200, {"Content-Type": "text/csv"}, b"id,text\n1,One\n2,Two\n")
    site.pages["/notes.md"] = (200, {"Content-Type": "text/plain"}, b"# Notes\n\nof a day")
    site.pages["/latin"] = (200, {"Content-Type": "text/plain; charset=iso-8859-1"}, "Größe".encode("latin-1"))
    site.pages["/picture"] = (200, {"Content-Type": "image/png"}, b"\x89PNG")
    urls = [page, *(site.url + path for path in ("/rows", "/notes.md", "/latin", "/picture"))]
    found, report = read(*urls, urls[0] + "#part")
    assert [one.id for one in found] == [page, urls[1] + ":2", urls[1] + ":3", urls[2], urls[3]]
    assert found[0].title == "Hello" and found[0].sections[0].heading == "Rope" and found[0].source == page
    assert found[3].sections[0].heading == "Notes" and found[4].text == "Größe"
    assert found[0].metadata["url"] == page
    assert reasons(report) == {"picture": "of a type that windlass does not read image/png"}
    assert report.documents == 5 and report.files == 4


def test_a_page_that_did_not_change_is_not_sent_again(site: Site) -> None:
    def tagged(headers: Any) -> Answer:
        if headers.get("If-None-Match") == '"v1"':
            return 304, {"Content-Length": "0"}, b""
        return 200, {"Content-Type": "text/html", "ETag": '"v1"'}, b"<p>tagged</p>"

    site.pages["/tagged"] = tagged
    plain = site.html("/plain", "<p>plain</p>")
    urls = UrlList((site.url + "/tagged", plain), HERE, pause=0)
    stamps = {file.name: file.stamp for file in urls.files(ReadReport())}
    site.asked.clear()
    again = list(urls.files(ReadReport(), stamps))
    assert {file.name: file.stamp for file in again} == stamps and all(stamps.values())
    assert [headers.get("if-none-match") for path, headers in site.asked if path == "/tagged"] == ['"v1"']
    assert [one.text for one in again[0].documents(ReadReport())] == ["tagged"]  # who wants it all the same gets it
    site.html("/plain", "<p>other</p>")
    after = {file.name: file.stamp for file in urls.files(ReadReport(), stamps)}
    assert after[plain] != stamps[plain] and after[site.url + "/tagged"] == stamps[site.url + "/tagged"]
    other = UrlList(urls.urls, Fetching(private=True, max_bytes=1000), pause=0)  # read another way: all are new
    assert not set(stamps.values()) & {file.stamp for file in other.files(ReadReport(), stamps)}


def test_a_page_that_is_gone_is_told_from_one_that_does_not_answer(site: Site) -> None:
    there = site.html("/there", "<p>text</p>")
    site.pages["/broken"] = (500, {}, b"")
    site.pages["/closed"] = (403, {}, b"")
    site.pages["/gone"] = (410, {}, b"")
    _, report = read(there, *(site.url + path for path in ("/broken", "/closed", "/gone", "/never")))
    assert [report.was_reached(site.url + path) for path in ("/broken", "/closed", "/gone", "/never")] == [
        False, False, True, True,
    ]  # fmt: skip
    assert reasons(report)["gone"].startswith("gone status 410")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        _, report = read(url)
    assert not report.was_reached(url)


def test_robots_are_asked_once_and_obeyed(site: Site) -> None:
    rules = b"User-agent: windlass\nDisallow: /private\n\nUser-agent: *\nDisallow: /\n"
    site.pages["/robots.txt"] = (200, {"Content-Type": "text/plain"}, rules)
    urls = [site.html(path, f"<p>{path}</p>") for path in ("/a", "/private/b", "/c")]
    found, report = read(*urls)
    assert [one.text for one in found] == ["/a", "/c"] and "/private/b" not in site.paths()
    assert site.paths().count("/robots.txt") == 1
    assert reasons(report)["b"].startswith("robots.txt forbids it")


def test_a_site_whose_rules_fail_is_left_alone_for_now(site: Site) -> None:
    site.pages["/robots.txt"] = (503, {}, b"")
    url = site.html("/a", "<p>a</p>")
    found, report = read(url)
    assert not found and not report.was_reached(url) and "/a" not in site.paths()


def test_pages_of_one_site_are_asked_for_with_a_pause(site: Site) -> None:
    urls = [site.html(path, f"<p>{path}</p>") for path in ("/a", "/b", "/c")]
    started = time.monotonic()
    assert len(read(*urls, pause=0.2)[0]) == 3
    assert time.monotonic() - started >= 0.6


def test_redirects_are_followed_and_end(site: Site) -> None:
    page = site.html("/end", "<p>arrived</p>")
    site.pages["/start"] = (302, {"Location": "/end"}, b"")
    site.pages["/circle"] = (302, {"Location": "/circle"}, b"")
    site.pages["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    found, report = read(*(site.url + path for path in ("/start", "/circle", "/file")))
    assert [(one.id, one.metadata["url"]) for one in found] == [(site.url + "/start", page)]
    assert reasons(report)["circle"].startswith("redirected too often")
    assert reasons(report)["file"].startswith("not a web address")


def test_size_and_time_have_limits(site: Site) -> None:
    site.html("/large", "x" * 50_000)
    bomb = gzip.compress(b"x" * 5_000_000)
    site.pages["/bomb"] = (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, bomb)

    def slow(_: Any) -> Answer:
        time.sleep(3)
        return 200, {"Content-Type": "text/html"}, b"<p>late</p>"

    site.pages["/slow"] = slow
    found, report = read(site.url + "/large", site.url + "/bomb", max_bytes=10_000)
    assert not found and {note.reason for note in report.skipped} == {"too large"} and len(report.skipped) == 2
    url = site.url + "/slow"
    found, report = read(url, seconds=1.0)
    assert not found and not report.was_reached(url) and "within 1 seconds" in reasons(report)["slow"]


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "file:///etc/passwd", "page.html", "http://", "http://a:b@127.0.0.1/"]
)
def test_what_is_no_web_address_is_named(url: str) -> None:
    found, report = read(url)
    assert not found and [note.reason for note in report.skipped] == ["not a web address"], report.skipped


def test_private_addresses_are_refused_unless_allowed(site: Site) -> None:
    url = site.html("/a", "<p>a</p>")
    found, report = read(url, private=False)
    assert not found and not site.asked
    assert report.skipped[0].reason == "address is not public" and "127.0.0.1" in report.skipped[0].detail


def test_a_redirect_into_a_private_network_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first name is taken for a public one, as an attacker's would be; the second is checked all the same."""
    import windlass.core.readers.fetching as module

    site.pages["/start"] = (302, {"Location": f"http://localhost:{site.server.server_port}/inner"}, b"")
    checked: list[str] = []

    def public(address: str) -> bool:
        checked.append(address)
        return len(checked) == 1

    monkeypatch.setattr(module, "is_public", public)
    with pytest.raises(Refused, match="not public"):
        fetch(site.url + "/start", tmp_path / "page", Fetching())
    assert site.paths() == ["/start"]


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers otherwise the second time (DNS rebinding) is not looked up a second time."""
    site.html("/a", "<p>a</p>")
    asked: list[str] = []

    async def looked_up(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    answer = fetch(f"http://name.example:{site.server.server_port}/a", tmp_path / "page", HERE)
    assert answer.status == 200 and [host for host in asked if host == "name.example"] == ["name.example"]
    assert site.asked[0][1]["host"] == f"name.example:{site.server.server_port}"


def certified(folder: Path, name: str) -> Path:
    """A certificate for a name, with its key, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.mark.parametrize(("asked", "right"), [("name.example", True), ("other.example", False)])
def test_a_certificate_must_be_that_of_the_name_although_an_address_is_asked(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, right: bool
) -> None:
    import windlass.core.readers.fetching as module

    certificate = certified(tmp_path, "name.example")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    site.server.socket = server.wrap_socket(site.server.socket, server_side=True)
    site.html("/a", "<p>a</p>")

    async def looked_up(self: Any, host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", looked_up)
    monkeypatch.setattr(module, "_certificates", lambda: ssl.create_default_context(cafile=str(certificate)))
    url = f"https://{asked}:{site.server.server_port}/a"
    if right:
        assert fetch(url, tmp_path / "page", HERE).status == 200
    else:
        with pytest.raises(Unreachable, match="ostname mismatch"):
            fetch(url, tmp_path / "page", HERE)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("192.168.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False),
        ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("fe80::1%eth0", False), ("fc00::1", False),
        ("::ffff:127.0.0.1", False), ("::ffff:8.8.8.8", True), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_it_works_below_a_running_event_loop(site: Site, tmp_path: Path) -> None:
    url = site.html("/a", "<p>a</p>")

    async def inside() -> int:
        return fetch(url, tmp_path / "page", HERE).status

    assert asyncio.run(inside()) == 200


def test_an_answer_that_breaks_off_is_not_taken_for_whole(site: Site, tmp_path: Path) -> None:
    site.pages["/cut"] = (
        200,
        {"Content-Type": "text/html", "Content-Length": "1000", "Connection": "close"},
        b"<p>half",
    )
    with pytest.raises(Unreachable):
        fetch(site.url + "/cut", tmp_path / "page", Fetching(private=True, seconds=3.0))


def test_addresses_come_from_a_file(tmp_path: Path, site: Site) -> None:
    (tmp_path / "list.txt").write_text(f"# ours\n{site.html('/a', '<p>a</p>')}\n\n")
    urls = UrlList.of_file(tmp_path / "list.txt", HERE, pause=0)
    report = ReadReport()
    assert [one.text for one in urls.documents(report)] == ["a"] and urls.name == "a list of 1 web pages"
    (tmp_path / "list.txt").write_text("# none\n")
    with pytest.raises(InputError, match="holds no address"):
        UrlList.of_file(tmp_path / "list.txt")
    with pytest.raises(InputError, match="None of 1 pages"):
        list(UrlList((site.url + "/nothing",), HERE, pause=0).documents(ReadReport()))
