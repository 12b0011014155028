"""The chat page: what it posts and what comes back, and how it feels in a real browser."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from windlass.core.errors import ProviderError
from windlass.core.values import ChatDelta, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.serve.run import ServerThread
from windlass.studio.app import routes

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


class Parrot:
    """Repeats the last message word by word; "long" makes it write until it is stopped, "fail" makes it fail."""

    digest = None

    def __init__(self, name: str = "parrot") -> None:
        self.name = name
        self.requests: list = []
        self.stopped = threading.Event()

    def complete(self, request):
        raise NotImplementedError

    def stream(self, request):
        self.requests.append(request)
        text = request.messages[-1].text
        if "fail" in text:
            raise ProviderError("The model is out of breath.", "Wait.")
        try:
            words = ["word"] * 2000 if "long" in text else text.split()
            for word in words:
                yield ChatDelta(word + " ")
                time.sleep(0.02)
            message = Message("assistant", "")
            yield ChatDelta(response=ChatResponse("i", self.name, message, "stop", Usage(input=1, output=len(words))))
        finally:
            self.stopped.set()


@pytest.fixture
def models() -> dict[str, Parrot]:
    return {"parrot": Parrot(), "other": Parrot("other")}


@pytest.fixture
def client(tmp_path, models) -> Iterator[TestClient]:
    with Workspace(tmp_path) as ws:
        yield TestClient(Starlette(routes=routes(ws, models)), base_url="http://localhost")


def post(client: TestClient, talk: list[tuple[str, str]], **fields: str):
    messages = json.dumps([{"role": role, "content": content} for role, content in talk])
    return client.post(
        "/chat",
        content=urlencode({"messages": messages, **fields}),
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/x-ndjson, application/json",
            "Sec-Fetch-Site": "same-origin",
        },
    )


def test_an_answer_arrives_in_lines(client, models):
    talk = [("user", "hello"), ("assistant", "hello "), ("user", "once more")]
    response = post(client, talk, model="other", system="Be kind.", temperature="0.5", max_tokens="9")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line.get("text") for line in lines] == ["once ", "more ", None]
    assert (lines[-1]["finish"], lines[-1]["tokens"], lines[-1]["end"]) == ("stop", 2, True)
    request = models["other"].requests[0]
    assert [(m.role, m.text) for m in request.messages] == [("system", "Be kind."), *talk]
    assert (request.temperature, request.max_tokens) == (0.5, 9)


@pytest.mark.parametrize(
    ("talk", "fields", "said"),
    [
        ([], {}, "does not end with a question"),
        ([("user", "a"), ("assistant", "b")], {}, "does not end with a question"),
        ([("system", "a")], {}, "does not end with a question"),
        ([("user", "  ")], {}, "is empty"),
        ([("user", "a")], {"model": "nobody"}, "no model 'nobody'"),
        ([("user", "a")], {"temperature": "hot"}, "temperature is 'hot'"),
        ([("user", "a")], {"temperature": "nan"}, "temperature is 'nan'"),
        ([("user", "a")], {"max_tokens": "0"}, "max_tokens is '0'"),
        ([("user", "a")], {"messages": "{"}, "not readable"),
        ([("user", "a")], {"messages": "[1]"}, "not readable"),
    ],
)
def test_what_cannot_be_answered_is_named(client, talk, fields, said):
    response = post(client, talk, **fields)
    assert response.status_code == 400 and said in response.json()["error"]


def test_a_failing_model_says_why_and_frees_its_place(client):
    for _ in range(12):  # more often than there are places
        line = json.loads(post(client, [("user", "fail")]).text)
        assert line == {"error": "The model is out of breath.", "hint": "Wait.", "end": True}


def test_a_post_from_elsewhere_is_refused(client):
    response = client.post("/chat", data={"messages": "[]"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403


def test_without_models_the_page_says_what_to_do(empty):
    assert "windlass import" in empty.get("/chat").text


# in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path, models):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    wrong: list[str] = []
    with (
        Workspace(tmp_path) as ws,
        ServerThread(Starlette(routes=routes(ws, models))) as server,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light").new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(server.url) else wrong.append(r.url))
        page.set_default_timeout(40_000)
        page.goto(server.url + "/chat")
        yield page
        browser.close()
    assert wrong == []


def test_a_conversation_by_keyboard_alone(page, models):
    from playwright.sync_api import expect

    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("<b>bold</b> words")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant .text")).to_have_text("<b>bold</b> words ")
    expect(page.locator(".turn.assistant .under")).to_contain_text("2 tokens")
    assert page.locator(".turn b").count() == 0
    page.keyboard.press("ArrowUp")
    expect(page.locator("#q")).to_have_value("<b>bold</b> words")
    page.keyboard.press("End")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("more")
    page.keyboard.press("Enter")
    expect(page.locator(".turn")).to_have_count(4)
    expect(page.locator("#state")).to_have_text("The answer is complete.")
    assert [m.role for m in models["parrot"].requests[1].messages] == ["user", "assistant", "user"]
    page.reload()
    expect(page.locator(".turn")).to_have_count(4)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_stopping_stops_the_model(page, models, how):
    from playwright.sync_api import expect

    page.keyboard.type("a long answer")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant .text")).to_contain_text("word word word")
    expect(page.locator("#send")).to_be_hidden()
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".turn.assistant .under")).to_have_text("stopped")
    assert models["parrot"].stopped.wait(30)
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#q")).to_be_focused()


def test_settings_reach_the_model_and_errors_are_shown(page, models):
    from playwright.sync_api import expect

    page.get_by_label("Model", exact=True).select_option("other")
    page.get_by_text("Settings").click()
    page.get_by_label("What the model is told first").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.locator("#q").fill("please fail")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The model is out of breath. Wait.")
    expect(page.locator("#q")).to_have_value("please fail")
    page.locator("#q").fill("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant .text")).to_have_text("hello ")
    request = models["other"].requests[-1]
    assert (request.messages[0].text, request.temperature) == ("Be brief.", 0.3)
    assert page.get_by_role("alert").count() == 0
