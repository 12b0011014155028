"""The report of a turn, in words that need no statistics."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.intervals import Interval
from windlass.loop.turning.ground import Gain
from windlass.loop.turning.page import Page, Tried
from windlass.loop.turning.page_html import html
from windlass.loop.turning.report import store_page
from windlass.loop.turning.words import told


def between(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 0.95, 300, 300, "t")


PAGE = Page(
    task="topic",
    incumbent="topic-variant@1",
    promoted="topic-variant@2",
    verdict="score changes by +0.1200",
    gains=(Gain("Calls that are answered rightly", 0.7, 0.82, between(0.05, 0.19), True),),
    tried=(
        Tried("student", "a small <model>", "number 1 on 80 questions", between(0.02, 0.2), 1.25),
        Tried("prompt", "other words", "it takes about 9.0 minutes, and 2.0 of 10 are left", None, 0.0),
    ),
    learned="800 items of topic-heard@1",
    synthetic=False,
    tested=240,
    number=2,
    error_rate=0.00625,
    minutes=3.5,
    spent={"usd": 1.25, "calls": 300, "tokens": 90000},
)


def test_a_promotion_says_what_it_brings_and_how_to_go_back() -> None:
    text = PAGE.markdown()
    assert "# 'topic' was improved" in text
    assert "70.0 of a hundred before, 82.0 now: 5.0 to 19.0 more of a hundred." in text
    assert "by luck at most once in 160 times" in text and "number 2 on these" in text
    assert "`windlass rollback topic` serves topic-variant@1 again" in text
    assert "3.5 minutes, $1.2500 for 300 calls" in text
    assert "90,000 tokens" in text
    unpriced = replace(PAGE, spent={"usd": 0.0, "calls": 300, "tokens": 90_000, "unpriced": 300}).cost
    assert unpriced == "3.5 minutes, 300 calls of language models whose price is not known, 90,000 tokens"
    assert "9.0 minutes, and 2.0 of 10 are left" in text
    assert len(text.split()) < 400, "one page"


def test_a_trial_says_who_gets_it_and_how_to_end_it() -> None:
    text = replace(PAGE, promoted=None, on_trial="topic-variant@2", share=0.1).markdown()
    assert "# An improvement of 'topic' is on trial" in text
    assert "ON TRIAL: 10 of a hundred users of 'topic' get topic-variant@2, the others topic-variant@1." in text
    assert "`windlass canary stop topic` ends it" in text and "REFUSED" not in text


def test_a_refusal_claims_nothing() -> None:
    page = replace(PAGE, promoted=None, gains=(), tested=0, number=None, error_rate=None, synthetic=True)
    text = page.markdown()
    assert "stays as it is" in text and "REFUSED" in text and "Nothing that was shown." in text
    assert "There is nothing to undo." in text and "made-up questions, not from users" in text


def test_differences_in_words() -> None:
    assert "no difference is shown" in told(Gain("Calls", 0.5, 0.51, between(-0.02, 0.04), True))
    assert "2.0 to 4.0 fewer of a hundred" in told(Gain("Calls", 0.5, 0.47, between(-0.04, -0.02), True))
    assert "surely less" in told(Gain("Milliseconds a call", 500, 5, between(-510, -480), False))
    assert "not shown" in told(Gain("Milliseconds a call", 500, 499, between(-5, 3), False))


def test_bars_are_good_by_the_direction_that_is_good() -> None:
    faster = Gain("Milliseconds a call", 500, 5, between(-510, -480), False, "lower")
    dearer = Gain("US dollars a call", 0.001, 0.002, between(0.0005, 0.0015), False, "lower")
    open_ = Gain("Calls", 0.5, 0.51, between(-0.02, 0.04), True)
    shown = html(replace(PAGE, gains=(*PAGE.gains, faster, dearer, open_), chosen="student"))
    assert re.findall(r'class="gain (\w+)"', shown) == ["good", "good", "bad", "open"]
    assert 'header class="promoted"' in shown and '<tr class="chosen"><td>student' in shown
    assert "<code>windlass rollback topic</code>" in shown and "prefers-color-scheme:dark" in shown


def test_the_page_is_stored_and_escaped(tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        report = store_page(ws, PAGE, [])
        assert store_page(ws, PAGE, []).digest == report.digest
        kept = (report.path / "report.html").read_text()
        assert "a small &lt;model&gt;" in kept and "<model>" not in kept
        assert json.loads((report.path / "report.json").read_text())["title"] == PAGE.title
        assert report.kind == "report" and report.card["done"].startswith("PROMOTED")
