"""Lines that are cut out: each for its reason, the same ones that datatrove's C4 filter cuts, and never a heading."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest
from bench._data import data_folder
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.cleaning import Cleaning
from windlass.build.corpus.lines import trimmed, trims
from windlass.build.corpus.quality import PRESETS, QualityRules
from windlass.build.corpus.settings import CorpusSettings
from windlass.core.documents import Document
from windlass.core.readers import canonical
from windlass.core.readers.headings import markdown_sections

DATA = data_folder()
FINEWEB = PRESETS["fineweb"]
PAGE = """\
# Bread

Bread was baked here in 1850,[12] and it still is [citation needed] today.
Home
About us
Please enable JavaScript to see this page.
We use cookies to improve the service that you receive.

See [3](https://a.b) and a list: [1]: x."""


def test_each_line_goes_for_its_reason() -> None:
    text, removed = trimmed(PAGE, FINEWEB)
    assert text == ("Bread was baked here in 1850, and it still is today.\n\nSee [3](https://a.b) and a list: [1]: x.")
    assert removed == {"citation marks": 2, "lines of few words": 3, "script notices": 1, "policy notices": 1}
    assert trimmed("short\n" + "x" * 1001 + " is too long", FINEWEB)[1]["lines with an endless word"] == 1
    strict = QualityRules(unfinished_lines=False)
    assert trimmed("A whole one.\nA cut...\nan end\nSaid \"so\"", strict) == (
        'A whole one.\nSaid "so"', {"unfinished lines": 2}
    )  # fmt: skip


def test_rules_that_cut_nothing_are_no_stage() -> None:
    assert not trims(PRESETS["gopher"]) and trims(FINEWEB) and trims(QualityRules(min_line_words=2))
    assert trimmed(PAGE, PRESETS["gopher"]) == (PAGE, {})
    assert (
        "lines" in Cleaning(CorpusSettings(quality="fineweb")).stages
        and "lines" not in Cleaning(CorpusSettings()).stages
    )


def test_headings_stay_where_their_sections_point() -> None:
    text = canonical(
        PAGE + "\n\n## Menu\n\nHome\n\n## Script\n\nTurn on JavaScript, it is needed here.\n\nReal words stay here."
    )
    document = Document("a", "a", "Bread", text, "markdown", tuple(markdown_sections(text)), {"kind": "page"})
    left, reasons = Cleaning(CorpusSettings(quality="fineweb")).stages["lines"](document)
    assert left is not None and [s.heading for s in left.sections] == ["Bread", "Menu", "Script"]
    assert all(left.text[s.start :].split("\n")[0].endswith(s.heading) for s in left.sections)
    assert dict(reasons)["lines of few words"] == "3 cut out"
    program = dataclasses.replace(document, metadata={"kind": "source"})
    assert Cleaning(CorpusSettings(quality="fineweb")).stages["lines"](program).document is program


@given(st.lists(st.sampled_from([*PAGE.split("\n"), "", "a b c", "x" * 1200]), max_size=20).map("\n".join))
def test_trimming_is_done_once(text: str) -> None:
    text = canonical(text)
    once, removed = trimmed(text, FINEWEB)
    assert trimmed(once, FINEWEB) == (once, {}) and canonical(once) == once
    assert (once == text) == (not removed)


def test_the_lines_that_stay_are_those_of_datatrove() -> None:
    pytest.importorskip("datatrove")
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import C4QualityFilter

    if not DATA.is_dir():
        pytest.skip(f"the public data folder is not at {DATA}")
    texts: list[str] = []
    for name in ("web/c4_demo", "docs/huggingface__smolagents", "docs/rust-lang__book"):
        with gzip.open(DATA / f"pretrain/{name}.jsonl.gz", "rt", encoding="utf-8", newline="\n") as file:
            texts += [canonical(json.loads(line)["text"]) for line in file][::3]
    shown = dataclasses.replace(FINEWEB, citations=True)  # their pattern also takes the "[0]" of a program
    cut = 0
    for rules, finished in ((shown, False), (dataclasses.replace(shown, unfinished_lines=False), True)):
        theirs = C4QualityFilter(
            remove_citations=False, filter_no_terminal_punct=finished, min_num_sentences=-1,
            filter_lorem_ipsum=False, filter_curly_bracket=False,
        )  # fmt: skip
        for text in texts:
            page = Theirs(text=text.replace("”", '"').replace("’", "'"), id="")
            theirs.filter(page)
            ours, removed = trimmed(text, rules)
            ours = ours.replace("”", '"').replace("’", "'")
            assert [line.strip() for line in ours.split("\n") if line.strip()] == [
                x for x in page.text.split("\n") if x
            ]
            cut += removed.total()
    assert cut > 100
