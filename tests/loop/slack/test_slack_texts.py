"""What goes into Slack and comes out of it: nothing that a model wrote can act there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.apply.rag.answers.showing import sources
from windlass.core.values import ChatResponse, Citation, Message
from windlass.loop.slack import texts

CITED = Citation("guide", "Guide", "Refunds > Late", 10, 43, "Refunds take five days <at most>.", "docs/guide.md")


def response(text: str, citations: tuple[Citation, ...] = (), trace: str | None = "t" * 32) -> ChatResponse:
    return ChatResponse("r1", "assistant", Message("assistant", text), "stop", citations=citations, trace_id=trace)


def shown(blocks: list[dict[str, object]]) -> str:
    return "\n".join(block["text"]["text"] for block in blocks if block["type"] == "section")  # type: ignore[index]


def test_what_people_write_is_read_without_markup() -> None:
    text = "<@U0BOT> is <https://x.org/a?b=1|this page> &lt;old&gt;? ask <@U7|ann> in <#C1|help>, <mailto:a@b.c|a@b.c>"
    wanted = "is this page (https://x.org/a?b=1) <old>? ask ann in help, mailto:a@b.c (a@b.c)"
    assert texts.read(text, "U0BOT").split() == wanted.replace("mailto:a@b.c (a@b.c)", "a@b.c (mailto:a@b.c)").split()


@given(st.text())
def test_what_is_written_reads_as_it_was(text: str) -> None:
    assert texts.read(texts.escaped(text), "U0BOT") == text.strip()


@given(st.text(alphabet="<>&|!@#*[]()a \n", max_size=80))
def test_no_model_can_mention_or_link(text: str) -> None:
    for block in texts.answer_blocks(response(text, trace=None), None):
        assert "<" not in block["text"]["text"] and ">" not in block["text"]["text"]


@given(st.text(alphabet="ab &<\n", max_size=9000))
def test_long_answers_come_in_pieces_that_slack_takes(text: str) -> None:
    blocks = texts.answer_blocks(response(text), None)
    sections = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert all(1 <= len(section) <= 3000 for section in sections) and len(blocks) <= 50
    joined = "".join("".join(section.split()) for section in sections)
    assert joined == ("".join(texts.written(text).split()) or "(empty)")


def test_markdown_becomes_what_slack_shows() -> None:
    assert texts.written("## Fees\n**Two** euros & a <tip>") == "*Fees*\n*Two* euros &amp; a &lt;tip&gt;"


def test_sources_are_links() -> None:
    text = "They take five days. [1]\n\n" + sources([CITED])
    blocks = texts.answer_blocks(response(text, (CITED,)), "https://docs.example.com/{source}#{start}")
    said = shown(blocks)
    assert "Sources:" not in said
    assert "[1] <https://docs.example.com/docs/guide.md#10|Guide &gt; Refunds &gt; Late>" in said
    assert "> Refunds take five days &lt;at most&gt;." in said
    assert blocks[-1]["type"] == "actions"


def test_pages_addresses_and_warnings_are_shown() -> None:
    page = Citation("guide", "Guide", "", 0, 4, "Five", "guide.pdf", place="page 12", url="https://x.org/guide.pdf")
    assert "|Guide &gt; page 12>" in texts.cited(1, page, None) and "<https://x.org/guide.pdf" in texts.cited(
        1, page, None
    )
    warned = replace(response("Five. [1]", (page,)), warnings=("The sources disagree: <5> or 6.",))
    assert ":warning: The sources disagree: &lt;5&gt; or 6." in shown(texts.answer_blocks(warned, None))


def test_a_source_without_an_address_is_named() -> None:
    assert "(`docs/guide.md`)" in texts.cited(1, CITED, None)


@pytest.mark.parametrize("source", ["https://x.org/a|b>c d", "https://x.org/<script>"])
def test_no_source_ends_its_link_early(source: str) -> None:
    found = texts.address(Citation("d", "", "", 0, 1, "x", source), None)
    assert found is not None and not set(found) & set("<>| ")


def test_without_a_trace_there_is_nothing_to_score() -> None:
    assert all(block["type"] != "actions" for block in texts.answer_blocks(response("Yes.", trace=None), None))


def test_thumbs_of_several_people_stand_side_by_side() -> None:
    blocks = texts.answer_blocks(response("Yes."), None)
    for user, good in (("U1", True), ("U2", False), ("U1", False)):
        blocks = texts.thanked_blocks(blocks, good, user)
    said = next(block for block in blocks if block.get("block_id") == "windlass_said")
    assert said["elements"][0]["text"] == "👎 <@U2>   👎 <@U1>"
    assert blocks[-1]["type"] == "actions"
    json.dumps(blocks)
