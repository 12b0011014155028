"""Review in the studio, over HTTP and in a browser: label, skip, undo, blind pairs, two people at once."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

from starlette.applications import Starlette
from starlette.testclient import TestClient
from studio_seed import HOSTILE, Live

from windlass.core.workspace import Workspace
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.review.queue import Queue
from windlass.loop import reviewing
from windlass.loop.reviewing import open_queue
from windlass.studio.app import routes

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
GOOD = Criterion("good", "Is it good?", (Level("no", 0.0, "It is not."), Level("yes", 1.0)))
KIND = Criterion("kind", "Is it kind?", (Level("rude", 0.0), Level("kind", 1.0)))
RUBRIC = Judge("answers", "Look well.", criteria=(GOOD,))
BOTH = Judge("both", "Look well, twice.", criteria=(GOOD, KIND))
PAIR = Judge("ab", "Look well.", "pairwise")


def queue(rubric: Judge, count: int = 3, awkward: str = "", **more: object) -> Queue:
    items = [Item(f"i{n}", {name: f"{name} of {n}{awkward}" for name in rubric.fields}) for n in range(count)]
    return Queue(rubric, items, **more)  # type: ignore[arg-type]


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made:
        yield made


@pytest.fixture
def client(ws: Workspace) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(ws, {})), base_url="http://localhost", follow_redirects=False) as client:
        yield client


def fields(page: str) -> dict[str, str]:
    """The hidden fields of the form that labels."""
    found = re.findall(r'<input type="hidden" name="(by|item|token)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


def send(client: TestClient, queue: str, author: str, **form: str) -> tuple[int, str]:
    """Opens the next item and answers its form; the status, and where it leads or what it says."""
    page = client.get(f"/review/{queue}/label", params={"by": author})
    assert page.status_code == 200
    done = client.post(f"/review/{queue}/label", data={**fields(page.text), **form})
    return done.status_code, done.headers.get("location", done.text)


def test_no_queue_says_how_to_make_one(client: TestClient) -> None:
    assert "windlass review new" in client.get("/review").text
    assert client.get("/review/nothing").status_code == 404


def test_from_the_list_to_the_last_item(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC))
    assert "answers@1" in client.get("/review").text and "Nobody has labelled" in client.get("/review/answers@1").text
    for left in (2, 1, 0):
        assert send(client, "answers@1", "Ann Lee", do="label", **{"level.good": "yes"}) == (
            303,
            "/review/answers@1/label?by=Ann+Lee",
        )
        assert f"{left} left" in client.get("/review/answers@1/label", params={"by": "Ann Lee"}).text
    assert "Nothing is left for you" in client.get("/review/answers@1/label?by=Ann+Lee").text
    page = client.get("/review/answers@1").text
    assert "Ann Lee" in page and "done" in page and "Is it good?" in page and "1.000" in page
    assert {label.author for label in open_queue(ws, "answers").labels.labels()} == {"Ann Lee"}


def test_skip_and_undo(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC))
    first = fields(client.get("/review/answers@1/label?by=ann").text)["item"]
    send(client, "answers@1", "ann", do="skip", comment="cannot tell")
    assert fields(client.get("/review/answers@1/label?by=ann").text)["item"] != first
    status, place = send(client, "answers@1", "ann", do="undo")
    assert status == 303 and place.endswith(f"item={first}")
    said = open_queue(ws, "answers")
    assert said.labels.state(said.queue.item(first), "ann") == "open"
    send(client, "answers@1", "ann", do="label", **{"level.good": "no"})
    again = client.get(f"/review/answers@1/label?by=ann&item={first}").text
    assert "labelled this item before" in again and re.search(r'value="no" checked', again)


def test_a_form_that_is_sent_twice_and_a_level_that_is_missing(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(BOTH))
    form = {**fields(client.get("/review/both@1/label?by=ann").text), "do": "label", "comment": "so\r\nso"}
    missing = client.post("/review/both@1/label", data={**form, "level.kind": "rude"})
    assert missing.status_code == 400 and "No level of &#39;good&#39;" in missing.text
    assert re.search(r'value="rude" checked', missing.text) and "so\nso</textarea>" in missing.text
    wrong = client.post("/review/both@1/label", data={**form, "level.good": "<b>", "level.kind": "rude"})
    assert wrong.status_code == 400 and "&lt;b&gt;" in wrong.text
    whole = {**form, "level.good": "yes", "level.kind": "rude"}
    for _ in range(2):
        assert client.post("/review/both@1/label", data=whole).status_code == 303
    assert len(open_queue(ws, "both").labels.labels()) == 2
    assert len(ws.store.scores(name="both.good")) == 1, "the second time it was stored already"


@pytest.mark.parametrize(
    ("change", "status"),
    [({"by": ""}, 400), ({"token": "x"}, 400), ({"item": "zz"}, 400), ({"comment": "x" * 5000}, 400)],
)
def test_forms_that_are_wrong_store_nothing(
    client: TestClient, ws: Workspace, change: dict[str, str], status: int
) -> None:
    reviewing.add_queue(ws, queue(RUBRIC))
    form = fields(client.get("/review/answers@1/label?by=ann").text)
    done = client.post("/review/answers@1/label", data={**form, "do": "label", "level.good": "yes", **change})
    assert done.status_code == status and ws.store.scores(name="answers") == []


def test_labels_are_taken_from_the_studios_own_pages_only(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC))
    form = {**fields(client.get("/review/answers@1/label?by=ann").text), "do": "label", "level.good": "yes"}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert client.post("/review/answers@1/label", data=form, headers=headers).status_code == 403
    assert ws.store.scores(name="answers") == []


def test_what_models_and_people_write_is_text_on_every_page(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(PAIR, awkward=HOSTILE, source=HOSTILE))
    one = open_queue(ws, "ab")
    for author, value in ((HOSTILE[:50], 1.0), ("bo", 0.0)):
        for item in one.queue.items:
            reviewing.label(ws, one, item, author, {"preferred": value}, comment=HOSTILE)
    for place in (
        "/review",
        "/review/ab@1",
        "/review/ab@1/different",
        "/review/ab@1/label?by=bo&item=i0",
        "/review/ab@1/label?by=new",
    ):
        page = client.get(place)
        assert page.status_code == 200 and "<script>document" not in page.text and "<img src=x" not in page.text
        assert "&lt;script&gt;" in page.text


def test_a_pair_is_blind_until_everybody_is_done(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(PAIR, 6, systems=("the-old-one", "the-new-one")))
    told = re.compile("the-old-one|the-new-one|first output")
    for place in ("/review", "/review/ab@1", "/review/ab@1/label?by=ann"):
        assert not told.search(client.get(place).text)
    one = open_queue(ws, "ab")
    for item in one.queue.items:
        page = client.get(f"/review/ab@1/label?by=ann&item={item.id}").text
        shown = re.findall(r"output_([12]) of", page)
        assert shown == (["2", "1"] if one.queue.turned(item) else ["1", "2"])
        assert re.findall(r'name="level.preferred" value="(\w+)"', page)[0] == (
            "second" if one.queue.turned(item) else "first"
        )
        assert not told.search(client.get("/review/ab@1").text)
        reviewing.label(ws, one, item, "ann", {"preferred": 1.0})
    page = client.get("/review/ab@1").text
    assert "the-old-one is preferred to the-new-one" in page and "1.000" in page
    reviewing.label(ws, one, one.queue.items[0], "bo", {"preferred": 0.0})  # somebody else begins: blind again
    assert not told.search(client.get("/review/ab@1").text) and not told.search(
        client.get("/review/ab@1/different").text
    )


def test_disagreements_and_agreement(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC, 30))
    one = open_queue(ws, "answers")
    for number, item in enumerate(one.queue.items):
        reviewing.label(ws, one, item, "ann", {"good": float(number % 2)})
        reviewing.label(ws, one, item, "bo", {"good": float(number % 2 if number % 6 else 1)}, comment="I think so")
    page = client.get("/review/answers@1").text
    assert "5 disagreements" in page and "ann and bo" in page and "kappa 0.67" in page
    different = client.get("/review/answers@1/different").text
    assert (
        different.count("<article") == 5
        and "ann: no" in different
        and "bo: yes" in different
        and "I think so" in different
    )


def test_labels_are_downloaded(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC))
    send(client, "answers@1", "ann", do="label", **{"level.good": "yes"})
    lines = client.get("/review/answers@1/labels.jsonl")
    assert json.loads(lines.text)["labels"] == {"good": "yes"}
    assert 'filename="answers-labels.jsonl"' in lines.headers["content-disposition"]
    assert client.get("/review/answers@1/labels.csv").text.splitlines()[1].startswith("i")
    assert client.get("/review/answers@1/labels.xml").status_code == 400


def test_two_people_at_once(client: TestClient, ws: Workspace) -> None:
    reviewing.add_queue(ws, queue(RUBRIC, 8))

    def work(author: str) -> None:
        for _ in range(8):
            assert send(client, "answers@1", author, do="label", **{"level.good": "yes"})[0] == 303

    with ThreadPoolExecutor(2) as people:
        list(people.map(work, ("ann", "bo")))
    found = open_queue(ws, "answers").labels
    assert len(found.labels()) == 16 and found.finished


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
def test_labelling_by_keyboard(live: Live) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    reviewing.add_queue(live.ws, queue(RUBRIC, 3))
    reviewing.add_queue(live.ws, queue(BOTH, 2))
    wrong: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(40_000)
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(live.origin + "/review/answers@1")
        page.keyboard.type("ann")  # without a click
        page.keyboard.press("Enter")
        expect = sync_api.expect
        counted = page.locator(".head > .muted")
        expect(counted).to_contain_text("0 labelled, 3 left")
        page.keyboard.press("2")  # one criterion: chosen is saved
        expect(counted).to_contain_text("1 labelled, 2 left")
        page.keyboard.press("s")
        expect(counted).to_contain_text("1 skipped")
        page.keyboard.press("u")
        expect(counted).not_to_contain_text("skipped")
        page.keyboard.press("c")
        page.keyboard.type("2 s u")  # in the comment these are letters
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        expect(counted).to_contain_text("2 labelled, 1 left")
        page.goto(live.origin + "/review/both@1")
        expect(page.locator("input[name=by]")).to_have_value("ann")
        page.get_by_role("button", name="Label").click()
        expect(counted).to_contain_text("0 labelled, 2 left")
        for key in ("2", "1", "Enter"):
            page.keyboard.press(key)
        expect(counted).to_contain_text("1 labelled, 1 left")
        browser.close()
    assert wrong == []
    labels = open_queue(live.ws, "answers").labels.labels()
    assert sorted(label.value for label in labels) == [0.0, 1.0]
    said = {label.criterion: label.value for label in open_queue(live.ws, "both").labels.labels()}
    assert said == {"good": 1.0, "kind": 0.0}
