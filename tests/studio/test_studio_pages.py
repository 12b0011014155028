"""The studio's pages over HTTP: they render, escape, stay small, and let nothing foreign in."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlencode

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from studio_seed import HOSTILE, Seeded, Site, seed

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.core import sqlite
from windlass.core.documents import Document, write_documents
from windlass.core.errors import ProviderError
from windlass.core.protocols import ChatModel
from windlass.core.records import SpanRecord
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace
from windlass.loop.ingesting import Wishes, opened_for_ingest
from windlass.loop.living import LivingSettings, open_living, write_settings
from windlass.studio.app import routes

PAGES: dict[str, Callable[[Seeded], str]] = {
    "overview": lambda s: "/",
    "ask": lambda s: "/ask",
    "traces": lambda s: "/traces",
    "traces, filtered": lambda s: "/traces?rating=bad&status=ok&since=day&name=assistant",
    "trace": lambda s: f"/traces/{s.traces[0]}",
    "broken trace": lambda s: f"/traces/{s.broken}",
    "hostile trace": lambda s: f"/traces/{s.hostile}",
    "runs": lambda s: "/runs",
    "comparison of runs": lambda s: f"/runs/compare?run={s.run}&run={s.running}",
    "run": lambda s: f"/runs/{s.run}",
    "running run": lambda s: f"/runs/{s.running}",
    "experiments": lambda s: "/experiments",
    "experiment": lambda s: f"/experiments/{s.experiment.ref}",
    "refused experiment": lambda s: f"/experiments/{s.refused.digest}",
    "releases": lambda s: "/releases",
    "prompts": lambda s: "/prompts",
    "prompt": lambda s: "/prompts/tone@2",
    "prompt by its label": lambda s: "/prompts/tone:live",
    "prompt with examples, compared": lambda s: "/prompts/tone@3?with=tone@1",
    "prompt that is not used": lambda s: "/prompts/tone@3",
    "hostile prompt": lambda s: "/prompts/breaking",
    "editing a prompt": lambda s: "/prompts/tone@3/edit",
    "editing a hostile prompt": lambda s: "/prompts/breaking/edit",
    "trying a prompt": lambda s: "/prompts/tone@2/try",
    "trying a hostile prompt": lambda s: "/prompts/breaking/try",
    "trying a prompt on a row": lambda s: "/prompts/tone@2/try?dataset=reviews@1&row=2",
    "search for a prompt": lambda s: "/experiments/parity-prompt-search",
    "artifacts": lambda s: "/artifacts",
    "artifacts of a kind": lambda s: "/artifacts?kind=variant",
    "artifact": lambda s: "/artifacts/python-3m",
    "documents": lambda s: f"/artifacts/{s.corpus.digest}/documents",
    "document": lambda s: f"/artifacts/{s.corpus.digest}/document?id=python:lists&start=20&end=60",
    "hostile document": lambda s: f"/artifacts/corpus/document?{urlencode({'id': 'x/' + HOSTILE})}",
    "queues": lambda s: "/review",
    "queue": lambda s: "/review/checked@1",
    "blind queue": lambda s: "/review/blind@1",
    "queue that nobody touched": lambda s: "/review/untouched@1",
    "labelling": lambda s: "/review/checked@1/label?by=Cy",
    "labelling again": lambda s: "/review/checked@1/label?by=Ann+Lee&item=c4",
    "labelling pairs": lambda s: "/review/blind@1/label?by=Ann+Lee",
    "labelled all": lambda s: "/review/checked@1/label?by=Ann+Lee",
    "disagreements": lambda s: "/review/checked@1/different",
    "lineage of an answer": lambda s: f"/lineage/{s.traces[0]}",
    "lineage of a hostile answer": lambda s: f"/lineage/{s.hostile}",
    "lineage of an artifact": lambda s: f"/lineage/{s.candidate.ref}",
}


class Page(HTMLParser):
    """What a browser would make of a page: tags with attributes, and the text between them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(client: TestClient, address: str, status: int = 200) -> Page:
    response = client.get(address)
    assert response.status_code == status, f"{address}: {response.status_code} {response.text[:300]}"
    return Page(response.text)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_renders_under_a_strict_policy(site: Site, name: str) -> None:
    address = PAGES[name](site.seeded)
    response = site.client.get(address)
    assert response.status_code == 200, response.text[:300]
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    found = Page(response.text)
    for tag, attributes in found.tags:
        assert "style" not in attributes, f"<{tag}> carries a style, which the policy forbids"
        assert not [key for key in attributes if key.startswith("on")], f"<{tag}> carries a handler"
        for key in ("src", "href", "action"):
            value = attributes.get(key) or ""
            assert not re.match(r"(?i)(https?:)?//|javascript:|data:", value), f"<{tag} {key}={value}>"
    assert all(script.get("src") for script in found.all("script")), "inline script"
    assert "style" not in [tag for tag, _ in found.tags]
    assert len(found.all("h1")) == 1
    assert len(found.all("main")) == 1


@pytest.mark.parametrize("name", PAGES)
def test_every_form_field_and_image_has_a_name(site: Site, name: str) -> None:
    found = page(site.client, PAGES[name](site.seeded))
    labelled = {label.get("for") for label in found.all("label")}
    source = site.client.get(PAGES[name](site.seeded)).text
    wrapped = set(re.findall(r'name="([^"]+)"', " ".join(re.findall(r"<label[^>]*>.*?</label>", source, re.DOTALL))))
    for tag in ("input", "select", "textarea"):
        for field in found.all(tag):
            assert field.get("type") == "hidden" or field.get("id") in labelled or field["name"] in wrapped, field
    assert all("alt" in image for image in found.all("img"))


@pytest.mark.parametrize("name", PAGES)
def test_links_of_every_page_lead_somewhere(site: Site, name: str) -> None:
    address = PAGES[name](site.seeded)
    links = {a.get("href") or "" for a in page(site.client, address).all("a")}
    inside = sorted({link.split("#")[0] for link in links if link.startswith("/")})
    assert inside
    for link in inside[:40]:
        assert site.client.get(link).status_code == 200, f"{link} on {address}"


@pytest.mark.parametrize("name", PAGES)
def test_no_page_weighs_more_than_150_kilobytes(site: Site, name: str) -> None:
    response = site.client.get(PAGES[name](site.seeded))
    found = Page(response.text)
    assets = [s["src"] for s in found.all("script")] + [s["href"] for s in found.all("link")]
    assert assets
    weight = len(response.content)
    for asset in assets:
        got = site.client.get(str(asset))
        assert got.status_code == 200
        assert "immutable" in got.headers["cache-control"]
        weight += len(got.content)
    assert weight < 150_000, f"{weight:,} bytes"


def test_hostile_text_stays_text(site: Site) -> None:
    for name in (
        "traces",
        "overview",
        "hostile trace",
        "hostile document",
        "documents",
        "artifact",
        "queue",
        "labelling",
    ):
        address = PAGES[name](site.seeded)
        source = site.client.get(address).text
        assert "<script>document" not in source, name
        assert "<img src=x" not in source, name
        assert "{{ 7*7 }}" in source, name
        assert "49&#39;" not in source, name
    shown = page(site.client, f"/traces/{site.seeded.hostile}")
    assert shown.text.count(HOSTILE) >= 5
    assert not [s for s in shown.all("img") if s.get("src") == "x"]


@pytest.mark.parametrize(
    "address", ["/", "/ask", "/traces", "/runs", "/experiments", "/releases", "/artifacts", "/prompts", "/review"]
)
def test_an_empty_workspace_says_what_to_type(empty: TestClient, address: str) -> None:
    found = page(empty, address)
    assert (
        "windlass demo" in found.text
        or "windlass turn" in found.text
        or "windlass serve" in found.text
        or "windlass prompt" in found.text
        or "windlass review" in found.text
    )


def test_what_is_not_there_is_said_plainly(site: Site) -> None:
    for address in (
        "/traces/deadbeefdeadbeef", "/traces/not-an-id", "/runs/none", "/artifacts/none", "/experiments/none",
        "/experiments/corpus", "/lineage/none", "/artifacts/corpus/document?id=none", "/artifacts/corpus/files/none",
        "/artifacts/corpus/files/../../windlass.db", "/artifacts/corpus/files/%2e%2e/%2e%2e/windlass.db",
    ):  # fmt: skip
        response = site.client.get(address)
        assert response.status_code == 404, address
    assert "There is no trace" in page(site.client, "/traces/deadbeefdeadbeef", 404).text


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page=-1", "page=9999999999999999", "page=²"]
)  # the last is a digit to Python, but no whole number
def test_addresses_out_of_range_are_refused(site: Site, query: str) -> None:
    assert "must be a whole number" in page(site.client, f"/traces?{query}", 400).text


def test_a_page_beyond_the_last_is_empty_not_wrong(site: Site) -> None:
    assert "No trace fits" in page(site.client, "/traces?page=900").text


# asking -----------------------------------------------------------------------------------------------------------


def post(client: TestClient, address: str, accept: str = "text/html", **fields: str):  # type: ignore[no-untyped-def]
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": accept}
    return client.post(address, data=fields, headers=headers)


def test_an_answer_quotes_and_links_the_very_characters(site: Site) -> None:
    response = post(site.client, "/ask", question="How do I get a sorted copy of a list?")
    assert response.status_code == 200
    found = Page(response.text)
    sources = [a["href"] for a in found.all("a") if a.get("class") == "source"]
    assert sources
    quote = "To get a sorted copy and keep the list as it was, call the built-in sorted() instead."
    assert quote in found.text
    document = site.client.get(str(sources[0]).split("#")[0]).text
    assert re.search(r'<mark id="quote">(.*?)</mark>', document, re.DOTALL).group(1) == quote  # type: ignore[union-attr]
    assert site.seeded.candidate.ref in found.text


def test_a_streamed_answer_comes_in_pieces_and_ends_with_its_markup(site: Site) -> None:
    response = post(site.client, "/ask", "application/x-ndjson", question="How do I get a sorted copy of a list?")
    assert response.headers["content-type"].startswith("application/x-ndjson")
    items = [json.loads(line) for line in response.text.splitlines()]
    text = "".join(item.get("text", "") for item in items)
    assert "sorted()" in text
    assert len([item for item in items if "text" in item]) > 3
    assert items[-1]["end"] is True
    assert '<ol class="quotes"' in items[-1]["html"]
    assert len([item for item in items if "html" in item]) == 1


def test_an_abstention_is_said_plainly(site: Site) -> None:
    response = post(site.client, "/ask", question="Zzyzx?")
    assert "No answer." in Page(response.text).text
    assert "abstained" in response.text


def test_a_question_must_be_one(site: Site) -> None:
    assert post(site.client, "/ask", question="  ").status_code == 400
    assert post(site.client, "/ask", question="x" * 8001).status_code == 400
    assert post(site.client, "/ask", question="x", model="none").status_code == 400
    assert post(site.client, "/ask", question="x" * 70_000).status_code == 413


class Failing:
    """A model whose endpoint is down; `late` lets the first words through."""

    name = "remote"
    digest = None

    def __init__(self, *, late: bool = False, fault: Exception | None = None) -> None:
        self._late = late
        self._fault = fault or ProviderError(f"The endpoint answered 503 {HOSTILE}.", "Start it.", status=503)

    def complete(self, request: ChatRequest) -> ChatResponse:
        raise self._fault

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        if self._late:
            yield ChatDelta("Some words ")
        raise self._fault


@pytest.mark.parametrize("late", [False, True])
def test_a_failing_model_is_reported_where_the_answer_would_stand(tmp_path: Path, late: bool) -> None:
    with Workspace(tmp_path) as ws:
        client = TestClient(Starlette(routes=routes(ws, {"remote": Failing(late=late)})), base_url="http://localhost")
        items = [
            json.loads(line) for line in post(client, "/ask", "application/x-ndjson", question="Why?").text.splitlines()
        ]
        assert items[-1]["error"].startswith("The endpoint answered 503")
        assert [item for item in items if "text" in item] == ([{"text": "Some words "}] if late else [])
        plain = post(client, "/ask", question="Why?")
        assert plain.status_code == 500
        assert "The endpoint answered 503" in plain.text
        assert "<script>document" not in plain.text


def test_a_model_without_citations_just_answers(tmp_path: Path) -> None:
    class Talking(Failing):
        def complete(self, request: ChatRequest) -> ChatResponse:
            return ChatResponse("chatcmpl-1", "remote", Message("assistant", "<b>See</b> [1] and [2]."), "length")

    with Workspace(tmp_path) as ws:
        client = TestClient(Starlette(routes=routes(ws, {"remote": Talking()})), base_url="http://localhost")
        response = post(client, "/ask", question="Why?")
        assert "&lt;b&gt;See&lt;/b&gt; [1] and [2]." in response.text
        assert 'class="ref"' not in response.text
        assert "cut at the token limit" in response.text
        assert "cost –" in Page(response.text).text


def test_a_trace_is_shown_whole_although_only_its_first_part_is_stored_yet(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        ws.recorder = Recorder(ws.store, interval=60)
        with ws.recorder.span("assistant") as root:
            with ws.recorder.span("embed"):
                pass
            ws.recorder.flush()
        assert [span.name for span in ws.store.trace(root.trace_id)] == ["embed"]
        client = TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost")
        assert "assistant" in Page(client.get(f"/traces/{root.trace_id}").text).text


# feedback ---------------------------------------------------------------------------------------------------------


def test_feedback_becomes_a_score_of_the_trace(site: Site) -> None:
    trace = site.seeded.traces[7]
    before = len(site.ws.store.scores(trace))
    response = post(site.client, "/feedback", subject=trace, value="0", comment=HOSTILE, correct_document="python:with")
    assert (response.status_code, response.headers["location"]) == (303, f"/traces/{trace}#scores")
    score = site.ws.store.scores(trace)[-1]
    assert len(site.ws.store.scores(trace)) == before + 1
    assert (score.name, score.value, score.source, score.comment) == ("feedback", 0.0, "user", HOSTILE)
    assert score.metadata == {"correct_document": "python:with"}
    wrong = post(site.client, "/feedback", "application/json", subject=trace, value="1", correct_document="python:with")
    assert (wrong.status_code, wrong.json()["error"]) == (400, "A good answer needs no other document.")
    again = post(site.client, "/feedback", "application/json", subject=trace, value="1")
    assert again.json()["value"] == 1.0
    assert site.ws.store.scores(trace)[-1].value == 1.0
    shown = site.client.get(f"/traces/{trace}").text
    assert "<script>document" not in shown
    assert trace in [t.root.trace_id for t in site.ws.store.traces(score=("feedback", 1.0, 1.0), limit=1000)]


@pytest.mark.parametrize("value", ["", "2", "-1", "nan", "0.5"])
def test_feedback_is_good_or_bad_and_nothing_else(site: Site, value: str) -> None:
    before = len(site.ws.store.scores())
    response = post(site.client, "/feedback", "application/json", subject=site.seeded.traces[0], value=value)
    assert response.status_code == 400
    assert "1 (good) or 0 (bad)" in response.json()["error"]
    assert len(site.ws.store.scores()) == before


def test_feedback_needs_a_trace_that_exists(site: Site) -> None:
    for subject in ("", "f" * 32, "../x"):
        assert post(site.client, "/feedback", subject=subject, value="1").status_code == 404


# the door ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 303),
        ({"Sec-Fetch-Site": "none"}, 303),
        ({"Origin": "http://localhost"}, 303),
        ({}, 303),  # no browser: curl carries no one's session
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:99"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_only_the_studios_own_forms_change_anything(site: Site, headers: dict[str, str], status: int) -> None:
    before = len(site.ws.store.scores())
    fields = {"subject": site.seeded.traces[3], "value": "1"}
    assert site.client.post("/feedback", data=fields, headers=headers).status_code == status
    assert len(site.ws.store.scores()) == before + (status == 303)


def test_a_full_house_says_so_and_frees_its_places(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        asked, go = threading.Semaphore(0), threading.Event()

        class Slow(Failing):
            def complete(self, request: ChatRequest) -> ChatResponse:
                asked.release()
                assert go.wait(20)
                return ChatResponse("chatcmpl-1", "remote", Message("assistant", "Done."), "stop")

        client = TestClient(Starlette(routes=routes(ws, {"remote": Slow()})), base_url="http://localhost")
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(post, client, "/ask", question="Why?") for _ in range(8)]
            for _ in range(8):
                assert asked.acquire(timeout=20)
            assert post(client, "/ask", question="Why?").status_code == 429
            go.set()
            assert [w.result().status_code for w in waiting] == [200] * 8
        assert post(client, "/ask", question="Why?").status_code == 200


def test_a_browser_that_is_lost_gets_a_page_and_a_program_the_servers_answer(site: Site) -> None:
    lost = site.client.get("/nowhere/<b>", headers={"Accept": "text/html,*/*"})
    assert lost.status_code == 404 and "There is no page /nowhere/&lt;b&gt;." in lost.text and 'href="/"' in lost.text
    for path, accept in (("/nowhere", "*/*"), ("/v1/nowhere", "text/html")):
        answer = site.client.get(path, headers={"Accept": accept})
        assert answer.status_code == 404 and "There is no page" not in answer.text


def test_what_a_living_index_quoted_is_shown_in_its_text(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = "# Pump\n\nThe red pump moves nine litres of water in a minute.\n"
    (tmp_path / "docs" / "red pump.md").write_text(text)
    with Workspace(tmp_path) as ws:
        with ws.artifacts.build("corpus", "other") as draft:  # a newer corpus that has nothing to do with it
            write_documents(draft.path / "documents.jsonl", [Document("x", "x.md", "X", "Nothing.", "markdown")])
        with opened_for_ingest(ws, "manual", Wishes([tmp_path / "docs"], embedder="hashing")) as into:
            into.ingest()
        index = open_living(ws, "manual")
        model = Assistant(index, AssistantSettings(abstention=AbstentionRule(threshold=0.0)), ws.recorder)
        client = TestClient(Starlette(routes=routes(ws, {"assistant": model})), base_url="http://127.0.0.1")
        answer = post(client, "/ask", question="How much water does the red pump move?")
        ws.recorder.flush()
        trace = ws.store.traces(limit=1)[0].root.trace_id
        for shown in (answer.text, client.get(f"/traces/{trace}").text, client.get(f"/lineage/{trace}").text):
            (link,) = set(re.findall(r'href="(/indexes/manual/document[^"]*)"', shown))
        source = client.get(unescape(link))
        marked = "".join(re.findall(r"<mark[^>]*>(.*?)</mark>", source.text, re.DOTALL))
        assert source.status_code == 200 and "nine litres of water" in marked and "manual, living" in source.text
        assert '<div class="reader">' in source.text, "the class by which lines stay lines"
        for gone in ("/indexes/manual/document?id=gone", "/indexes/nothing/document?id=gone"):
            assert client.get(gone).status_code == 404
        (tmp_path / "docs" / "red pump.md").write_text("# Pump\n\nGone.\n")
        with opened_for_ingest(ws, "manual", Wishes([tmp_path / "docs"])) as into:
            into.ingest()
        index.close()
        assert client.get(unescape(link)).status_code == 400  # shorter than what was quoted


def test_the_overview_counts_living_indexes(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pump.md").write_text("# Pump\n\nIt moves nine litres.\n")
    with Workspace(tmp_path) as ws:
        with opened_for_ingest(ws, "manual", Wishes([tmp_path / "docs"], embedder="hashing")) as into:
            into.ingest()
        write_settings(ws, "broken", LivingSettings(where="gone", digest="0" * 64))
        app = Starlette(routes=routes(ws, {"assistant": cast(ChatModel, object())}))
        page = TestClient(app, base_url="http://127.0.0.1").get("/")
        text = re.sub(r"<[^>]+>|\s+", " ", page.text)
    assert page.status_code == 200
    assert re.search(r"manual +1 +1 +[\d.]+ [kK]B +docs +", text), text
    assert "There is no index at" in text and "answers from the living index" in text


def test_the_routes_leave_the_api_alone(site: Site) -> None:
    for address in ("/v1/models", "/health", "/metrics"):
        assert site.client.get(address).status_code == 404


# documents and files ----------------------------------------------------------------------------------------------


def test_a_long_document_is_cut_around_the_quotation_and_says_so(site: Site) -> None:
    text = site.client.get("/artifacts/corpus/document?id=guide/long.md&start=120000&end=120040").text
    assert len(text) < 80_000
    mark = re.search(r'<mark id="quote">(.*?)</mark>', text, re.DOTALL)
    assert mark is not None
    assert len(mark.group(1)) == 40
    assert "Earlier text" in text
    assert "Later text" in text
    seen, address = set(), "/artifacts/corpus/document?id=guide/long.md"
    while address not in seen:  # the links lead through the whole text
        seen.add(address)
        found = site.client.get(address).text
        later = re.search(r'href="([^"]*at=[^"]*)">↓ Later text', found)
        if later is None:
            break
        address = "/artifacts/corpus/document" + unquote(later.group(1)).replace("&amp;", "&")
    assert "Line 3999" in found
    assert 2 <= len(seen) < 20


@pytest.mark.parametrize(("start", "end"), [(5, 4), (0, 10**9), (10**9, 10**9)])
def test_a_span_outside_the_text_is_refused(site: Site, start: int, end: int) -> None:
    page(site.client, f"/artifacts/corpus/document?id=python:lists&start={start}&end={end}", 400)


def test_documents_are_found_by_title_or_source(site: Site) -> None:
    found = page(site.client, "/artifacts/corpus/documents?q=WITH+statement")
    assert "The with statement" in found.text
    assert "python:lists" not in found.text
    assert "No document fits" in page(site.client, "/artifacts/corpus/documents?q=qqqq").text


def test_files_are_never_served_as_pages(site: Site) -> None:
    for name in ("README.md", "config.json"):
        response = site.client.get(f"/artifacts/python-3m/files/{name}")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
    with site.ws.artifacts.build("report", "page") as draft:
        (draft.path / "index.html").write_text(HOSTILE)
    response = site.client.get("/artifacts/page/files/index.html")
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")


# runs and experiments ---------------------------------------------------------------------------------------------


def test_curves_carry_every_metric_and_the_baselines(site: Site) -> None:
    found = site.client.get(f"/runs/{site.seeded.run}/metrics.json").json()
    assert found["status"] == "done"
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert set(curves) == {"train_loss", "heldout_bits_per_byte", "lr", "tokens_per_s"}
    assert curves["heldout_bits_per_byte"]["lines"] == {"5-gram": 1.88, "xz -9": 1.95, "gzip -9": 2.16}
    assert curves["train_loss"]["lines"] == {}
    assert curves["train_loss"]["steps"][:3] == [0, 2, 4]
    assert len(curves["train_loss"]["values"]) == 300
    (over,) = curves["train_loss"]["others"]
    assert over["name"] == "heldout_loss"
    assert [i for i, value in enumerate(over["values"]) if value is not None] == list(range(0, 300, 10))
    assert found["curves"][0]["name"] == "heldout_bits_per_byte"


def test_a_comparison_shows_differences_ends_and_the_cost_of_an_equal_loss(site: Site) -> None:
    address = f"/runs/compare?run={site.seeded.run}&run={site.seeded.running}"
    text = page(site.client, address).text
    for part in ("optimizer.", "muon", "adamw", "To a training loss of", "Training time", "Last values"):
        assert part in text
    assert "sequence" not in text
    found = site.client.get(address.replace("compare?", "compare/metrics.json?")).json()
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert list(curves)[:2] == ["train_loss", "heldout_loss"]
    assert curves["train_loss"]["label"] == "python-3m"
    assert [other["name"] for other in curves["train_loss"]["others"]] == ["python-5m"]
    assert found["status"] == "running"


@pytest.mark.parametrize("query", ["", "run=pretrain-1", "run=pretrain-1&run=pretrain-1", "run=pretrain-1&run=x"])
def test_a_comparison_needs_two_runs_that_exist(site: Site, query: str) -> None:
    assert site.client.get(f"/runs/compare?{query}").status_code in (400, 404)


def test_an_experiment_shows_verdict_reason_and_intervals(site: Site) -> None:
    go = page(site.client, f"/experiments/{site.seeded.experiment.ref}").text
    assert "GO" in go
    assert "so the candidate is better" in go
    assert "Ndcg@10" not in go, "a metric is called as everywhere else"
    assert "Largest gains" in go and "Regressions" in go
    no_go = page(site.client, f"/experiments/{site.seeded.refused.ref}").text
    assert "NO-GO" in no_go
    assert "so the candidate is not better" in no_go


def test_a_damaged_experiment_is_named_and_hides_no_other(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        seeded, models = seed(ws, traces=2)
        with ws.artifacts.build("experiment", "damaged") as draft:
            (draft.path / "experiment.json").write_text('{"verdict": 1}')
        client = TestClient(Starlette(routes=routes(ws, models)), base_url="http://localhost")
        assert "damaged@1 cannot be read" in page(client, "/experiments/damaged", 500).text
        listed = page(client, "/experiments").text
        assert "damaged@1 cannot be read" in listed
        assert seeded.experiment.ref in listed


# speed, counted rather than timed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/", "/traces", "/traces?page=3", "/traces?rating=good", "/traces?status=error"])
def test_ten_thousand_traces_cost_no_more_queries_than_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    counted: list[str] = []
    read = sqlite.Database.read

    def counting(self: sqlite.Database, sql: str, parameters: object = ()) -> object:
        counted.append(sql)
        return read(self, sql, parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite.Database, "read", counting)
    with Workspace(tmp_path) as ws:
        client = TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost")

        def add(numbers: range) -> None:
            ws.store.add_spans(
                SpanRecord(
                    f"{n:032x}", f"{n:016x}", None, "assistant", "chat", n * 10**6, n * 10**6 + 5, "ok", None, {}
                )
                for n in numbers
            )

        add(range(10))
        page(client, address)
        few = len(counted)
        add(range(10, 10_000))
        counted.clear()
        page(client, address)
        assert 0 < len(counted) <= few + 1 <= 12
