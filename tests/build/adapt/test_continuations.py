"""Texts that go on: all of what follows is learned and nothing of what is read, or the row is refused by name."""

from __future__ import annotations

import pytest
from engine_world import END, byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from windlass.build.adapt.data.continuations import ContinuationEncoder
from windlass.build.tokenizer import Specials
from windlass.core.errors import InputError

BYTES = byte_tokenizer()
SEPARATOR = BYTES.token_to_id(END)


def specials(bos: int | None) -> Specials:
    return Specials(bos=bos, eos=SEPARATOR)


@given(st.text(max_size=30), st.text(max_size=30), st.booleans())
def test_what_goes_on_is_learned_to_its_end_and_no_more(prompt: str, completion: str, begins: bool) -> None:
    encoder = ContinuationEncoder(BYTES, specials(SEPARATOR if begins else None))
    if not completion.strip() or not (prompt or begins):
        what = "completion" if prompt or begins else "prompt"
        with pytest.raises(InputError, match=f"row 3: the {what} is empty"):
            encoder.encode(prompt, completion, "row 3")
        return
    found, (turn,) = encoder.spelled(prompt, completion, "row 3")
    assert len(found.tokens) == len(found.learned) and found.learned.tolist() == sorted(found.learned.tolist())
    read, said = found.tokens[~found.learned].tolist(), found.tokens[found.learned].tolist()
    assert BYTES.decode(read) == prompt and BYTES.decode(said) == completion
    assert said[-1] == SEPARATOR and SEPARATOR not in said[:-1]
    assert read.count(SEPARATOR) == begins and read[:1] == ([SEPARATOR] if begins else read[:1])
    assert turn.text == completion and list(turn.places) == found.learned.nonzero()[0].tolist()
    assert len(turn.begins) == len(turn.places) and turn.begins[0] == 0
    assert list(turn.begins) == sorted(turn.begins) and turn.begins[-1] <= len(completion)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_no_token_spans_what_is_read_and_what_is_learned(prompt: str, completion: str) -> None:
    if not completion.strip():
        return
    encoder = ContinuationEncoder(BYTES, specials(None))
    found = encoder.encode(prompt, completion, "")
    assert found.tokens[~found.learned].tolist() == BYTES.encode(prompt).ids
    assert found.tokens[found.learned].tolist() == [*BYTES.encode(completion).ids, SEPARATOR]


def test_an_end_that_is_written_out_is_not_written_twice() -> None:
    found = ContinuationEncoder(BYTES, specials(None)).encode("the", f" cat{END}", "")
    assert found.tokens[found.learned].tolist().count(SEPARATOR) == 1


@pytest.mark.parametrize(("prompt", "completion", "what"), [("日本", "cat", "prompt"), ("cat", "日本", "completion")])
def test_a_text_of_which_no_token_is_read_is_refused(prompt: str, completion: str, what: str) -> None:
    """Tokenizers without bytes or an unknown token pass over what they do not know."""
    letters = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate("catsmehn")}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = ContinuationEncoder(letters, specials(None))
    with pytest.raises(InputError, match=f"row 3: .*{what}"):
        encoder.encode(prompt, completion, "row 3")
