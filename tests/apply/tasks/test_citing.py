"""Quotations in a task's answer: found where they stand, or refused with where they part from what stands there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import windlass
from windlass.apply.prompts import Prompt
from windlass.apply.tasks import Absent, Example, NoAnswer, Quote, Verbatim, task
from windlass.apply.tasks.forms.citing import context
from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.prompted import plain_examples, typed_examples
from windlass.apply.verbatim import as_read
from windlass.core.errors import InputError
from windlass.core.values import Citation
from windlass.loop.evaluating.items import Item
from windlass.loop.evaluating.running import Kept, kept_rows, run_items
from windlass.loop.evaluating.scorers import scorers
from windlass.testing import Scripted

REPORT = "The pump moves nine litres.\n\nIt costs $1,000; oil it “once a week”."


class Claim(BaseModel):
    claim: str
    evidence: Quote


@task(attempts=2)
def claims(report: str) -> list[Claim]:
    """List what this report claims."""
    raise NotImplementedError


def wire(words: str) -> dict[str, Any]:
    return {"value": [{"claim": "It does.", "evidence": words}]}


def test_the_value_says_where_the_words_stand() -> None:
    model = Scripted(wire('oil it "once a week"'))
    (claim,) = claims.using(model=model)(REPORT)
    found = claim.evidence
    assert (found.document, found.quote) == ("report", "oil it “once a week”")
    assert REPORT[found.start : found.end] == found.quote
    assert model.last.schema is not None
    (form,) = (one for name, one in model.last.schema["$defs"].items() if name == "Claim")
    assert form["properties"]["evidence"]["type"] == "string", "the model writes words, no places"
    assert windlass.Quote is Quote


@pytest.mark.parametrize("structured", ["schema", "tool", "prompt"])
def test_what_does_not_stand_there_is_asked_again_and_told_why(structured: Any) -> None:
    wrong, right = wire("The pump moves ten litres."), wire("The pump moves nine litres.")
    if structured == "prompt":
        wrong, right = (json.dumps(one["value"]) for one in (wrong, right))  # type: ignore[assignment]
    model = Scripted(wrong, right, structured=structured)
    outcome = claims.using(model=model).run(REPORT)
    assert outcome.value[0].evidence.start == 0 and len(outcome.attempts) == 2
    (problem,) = outcome.attempts[0].problems
    assert problem.startswith(
        "0.evidence: The quotation is not to the letter. In 'report', which is nearest, it is the"
    )
    assert "up to 'The pump moves '" in problem and "'nine litres." in problem and "not 'ten litres.'" in problem
    assert "(got 'The pump moves ten litres.')" in problem
    assert problem in model.last.messages[-1].text


def test_the_budget_of_tokens_ends_it() -> None:
    model = Scripted(*[wire("made up words")] * 3)  # 15 tokens each
    with pytest.raises(NoAnswer, match="15 of 20 tokens are spent"):
        claims.using(model=model, attempts=3, tokens=20)(REPORT)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("It costs $1", "cuts through a word or a number of 'report', which reads 'The pump|It costs \\$1,000"),
        ("he pump moves", "cuts through a word"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("quick XYZ", "stands in none of the 1 passages, nor does anything like it"),
        ("the pump moves", "nearest, it is the same from 'he pump moves' on, before which stands 'T' and not 't'"),
    ],
)
def test_what_is_no_quotation(words: str, why: str) -> None:
    with pytest.raises(NoAnswer, match=why):
        claims.using(model=Scripted(wire(words)), attempts=1)(REPORT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab c,.\n“é\xad", min_size=1, max_size=30), min_size=1, max_size=4), st.data())
def test_any_words_of_a_passage_are_found_and_none_other(texts: list[str], data: st.DataObject) -> None:
    at = [data.draw(st.integers(0, 50)) for _ in texts]
    passages = [Citation(f"d{n}", "", "", at[n], at[n] + len(text), text) for n, text in enumerate(texts)]
    shape: Shape[Citation] = Shape(Quote)
    seen = context(shape, {"passages": passages}, {"passages": list[Citation]})
    text = data.draw(st.sampled_from(texts))
    words = data.draw(
        st.sampled_from(as_read(text).split() or [""])
    )  # whole words; parts are those of test_to_the_letter
    if words:
        found = shape.value(words, seen)
        (source,) = (one for one in passages if one.document == found.document)
        assert source.quote[found.start - source.start : found.end - source.start] == found.quote
        assert shape.value(shape.plain(found), seen) == found == shape.value(shape.plain(found)), "kept, and read again"
        assert shape.plain(found, as_written=True) == found.quote
    for edited in (f"{words}X", f"X{words}", f"{words[:1]}X{words[1:]}"):
        with pytest.raises(Unfit):
            shape.value(edited, seen)


@dataclass
class Mail:
    subject: str
    body: str


class Thread(BaseModel):
    mails: list[Mail]
    labels: dict[str, str] = {}


def test_passages_are_all_texts_of_an_input_wherever_they_stand() -> None:
    @task
    def asked_for(thread: Thread) -> list[Quote]:
        """Quote what they ask for."""
        raise NotImplementedError

    thread = Thread(
        mails=[Mail("Hinges", "Send ten."), Mail("Re: Hinges", "Send twelve instead.")], labels={"a": "hot"}
    )
    model = Scripted({"value": ["Send twelve", "Hinges", "hot"]})
    found = asked_for.using(model=model)(thread)
    assert [(one.document, one.start, one.end) for one in found] == [
        ("thread.mails.1.body", 0, 11), ("thread.mails.0.subject", 0, 6), ("thread.labels.a", 0, 3)
    ]  # fmt: skip


def test_what_a_search_found_keeps_its_place_in_the_document() -> None:
    @task
    def answer(question: str, passages: Sequence[Citation]) -> Quote | Absent:
        """Answer by quoting."""
        raise NotImplementedError

    passages = [Citation("manual", "Pump", "Care", 700, 719, "Oil it every night.", "pump.md")]
    model = Scripted({"value": "every night"}, {"value": "How often"}, {"value": {"why_absent": "nothing of it"}})
    found = answer.using(model=model)("How often is it oiled?", passages)
    assert found == Citation("manual", "Pump", "Care", 707, 718, "every night", "pump.md")
    assert answer.using(model=model)("How often is it oiled?", passages) == Absent("nothing of it")
    assert "stands in none of the 1 passages" in model.last.messages[-1].text, "the question is no passage"
    with pytest.raises(NoAnswer, match="none of the 0 passages"):
        answer.using(model=Scripted({"value": "How often"}), attempts=1)("How often is it oiled?", [])


def test_which_input_is_quoted_is_clear_or_an_error_before_anything_is_asked() -> None:
    @task
    def unclear(question: str, notes: str) -> Quote:
        """Answer from the notes."""
        raise NotImplementedError

    @task
    def named(question: str, notes: str) -> Annotated[Citation, Verbatim("notes")]:
        """Answer from the notes."""
        raise NotImplementedError

    @task
    def misspelt(notes: str) -> list[Annotated[Citation, Verbatim("note")]]:
        """Quote."""
        raise NotImplementedError

    @task
    def textless(year: int) -> Quote:
        """Quote."""
        raise NotImplementedError

    model = Scripted({"value": "so"}, {"value": "Or so"})
    with pytest.raises(InputError, match="not clear: question, notes") as caught:
        unclear.using(model=model)("so?", "Or so.")
    assert 'Verbatim("notes")' in caught.value.hint
    with pytest.raises(InputError, match="no input 'note'"):
        misspelt.using(model=model)("Or so.")
    with pytest.raises(InputError, match="no input holds text"):
        textless.using(model=model)(2026)
    assert not model.requests
    assert named.using(model=model)("so?", "Or so.").document == "notes"
    assert "from notes to the letter" in json.dumps(model.last.schema)
    assert named.digest == named.using(attempts=3).digest and "at 0x" not in repr(Verbatim("notes"))


def test_examples_and_items_hold_the_words_alone(tmp_path: Path) -> None:
    shown = Prompt("Quote.", [Example({"report": "Tea is hot."}, [{"claim": "Hot.", "evidence": "Tea is hot"}])], {})
    model = Scripted(wire("It costs"))
    claims.using(model=model, prompt=shown)(REPORT)
    assert json.loads(model.last.messages[2].text) == {"value": [{"claim": "Hot.", "evidence": "Tea is hot"}]}
    in_code = Example({"report": "Tea is hot."}, [Claim(claim="Hot.", evidence="is hot")])  # type: ignore[arg-type]
    assert plain_examples([in_code], claims.signature)[0].answer == [{"claim": "Hot.", "evidence": "is hot"}]
    wrong = [Example({"report": "Tea is hot."}, [{"claim": "Cold.", "evidence": "Tea is cold"}])]
    with pytest.raises(InputError, match=r"Example 1 of x: 0\.evidence: The quotation is not to the letter"):
        typed_examples(wrong, claims.signature, "x")
    items = [Item({"report": REPORT}, [{"claim": "It does.", "evidence": "It costs"}])]
    quoting = claims.using(model=Scripted(wire("It costs")))
    found = run_items(quoting, items, scorers(["equal"]), variant="v", dataset="d")
    assert found.items[0].values["equal"] == 1.0
    again = run_items(quoting, items, scorers(["equal"]), variant="v", dataset="d", kept=Kept(kept_rows(found)))
    assert again == found, "a quotation that was kept is found again in its passage"
    with pytest.raises(Unfit, match="no passages to find them in"):
        Shape[Any](Quote).value("words")


def test_a_map_reads_its_quotations_back_with_their_places(tmp_path: Path) -> None:
    journal = tmp_path / "claims.jsonl"
    for model in (Scripted(wire("It costs")), Scripted()):
        (result,) = claims.using(model=model).map([REPORT], journal=journal, progress=False)
        assert result.value is not None and result.value[0].evidence.start == REPORT.index("It costs")
