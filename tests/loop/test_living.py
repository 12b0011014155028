"""Living indexes of a workspace: what was said of a folder holds, embedders are told apart, and all by name."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.rag.ingest.access import AccessRules
from windlass.apply.rag.ingest.report import IngestReport
from windlass.apply.rag.retrieving import RetrieveSettings
from windlass.core.config import RetrieveConfig
from windlass.core.errors import ConfigError, InputError, NotFound, WorkspaceBusy
from windlass.core.readers.urls import UrlList
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.assistants.assemble import load_living
from windlass.loop.embedders import embedder_named
from windlass.loop.ingesting import Wishes, chunk_settings, opened_for_ingest
from windlass.loop.living import chosen, delete_living, living, open_embedded, open_living, settings_of


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    for name, text in (
        ("docs/pump.md", "# Pump\n\nThe pump is red."),
        ("docs/hr/pay.md", "# Pay\n\nPay day is Friday."),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with Workspace(tmp_path) as workspace:
        yield workspace


def ingest(ws: Workspace, *paths: str, name: str = "docs", dry: bool = False, **said: Any) -> IngestReport:
    wishes = Wishes([ws.home / path for path in paths], **{"embedder": "hashing"} | said)
    with opened_for_ingest(ws, name, wishes, dry=dry) as into:
        return into.ingest()


def found(ws: Workspace, query: str, *access: str, name: str = "docs") -> set[str]:
    index = open_living(ws, name)
    try:
        return {hit.citation.document for hit in index.search(query, 10, access=access)}
    finally:
        index.close()


def test_the_newest_index_is_asked_unless_another_is_named(ws: Workspace) -> None:
    with pytest.raises(NotFound, match="no living index"):
        chosen(ws)
    ingest(ws, "docs/hr", name="pay")
    ingest(ws, "docs")
    assert living(ws) == ["docs", "pay"] and chosen(ws) == "docs" and chosen(ws, "pay") == "pay"
    ingest(ws, "docs/hr", name="pay")
    assert chosen(ws) == "pay"
    with pytest.raises(NotFound, match="There are: pay, docs"):
        chosen(ws, "other")
    delete_living(ws, "pay")
    assert living(ws) == ["docs"] and not (ws.root / "indexes" / "pay").exists()


def test_access_is_remembered_until_it_is_said_otherwise(ws: Workspace) -> None:
    ingest(ws, "docs", access=AccessRules((("hr/**", ("hr",)),)))
    assert found(ws, "pay") == {"docs/pump.md"} and found(ws, "pay", "hr") == {"docs/pump.md", "docs/hr/pay.md"}
    (ws.home / "docs/hr/bonus.md").write_text("# Bonus\n\nThe pay bonus is small.")
    for paths in ((), ("docs",), ("docs/hr",), ("docs/hr/bonus.md",)):
        report = ingest(ws, *paths)
        assert found(ws, "pay") == {"docs/pump.md"}, paths
        assert report.changed == 0
    assert ingest(ws, "docs", access=["staff"]).changed == 3
    assert found(ws, "pay") == set() and len(found(ws, "pay", "staff")) == 3
    assert ingest(ws, "docs", access=[]).changed == 3 and len(found(ws, "pay")) == 3


def test_roots_do_not_overlap(ws: Workspace) -> None:
    ingest(ws, "docs", labels={"team": "mills"})
    with pytest.raises(InputError, match="docs/hr is a part of docs"):
        ingest(ws, "docs/hr", access=["hr"])
    with pytest.raises(InputError, match="holds docs, which is in the index with labels"):
        ingest(ws, ".")
    ingest(ws, "docs/hr", name="other")
    report = ingest(ws, ".", "docs/hr", name="other")
    settings = settings_of(ws, "other")
    assert settings is not None and list(settings.roots) == ["."] and (report.added, report.unchanged) == (1, 1)


def test_a_mistyped_or_empty_folder_leaves_nothing_behind(ws: Workspace) -> None:
    with pytest.raises(InputError, match="does not exist"):
        ingest(ws, "dosc")
    (ws.home / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to read in empty"):
        ingest(ws, "empty")
    assert living(ws) == []
    ingest(ws, "docs")
    with pytest.raises(InputError, match="nothing to read in empty"):
        ingest(ws, "empty")
    assert ingest(ws).roots == ["docs"]


def test_a_folder_that_is_gone_is_removed_when_that_is_said(ws: Workspace) -> None:
    ingest(ws, "docs/pump.md", "docs/hr")
    (ws.home / "docs/pump.md").unlink()
    with pytest.raises(InputError, match=r"pump\.md does not exist") as refused:
        ingest(ws, "docs/pump.md")
    assert "--allow-empty" in refused.value.hint
    assert ingest(ws, "docs/pump.md", allow_empty=True).removed == 1 and found(ws, "pump") == {"docs/hr/pay.md"}


def test_a_dry_run_makes_nothing(ws: Workspace) -> None:
    assert ingest(ws, "docs", dry=True).added == 2
    assert not (ws.root / "indexes").exists()


def test_one_ingest_at_a_time(ws: Workspace) -> None:
    with (
        opened_for_ingest(ws, "docs", Wishes([ws.home / "docs"], embedder="hashing")),
        pytest.raises(WorkspaceBusy, match="busy with ingesting"),
    ):
        ingest(ws, "docs")


def test_another_embedder_is_noticed_and_its_vectors_are_made_from_what_the_index_holds(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(ws, "docs")
    monkeypatch.setattr("windlass.loop.ingesting.embedder_named", lambda ws, name: HashingEmbedder(64))
    for said in ({}, {"reembed": True, "dry": True}):
        with pytest.raises(InputError, match=r"holds vectors of hashing-256 .*, not of hashing-64") as refused:
            ingest(ws, "docs", **said)
        assert "--reembed" in refused.value.hint
    assert len(found(ws, "pump")) == 2, "the old one answers on"
    report = ingest(ws, "docs", reembed=True)
    assert (report.files_as_before, report.unchanged, report.changed) == (2, 2, 0), "no document is another one by that"
    index = open_living(ws, "docs", HashingEmbedder(64))
    assert len(index) == 2 and index.embedder.dimension == 64
    index.close()
    assert ingest(ws, "docs").files_as_before == 2


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("nothing-of-that-name", InputError, "is no embedder"),
        ("http://127.0.0.1:9/v1", InputError, "names no model"),
        ("anthropic:claude", ConfigError, "known for no embeddings"),
    ],
)
def test_names_of_embedders(ws: Workspace, name: str, error: type[Exception], says: str) -> None:
    assert embedder_named(ws, "hashing").name == "hashing-256"
    assert embedder_named(ws, "http://127.0.0.1:9/v1#some/model").name == "some/model"
    with pytest.raises(error, match=says):
        embedder_named(ws, name)


def test_ways_of_cutting_by_name() -> None:
    assert chunk_settings("structure:target=300,limit=400").target == 300
    for text, says in (("structure:target", "no setting"), ("jigsaw", "jigsaw"), ("structure:sise=3", "sise")):
        with pytest.raises(InputError, match=says):
            chunk_settings(text)


def test_quantised_vectors_are_remembered_and_may_come_and_go(ws: Workspace) -> None:
    folder = ws.root / "indexes" / "docs"
    for said, kind in (({"quantised": "int8"}, "int8"), ({}, "int8"), ({"quantised": "binary"}, "binary")):
        ingest(ws, "docs", **said)
        index = open_living(ws, "docs")
        assert index.meta.quantised == kind and found(ws, "pump") >= {"docs/pump.md"}
        assert [path.suffix for path in sorted(folder.glob("vectors-*"))] == sorted([".f32", f".{kind}"])
        index.close()
    ingest(ws, "docs", quantised="", dry=True)
    assert list(folder.glob("*.binary"))
    open_embedded(ws, "docs").make_cells(least=1)
    with opened_for_ingest(ws, "docs", Wishes([ws.home / "docs"], quantised="")) as into:
        assert into.said == ["cells of docs went with the vectors as they were: windlass index ann docs"]
    assert not list(folder.glob("cells-*.ivf"))
    assert found(ws, "pump") >= {"docs/pump.md"} and settings_of(ws, "docs").quantised == ""  # type: ignore[union-attr]
    with pytest.raises(InputError, match="not quantised by windlass"):
        ingest(ws, "docs", name="far", where="postgres://nobody@127.0.0.1:1/x", quantised="int8")


def test_an_index_may_lie_in_another_folder(ws: Workspace) -> None:
    elsewhere = ws.home / "elsewhere"
    ingest(ws, "docs", where=str(elsewhere))
    assert found(ws, "pump") == {"docs/pump.md", "docs/hr/pay.md"} and any(elsewhere.iterdir())
    assert ingest(ws).files_as_before == 2
    with pytest.raises(InputError, match="The index lies at"):
        ingest(ws, "docs", where=str(ws.home / "third"))
    delete_living(ws, "docs")
    assert any(elsewhere.iterdir()), "what lies elsewhere is only forgotten"


class Site(ThreadingHTTPServer):
    """Pages with entity tags; remembers what it sent."""

    def __init__(self) -> None:
        self.pages = {"/pump": "The red pump.", "/pay": "Pay day is Friday."}
        self.sent: list[str] = []
        super().__init__(("127.0.0.1", 0), Page)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        text = self.server.pages.get(self.path)
        tag = f'"{text}"'
        status = 404 if text is None else 304 if self.headers.get("if-none-match") == tag else 200
        body = f"<title>Page</title><p>{text}</p>".encode() if status == 200 else b""
        if status == 200:
            self.server.sent.append(self.path)
        self.send_response(status)
        for key, value in (("content-type", "text/html"), ("etag", tag), ("content-length", str(len(body)))):
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_lists_of_addresses_are_roots_of_their_own(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    of_file = UrlList.of_file
    monkeypatch.setattr(UrlList, "of_file", lambda path, fetching: of_file(path, fetching, pause=0.0))
    site = Site()
    try:
        mine, other = ws.home / "mine.txt", ws.home / "other.txt"
        mine.write_text(f"{site.url}/pump\n{site.url}/pay\n")
        other.write_text(f"{site.url}/pump\n")
        with pytest.raises(InputError, match="nothing to read in urls:mine"):
            ingest(ws, urls=[mine])
        report = ingest(ws, urls=[mine], private=True, access=AccessRules((("*/pay", ("hr",)),)))
        assert report.added == 2 and found(ws, "pay day", "hr") >= {f"urls:mine.txt#{site.url}/pay"}
        assert found(ws, "pay day") == {f"urls:mine.txt#{site.url}/pump"}
        ingest(ws, "docs")
        assert ingest(ws, urls=[other], private=True).removed == 0
        site.sent.clear()
        report = ingest(ws)
        assert site.sent == [] and report.files_as_before == 5, "a page that did not change is not sent again"
        site.pages["/pump"] = "The blue pump."
        mine.write_text(f"{site.url}/pump\n")
        report = ingest(ws, urls=[mine])
        assert (report.changed, report.removed) == (1, 1)
        index = open_living(ws)
        hit = index.search("blue pump", 1)[0].citation
        assert (hit.source, hit.quote) == (f"{site.url}/pump", "The blue pump.")
        index.close()
    finally:
        site.shutdown()
        site.server_close()


def test_private_channels_of_a_slack_export_stay_private(ws: Workspace) -> None:
    export = ws.home / "export"
    for channel in ("general", "board"):
        (export / channel).mkdir(parents=True)
        message = {"type": "message", "user": "U1", "ts": "1704067200.000100", "text": f"The pump of {channel} hums."}
        (export / channel / "2024-01-01.json").write_text(json.dumps([message]))
    (export / "users.json").write_text(json.dumps([{"id": "U1", "name": "ann"}]))
    (export / "channels.json").write_text(json.dumps([{"id": "C1", "name": "general"}]))
    (export / "groups.json").write_text(json.dumps([{"id": "G1", "name": "board"}]))
    report = ingest(ws, "export", access=["staff"])
    assert report.labels == {"staff": 1, "slack:board": 1} and report.reading.parts["messages"] == 2
    assert found(ws, "pump") == set()
    (general,), (board,) = found(ws, "pump", "staff"), found(ws, "pump", "slack:board")
    assert general.startswith("export/") and "general" in general and "board" in board
    assert ingest(ws).files_as_before == 2


def test_windlass_toml_says_how_living_indexes_are_searched(ws: Workspace) -> None:
    ingest(ws, "docs")
    assert load_living(ws).settings.retrieve == RetrieveSettings()
    assert asdict(RetrieveConfig()).items() <= asdict(RetrieveSettings()).items()
    (ws.home / "windlass.toml").write_text("[retrieve]\nfeedback = 2\n")
    with Workspace(ws.home) as again:
        assistant = load_living(again)
        assert assistant.settings.retrieve == RetrieveSettings(feedback=2)
        answer = assistant.complete(ChatRequest([Message("user", "The pump is red.")]))
        again.recorder.flush()
        assert answer.trace_id is not None
        assert "feedback" in {span.name for span in again.store.trace(answer.trace_id)}
    for text, says in (("feedbak = 2", "Did you mean 'retrieve.feedback'"), ("feedback = -1", "must be 0 or more")):
        (ws.home / "windlass.toml").write_text(f"[retrieve]\n{text}\n")
        with pytest.raises((ConfigError, InputError), match=says), Workspace(ws.home) as wrong:
            load_living(wrong)
