"""The studio in a real browser: keys, clicks, themes, and that nothing is asked of anyone else."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

from playwright.sync_api import Browser, Page, expect  # noqa: E402
from prompt_seed import BREAKING  # noqa: E402
from studio_seed import Live  # noqa: E402

from windlass.apply.prompts import Example, Prompt, artifact  # noqa: E402

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip

expect.set_options(timeout=30_000)  # of a machine that has other things to do; what is there is found at once

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, live: Live) -> Iterator[Page]:
    """A page that fails its test on any console error, script error or request to another origin."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("request", lambda r: None if r.url.startswith(live.origin) else wrong.append(f"request: {r.url}"))
    page.set_default_timeout(40_000)
    yield page
    context.close()
    assert wrong == []


def test_ask_follow_a_citation_and_rate(page: Page, live: Live) -> None:
    page.goto(live.origin + "/ask")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("How do I get a sorted copy of a list?")
    page.keyboard.press("Enter")
    first = page.locator(".quotes blockquote").first
    expect(first).to_contain_text("call the built-in sorted() instead")
    expect(page.locator(".question")).to_have_text("How do I get a sorted copy of a list?")
    expect(page.locator("#q")).to_have_value("")
    trace = page.locator("article.answer").get_attribute("data-trace")
    assert trace

    page.get_by_role("button", name="Good answer").first.click()
    expect(page.get_by_text("Stored, thank you.")).to_be_visible()
    expect(page.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "true")
    assert [(s.value, s.source) for s in live.ws.store.scores(trace)] == [(1.0, "user")]

    quoted = first.inner_text()
    page.locator(".quotes a.source").first.click()
    mark = page.locator("mark#quote")
    expect(mark).to_have_text(quoted)
    expect(mark).to_be_in_viewport()

    page.go_back()
    page.goto(f"{live.origin}/traces/{trace}")
    expect(page.locator(".waterfall a")).to_have_count(3)
    expect(page.get_by_role("button", name="Good answer").first).to_have_attribute("aria-pressed", "true")


def test_a_second_question_stands_above_the_first_and_shift_enter_is_a_new_line(page: Page, live: Live) -> None:
    page.goto(live.origin + "/ask")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("What are lists")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("used for?")
    page.keyboard.press("Enter")
    expect(page.locator(".question").first).to_have_text(re.compile(r"What are lists\s+used for\?"))
    page.locator("#q").fill("Zzyzx?")
    page.keyboard.press("Enter")
    expect(page.locator(".abstained")).to_contain_text("No answer.")
    expect(page.locator("article.answer")).to_have_count(2)
    expect(page.locator(".question").first).to_have_text("Zzyzx?")


def test_feedback_with_words_and_the_right_document(page: Page, live: Live) -> None:
    trace = live.seeded.traces[11]
    page.goto(f"{live.origin}/traces/{trace}")
    page.get_by_text("Say more about this answer").click()
    page.get_by_label("Comment").fill("The other page says it better.")
    page.get_by_label("Document that holds the answer").fill("python:exceptions")
    page.locator(".more").get_by_role("button", name="Bad answer").click()
    expect(page.locator(".scores")).to_contain_text("The other page says it better.")
    score = live.ws.store.scores(trace)[-1]
    assert (score.value, score.metadata) == (0.0, {"correct_document": "python:exceptions"})


def test_the_arrow_keys_walk_through_the_spans(page: Page, live: Live) -> None:
    page.goto(f"{live.origin}/traces/{live.seeded.traces[0]}")
    panel = page.locator("#details h2")
    expect(panel).to_have_text("assistant")
    page.keyboard.press("ArrowDown")
    expect(panel).to_have_text("embed")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(panel).to_have_text("bm25")
    expect(page.locator(".waterfall [aria-current]")).to_contain_text("bm25")
    page.keyboard.press("ArrowUp")
    expect(panel).to_have_text("retrieve")
    expect(page.locator("#details")).to_contain_text("How do I sort a list")
    address = page.url
    page.reload()
    expect(panel).to_have_text("retrieve")
    assert address == page.url
    page.locator("#details a", has_text="index@2").click()
    expect(page.locator("h1")).to_have_text("index@2")


def test_bars_lie_under_their_parents_bar(page: Page, live: Live) -> None:
    page.goto(f"{live.origin}/traces/{live.seeded.traces[0]}")
    boxes = [page.locator(".waterfall .bar").nth(i).bounding_box() for i in range(5)]
    root = boxes[0]
    assert root is not None
    assert root["width"] > 100
    for box in boxes[1:]:
        assert box is not None
        assert root["x"] - 1 <= box["x"]
        assert box["x"] + box["width"] <= root["x"] + root["width"] + 1
        assert 1 < box["width"] < root["width"]


def test_going_places_by_keyboard(page: Page, live: Live) -> None:
    page.goto(live.origin + "/")
    for letter, title in (
        ("t", "Traces"), ("r", "Runs"), ("e", "Experiments"), ("p", "Prompts"), ("l", "Releases"), ("f", "Artifacts"),
    ):  # fmt: skip
        page.keyboard.press("g")
        page.keyboard.press(letter)
        expect(page.locator("h1")).to_have_text(title)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("a.row").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("assistant-turn")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator("h1")).to_have_text("Ask")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("g t")  # typed, not obeyed
    expect(page.locator("#q")).to_have_value("g t")


def test_a_first_tab_offers_to_skip_the_navigation(page: Page, live: Live) -> None:
    page.goto(live.origin + "/traces")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
    expect(page.get_by_text("Skip to content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def ground(page: Page) -> int:
    """Lightness of the page's background, 0 to 255."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", colour)[0])


def test_the_theme_follows_the_system_until_one_is_chosen(page: Page, live: Live) -> None:
    page.goto(live.origin + "/runs")
    assert ground(page) > 200
    page.emulate_media(color_scheme="dark")
    assert ground(page) < 60
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    page.keyboard.press("d")
    assert ground(page) < 60
    page.goto(live.origin + "/traces")
    assert ground(page) < 60, "the choice was forgotten"
    page.keyboard.press("d")
    assert ground(page) > 200


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = rgba(getComputedStyle(node).backgroundColor); if (colour[3] === 255) return colour; }
    return rgba(getComputedStyle(document.body).backgroundColor); };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    if (!text || node.closest("svg, script, noscript, dialog, .skip, .visually-hidden")) continue;
    if (!node.checkVisibility({ opacityProperty: true })) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} "${text.slice(0, 40)}" in ${node.tagName}.${node.className}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(page: Page, live: Live, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    s = live.seeded
    for address in (
        "/", "/ask", "/traces", f"/traces/{s.traces[0]}", f"/traces/{s.broken}", "/runs", f"/runs/{s.run}",
        f"/experiments/{s.experiment.ref}", f"/experiments/{s.refused.ref}", "/releases", "/artifacts",
        "/artifacts/python-3m", "/artifacts/corpus/document?id=python:lists&start=20&end=60", f"/lineage/{s.traces[0]}",
        "/prompts", "/prompts/tone@3?with=tone@1", "/prompts/tone@2?saved=new", "/prompts/tone@2/edit",
        "/prompts/tone@2/try", "/experiments/parity-prompt-search",
    ):  # fmt: skip
        page.goto(live.origin + address)
        assert page.evaluate(CONTRAST) == [], address


@pytest.mark.parametrize("width", [320, 768])
def test_no_page_is_wider_than_its_window(page: Page, live: Live, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    s = live.seeded
    for address in (
        "/", "/ask", "/traces", f"/traces/{s.traces[0]}", f"/traces/{s.hostile}", "/runs", f"/runs/{s.run}",
        "/experiments", f"/experiments/{s.experiment.ref}", "/releases", "/artifacts", "/artifacts/python-3m",
        "/artifacts/corpus/documents", "/artifacts/corpus/document?id=python:lists&start=20&end=60",
        f"/lineage/{s.traces[0]}", f"/lineage/{s.hostile}", "/prompts", "/prompts/tone@3?with=tone@1",
        "/prompts/tone@2", "/prompts/breaking", "/prompts/breaking/edit", "/prompts/breaking/try",
        "/prompts/tone@3/edit",
        "/prompts/tone@2/try?dataset=reviews@1", "/experiments/parity-prompt-search",
    ):  # fmt: skip
        page.goto(live.origin + address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address


def test_a_run_draws_a_curve_for_every_metric(page: Page, live: Live) -> None:
    page.goto(f"{live.origin}/runs/{live.seeded.run}")
    expect(page.locator("#charts")).to_have_attribute("data-drawn", "true")
    expect(page.locator(".chart canvas")).to_have_count(4)
    ink = page.evaluate(
        "[...document.querySelectorAll('.chart canvas')].map((c) => c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length)"
    )
    assert all(count > 2000 for count in ink), ink
    first = page.locator(".chart").first
    expect(first.locator("h2")).to_have_text("heldout_bits_per_byte")
    expect(first.locator(".legend")).to_contain_text("gzip -9 2.160")
    before = first.locator("output").inner_text()
    first.locator(".u-over").hover(position={"x": 60, "y": 40})
    expect(first.locator("output")).not_to_have_text(before)


def test_ticked_runs_are_drawn_over_each_other(page: Page, live: Live) -> None:
    page.goto(f"{live.origin}/runs")
    for name in ("python-3m", "python-5m"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare the ticked").click()
    expect(page.locator("h1")).to_have_text("python-5m, python-3m")
    expect(page.locator("#charts")).to_have_attribute("data-drawn", "true")
    first = page.locator(".chart").first
    expect(first.locator("h2")).to_have_text("train_loss")
    first.locator(".u-over").hover(position={"x": 60, "y": 40})
    expect(first.locator("output")).to_contain_text("python-3m")
    expect(first.locator("output")).to_contain_text("python-5m")


def test_a_running_run_goes_on_by_itself(page: Page, live: Live) -> None:
    from windlass.core.records import MetricPoint

    page.goto(f"{live.origin}/runs/{live.seeded.running}")
    expect(page.locator("#charts")).to_have_attribute("data-drawn", "true")
    live.ws.store.add_metrics(live.seeded.running, [MetricPoint(5000, "train_loss", 1.25, 0.0)])
    expect(page.locator('[data-metric="train_loss"] output')).to_contain_text("1.25 at step 5,000", timeout=8000)


def test_the_graph_of_an_answer_leads_to_the_document(page: Page, live: Live) -> None:
    page.goto(f"{live.origin}/traces/{live.seeded.traces[1]}")
    page.get_by_role("link", name="Lineage").click()
    answer, corpus = page.locator(".k-answer rect.boxed"), page.locator(".k-corpus rect.boxed")
    above, below = answer.bounding_box(), corpus.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] + above["height"] < below["y"]
    page.locator(".k-citation a").first.click()
    expect(page.locator("mark#quote")).to_be_in_viewport()


def test_hostile_text_does_nothing_in_a_browser(page: Page, live: Live) -> None:
    s = live.seeded
    for address in ("/", "/traces", f"/traces/{s.hostile}", f"/lineage/{s.hostile}", "/artifacts/corpus/documents"):
        page.goto(live.origin + address)
        assert "owned" not in page.title()[:5]
        assert page.locator("main img").count() == 0
    page.goto(live.origin + "/ask")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("list <img src=x onerror=\"document.title='owned'\"> sorted")
    page.keyboard.press("Enter")
    expect(page.locator(".quotes")).to_be_visible()
    assert page.title() != "owned"


def test_the_pages_work_without_scripts(browser: Browser, live: Live) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live.origin + "/ask")
    page.locator("#q").fill("How do I get a sorted copy of a list?")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".quotes blockquote").first).to_contain_text("sorted()")
    page.get_by_role("button", name="Good answer").first.click()
    expect(page.locator(".scores")).to_contain_text("user · studio")
    page.locator(".waterfall a", has_text="retrieve").click()
    expect(page.locator("#details h2")).to_have_text("retrieve")
    context.close()


def test_a_question_that_failed_stays_in_the_box(page: Page, live: Live) -> None:
    page.goto(live.origin + "/ask")
    line = json.dumps({"error": "The endpoint is down.", "hint": "Start it.", "end": True}) + "\n"
    page.route("**/ask", lambda route: route.fulfill(content_type="application/x-ndjson", body=line))
    page.locator("#q").fill("Where is an exception handled?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The endpoint is down. Start it.")
    expect(page.locator("#q")).to_have_value("Where is an exception handled?")


# prompts ----------------------------------------------------------------------------------------------------------


def test_a_prompt_is_edited_saved_and_labelled_by_keyboard(page: Page, live: Live) -> None:
    artifact.add(live.ws, "door", Prompt("Describe the door.", None, {"temperature": 0.5}))
    page.goto(live.origin + "/prompts/door")
    page.get_by_role("link", name="Edit", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_label("Instructions").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type(" Be\nbrief. g t")
    expect(page.locator("h1")).to_have_text("Edit door@1")  # typed, not obeyed
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Save as the next version")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("door@2")
    expect(page.get_by_role("status")).to_contain_text("Saved as door@2")
    expect(page.locator("table.diff ins")).to_have_text("Be")
    made = artifact.read(artifact.find(live.ws, "door@2"))
    assert made == Prompt("Describe the door. Be\nbrief. g t", None, {"temperature": 0.5})

    page.get_by_label("Label", exact=True).focus()
    page.keyboard.type("canary")
    page.keyboard.press("Tab")
    page.keyboard.type("shorter")
    page.keyboard.press("Enter")
    row = page.locator("section", has=page.locator("#labels")).locator("tbody tr")
    expect(row).to_contain_text(["shorter"])
    assert artifact.find(live.ws, "door:canary").ref == "door@2"


def test_a_label_that_cannot_be_is_not_sent(page: Page, live: Live) -> None:
    page.goto(live.origin + "/prompts/breaking")
    page.get_by_label("Label", exact=True).fill("No Label")
    page.get_by_role("button", name="Point at breaking@1").click()
    assert page.get_by_label("Label", exact=True).evaluate("(box) => box.validity.patternMismatch")
    assert page.url.endswith("/prompts/breaking")


ODD = [
    Prompt(BREAKING, [Example({"a": BREAKING}, BREAKING)], {"stop": [BREAKING]}),
    Prompt("a\u2028b\x0b\x0c\x85\ufeffc\x7f\n\n\n  d\t\u00a0e \U0001f6aa", [], {"extra": {"é": [1, 1.0, {}]}}),
    Prompt("+++\nno settings\n+++\n\u202e&amp;&#10;&notin;<textarea>"),
]


@pytest.mark.parametrize("number", range(len(ODD)))
def test_saved_as_it_was_a_prompt_is_the_same_to_the_byte(page: Page, live: Live, number: int) -> None:
    stored = artifact.add(live.ws, f"odd-{number}", ODD[number])
    page.goto(f"{live.origin}/prompts/odd-{number}/edit")
    assert page.locator("#instructions").input_value() == ODD[number].instructions
    page.get_by_role("button", name="Save as the next version").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing new was stored")
    assert [record.digest for record in artifact.versions(live.ws, f"odd-{number}")] == [stored.digest]
    assert "owned" not in page.title()[:5]


def test_a_prompt_is_tried_on_a_row_once_a_press_and_its_trace_leads_back(page: Page, live: Live) -> None:
    page.goto(live.origin + "/prompts/tone@2")
    page.get_by_role("link", name="Try", exact=True).click()
    page.get_by_label("Dataset").select_option("reviews@1")
    page.get_by_label("Row", exact=True).fill("2")
    page.get_by_role("button", name="Fill in").click()
    expect(page.get_by_label("review", exact=True)).to_have_value("The door fell off on the second day.")
    live.ws.recorder.flush()
    assert live.ws.store.traces(name="try") == []
    page.get_by_role("button", name="Run").dblclick()
    expect(page.locator("#result")).to_be_visible()
    expect(page.get_by_text("Right, says the dataset")).to_be_visible()
    live.ws.recorder.flush()
    assert len(live.ws.store.traces(name="try")) == 1
    page.get_by_role("link", name="Trace", exact=True).click()
    page.locator(".waterfall a", has_text="tone").click()
    expect(page.locator("#details h2")).to_have_text("tone")
    page.locator("#details a", has_text="tone@2").click()
    expect(page.locator("h1")).to_have_text("tone@2")


def test_prompts_work_without_scripts(browser: Browser, live: Live) -> None:
    artifact.add(live.ws, "plain", Prompt("One."))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live.origin + "/prompts/plain/edit")
    page.locator("#instructions").fill("Two.")
    artifact.add(live.ws, "plain", Prompt("Somebody else's."))
    page.get_by_role("button", name="Save as the next version").click()
    expect(page.get_by_role("alert")).to_contain_text("plain@2 was stored")
    expect(page.locator("#instructions")).to_have_value("Two.")
    page.get_by_role("button", name="Save as the next version all the same").click()
    expect(page.locator("h1")).to_have_text("plain@3")
    context.close()
