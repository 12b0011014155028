"""What the proofs of small decoders count as held out, as obedient, and as a valid call."""

from __future__ import annotations

import pytest
from bench._proof_data import Row, _call, clusters, held, tools_of
from bench.instruct import form, obeys, right
from bench.toolcall import UNSEEN, Call, chosen, f1, valid, written_freely

from windlass.core.values import ChatResponse, FinishReason, Message

WORDS = [f"word{number}" for number in range(200)]
PASSAGE = " ".join(WORDS[:40])


def said(text: str, finish: FinishReason = "stop") -> ChatResponse:
    return ChatResponse("1", "model", Message("assistant", text), finish)


def test_texts_that_quote_a_passage_are_one_cluster() -> None:
    texts = [
        f"Read this: {PASSAGE}. Who?",
        "something else",
        f"{PASSAGE.upper()} What?",
        " ".join(WORDS[30:80]),
        PASSAGE,
    ]
    assert clusters(texts) == [0, 1, 0, 3, 0]


def test_what_a_template_says_joins_nothing() -> None:
    """It stands in more texts than a passage would."""
    template = " ".join(WORDS[100:130])
    texts = [f"{template} {number}" for number in range(60)]
    assert clusters(texts) == list(range(60))


def test_a_tenth_is_held_out_and_always_the_same() -> None:
    found = [held(f"key {number}") for number in range(5000)]
    assert 0.08 < sum(found) / len(found) < 0.12
    assert found == [held(f"key {number}") for number in range(5000)]


NUMBER: Row = {"kind": "gsm8k", "prompt": "How many apples are left of two?", "answer": "2 - 1 = 1\n#### 1,000"}
CHOICE: Row = {"kind": "paws_labeled", "prompt": "Do they mean the same? Yes or No?", "answer": "No"}
PASSAGED: Row = {"kind": "quoref", "prompt": "Ann met Bob in Rome. Where?", "answer": "Rome"}
FREE: Row = {"kind": "alpaca", "prompt": " ".join(WORDS[:30]), "answer": "Something new."}


@pytest.mark.parametrize(
    ("row", "kind", "good", "correct", "bad"),
    [
        (NUMBER, "number", "It is\n#### 7", "#### 1000", "#### seven"),
        (CHOICE, "choice", "Yes", "No", "No, they do not"),
        (PASSAGED, "passage", "bob", "Rome", "Paris"),
        (FREE, "free", "Anything.", "something new.", " ".join(WORDS[5:25])),
    ],
)
def test_an_answer_obeys_in_the_form_that_is_asked(row: Row, kind: str, good: str, correct: str, bad: str) -> None:
    assert form(row) == kind
    assert obeys(row, said(good)) and obeys(row, said(correct)) and not obeys(row, said(bad))
    assert not obeys(row, said(good, "length")) and not obeys(row, said("  "))
    assert right(row, said(correct)) and not right(row, said(good))


SERVICE: Row = {
    "slots": [
        {"name": "city", "is_categorical": False, "possible_values": []},
        {"name": "price", "is_categorical": True, "possible_values": ["cheap", "dear"]},
    ],
    "intents": [
        {"name": "Find", "description": "Finds", "required_slots": ["city"], "optional_slots": {"price": "dontcare"}}
    ],
}
TOOLS = tools_of(SERVICE)


def test_calls_name_what_was_said() -> None:
    asked = {"method": "Find", "parameters": {"price": "cheap", "city": "New York"}}
    call = _call(asked, TOOLS, {"city": ["NYC"]}, "something cheap in nyc")
    assert call == {"type": "function", "function": {"name": "Find", "arguments": {"city": "NYC", "price": "cheap"}}}
    assert list(call["function"]["arguments"]) == ["city", "price"]  # as the schema has them
    assert _call(asked, TOOLS, {}, "something cheap") is None  # nobody said where
    anywhere = {"method": "Find", "parameters": {"price": "dontcare", "city": "Rome"}}
    found = _call(anywhere, TOOLS, {}, "in rome")
    assert found is not None and found["function"]["arguments"] == {"city": "Rome"}


def test_calls_are_judged_by_the_schema() -> None:
    row = {
        "tools": TOOLS,
        "completion": [
            {"tool_calls": [{"function": {"name": "Find", "arguments": {"city": "Rome", "price": "cheap"}}}]}
        ],
    }
    call = written_freely('<tool_call>\n{"name": "Find", "arguments": {"city": "Rome"}}\n</tool_call>')
    assert call == Call("Find", {"city": "Rome"}) and valid(row, call) and f1(row, call) == pytest.approx(2 / 3)
    for wrong in (
        Call("find", {"city": "Rome"}),
        Call("Find", {}),
        Call("Find", {"city": "Rome", "price": "free"}),
        None,
    ):
        assert not valid(row, wrong)
    for text in (
        "Rome it is.",
        "<tool_call>\n{}\n</tool_call>",
        "<tool_call>{</tool_call>",
        "<tool_call>[1]</tool_call>",
    ):
        assert written_freely(text) is None


def test_no_dialogue_is_trained_on_and_measured() -> None:
    services = ("Events_2", *UNSEEN)
    every = [{"kind": services[number % 4], "group": f"dialogue {number // 3}", "n": number} for number in range(900)]
    parts = chosen(every, lambda row: row["n"] % 7 > 0, 80, 30)
    train, seen, unseen = (parts[part] for part in ("train", "seen", "unseen"))
    assert len(train) == 80 and 0 < len(seen) <= 30 and 0 < len(unseen) <= 10
    assert all(row["n"] % 7 for part in parts.values() for row in part)
    assert {row["kind"] for row in (*train, *seen)} == {"Events_2"} and {row["kind"] for row in unseen} <= set(UNSEEN)
    assert not {row["group"] for row in train} & {row["group"] for row in (*seen, *unseen)}
