from __future__ import annotations

import itertools

import pytest
import torch
from constraint_world import end_of, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.serve.engine.constraints.grammars import Grammars
from windlass.serve.engine.dialect.reasoning import KNOWN, Sections, Thinking, find_tags

TAGS = KNOWN[0]


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def read(text: str, cuts: list[int], *, inside: bool = False, calls: str | None = None) -> tuple[str, str]:
    sections = Sections(TAGS, inside=inside, calls=calls)
    parts = [sections.push(piece) for piece in split(text, cuts)] + [sections.finish()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


cuts = st.lists(st.integers(0, 200), max_size=10)


@settings(max_examples=150, deadline=None)
@given(cuts=cuts, thought=st.text("ab </think\n", max_size=12), answer=st.text("ab<>/think \n", max_size=12))
def test_reasoning_and_answer_come_apart_however_they_are_cut(cuts: list[int], thought: str, answer: str) -> None:
    if TAGS.close in thought + TAGS.close[:-1] or (thought + TAGS.close).find(TAGS.close) != len(thought):
        return
    text = f"{thought}</think>{answer}"
    assert read(text, cuts, inside=True) == (thought.strip(), answer.lstrip())
    assert read(f"\n<think>\n{text}", cuts) == (thought.strip(), answer.lstrip())


@settings(max_examples=150, deadline=None)
@given(cuts=cuts, thought=st.text("ab <|/cals>\n", max_size=12), answer=st.text("ab<|cals>/think \n", max_size=12))
def test_calls_end_reasoning_and_are_content_however_they_are_cut(cuts: list[int], thought: str, answer: str) -> None:
    if TAGS.close in thought or "<|calls|>" in thought or (thought + "<|calls|>").find("<|calls|>") != len(thought):
        return
    text = f"{thought}<|calls|>{answer}"
    assert read(text, cuts, inside=True, calls="<|calls|>") == (thought.strip(), f"<|calls|>{answer}")
    assert read(f"<think>{text}", cuts, calls="<|calls|>") == (thought.strip(), f"<|calls|>{answer}")
    assert read(text, cuts, inside=True) == (text.strip(), "") or TAGS.close in text, "only where it is said to"
    behind = f"{thought}</think>{text}"
    assert read(behind, cuts, inside=True, calls="<|calls|>") == (thought.strip(), text.lstrip())


@settings(max_examples=100, deadline=None)
@given(cuts=cuts, text=st.text("<think> a/", max_size=12))
def test_an_answer_without_reasoning_is_all_content(cuts: list[int], text: str) -> None:
    if not text.lstrip().startswith(TAGS.open):
        assert read(text, cuts) == ("", text)


def test_reasoning_that_never_ends_is_no_answer() -> None:
    assert read("I wonder </thi", [3], inside=True) == ("I wonder </thi", "")
    assert read("<think>", []) == ("", "")


def test_tags_show_in_the_template() -> None:
    assert find_tags("{% if '</think>' in content %}") == TAGS
    assert find_tags("[THINK]{{ x }}[/THINK]") == KNOWN[1]
    assert find_tags("{{ messages }}") is None


tokenizer = trained("bpe")
EOS = end_of(tokenizer)
OPEN, CLOSE = tokenizer.token_to_id("<tool>"), tokenizer.token_to_id("<|pad|>")  # any two tokens of their own
own = Grammars(tokenizer, [EOS])
SIZE = tokenizer.get_vocab_size()


def thinking(inside: bool = True, budget: int | None = None, answer: bool = True) -> Thinking:
    choice = own.choice(["cat", "cow"]) if answer else None
    return Thinking(choice, OPEN, CLOSE, inside=inside, ends=frozenset([EOS]), budget=budget)


def allowed(constraint: Thinking) -> list[int]:
    logits = torch.zeros(SIZE)
    constraint.allow(logits)
    return [number for number in range(SIZE) if logits[number] == 0]


def test_reasoning_is_free_and_the_answer_is_not() -> None:
    constraint = thinking()
    assert allowed(constraint) == [number for number in range(SIZE) if number != EOS]
    for token in own._spelling.encode("a cat]"):
        constraint.accept(token)
    assert not constraint.ended and constraint.forced() == []
    constraint.accept(CLOSE)
    assert allowed(constraint) == allowed_by_choice()
    while not constraint.ended:
        constraint.accept(allowed(constraint)[0])


def test_a_call_in_the_middle_of_a_thought_is_the_first_token_of_the_answer() -> None:
    cat = own._spelling.encode("cat")
    word = own._spelling.encode("a")[0]
    assert len({*cat, word}) > 1
    constraint = Thinking(own.choice(["cat"]), OPEN, CLOSE, inside=True, ends=frozenset([EOS]), calls=cat[0], budget=9)
    constraint.accept(word)
    for _ in range(3):  # what is taken back is written anew
        for token in cat:
            constraint.accept(token)
        assert allowed(constraint) == [EOS]
        constraint.rollback(len(cat))
        assert word in allowed(constraint) and constraint.forced() == []
    constraint.accept(CLOSE)
    assert allowed(constraint) == [cat[0]]
    constraint.rollback(2)
    assert len(allowed(constraint)) == SIZE - 1


def allowed_by_choice() -> list[int]:
    logits = torch.zeros(SIZE)
    own.choice(["cat", "cow"]).allow(logits)
    return [number for number in range(SIZE) if logits[number] == 0]


def test_an_answer_may_begin_with_reasoning_or_without() -> None:
    constraint = thinking(inside=False)
    assert allowed(constraint) == sorted([OPEN, *allowed_by_choice()])
    other = constraint.copy()
    other.accept(OPEN)
    assert EOS not in allowed(other) and len(allowed(other)) == SIZE - 1
    constraint.accept(allowed_by_choice()[0])
    assert OPEN not in allowed(constraint)


@pytest.mark.parametrize("inside", [False, True])
def test_a_budget_closes_the_section(inside: bool) -> None:
    constraint = thinking(inside, budget=2)
    if not inside:
        constraint.accept(OPEN)
    word = own._spelling.encode("a")[0]
    for _ in range(2):
        assert constraint.forced() == []
        constraint.accept(word)
    assert constraint.forced() == [CLOSE] == allowed(constraint)
    constraint.accept(CLOSE)
    assert allowed(constraint) == allowed_by_choice()


def test_a_budget_of_nothing_never_opens_the_section() -> None:
    assert OPEN not in allowed(thinking(inside=False, budget=0))
    assert thinking(budget=0).forced() == [CLOSE]
    with pytest.raises(InputError, match="-1"):
        thinking(budget=-1)


def test_a_budget_without_a_grammar_leaves_the_answer_free() -> None:
    constraint = thinking(budget=0, answer=False)
    constraint.accept(CLOSE)
    assert len(allowed(constraint)) == SIZE and not constraint.ended


def test_what_is_taken_back_is_as_if_it_had_not_been() -> None:
    constraint = thinking(budget=3)
    word = own._spelling.encode("a")[0]
    script = [word, word, CLOSE, allowed_by_choice()[0]]
    seen = []
    for token in script:
        seen.append(allowed(constraint))
        constraint.accept(token)
    for back in (1, 2, 4):
        constraint.rollback(back)
        assert allowed(constraint) == seen[len(script) - back]
        for token in script[-back:]:
            constraint.accept(token)
    assert len(constraint._states) == len(script)
