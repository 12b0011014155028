from __future__ import annotations

import pytest
from constraint_world import llama_like, metaspace, trained, untidied_wordpiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from windlass.core.errors import Unsupported
from windlass.serve.engine.constraints.spelling import spell

KINDS = {"bpe": lambda: trained("bpe"), "unigram": lambda: trained("unigram"), "llama": llama_like, "meta": metaspace}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=20))
def test_the_bytes_of_the_tokens_of_a_text_are_the_text(kind: str, text: str) -> None:
    spelling = spell(KINDS[kind]())
    if "▁" in text or (kind == "meta" and not text.isascii()) or not text.isprintable():
        return  # SentencePiece writes a space with this letter, and not every vocabulary has all others
    assert spelling.text(spelling.encode(text)) == text.encode()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tokens_decode_to_their_bytes(kind: str, data: st.DataObject) -> None:
    tokenizer = KINDS[kind]()
    spelling = spell(tokenizer)
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=6))
    written = spelling.text(ids)
    try:
        text = written.decode()
    except UnicodeDecodeError:
        return
    if spelling.lead:
        text = text.removeprefix(" ")
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_write_nothing_unless_they_are_asked_for() -> None:
    tokenizer = trained("bpe")
    number = tokenizer.token_to_id("<tool>")
    assert spell(tokenizer).tokens[number] == b""
    assert number in spell(tokenizer).special
    shown = spell(tokenizer, ["<tool>"])
    assert shown.tokens[number] == b"<tool>"
    assert number not in shown.special
    assert shown.encode("a<tool>b") == [*shown.encode("a"), number, *shown.encode("b")]
    assert number not in spell(tokenizer).encode("a<tool>b")


def test_added_tokens_that_are_not_special_are_text() -> None:
    tokenizer = llama_like()
    assert spell(tokenizer).tokens[tokenizer.token_to_id("<tool_call>")] == b"<tool_call>"


def test_wordpiece_that_tidies_spaces_is_refused() -> None:
    with pytest.raises(Unsupported, match="tidies the spaces"):
        spell(trained("wordpiece"))


def test_wordpiece_without_tidying_writes_a_space_before_each_word() -> None:
    tokenizer = untidied_wordpiece()
    spelling = spell(tokenizer)
    assert spelling.text([tokenizer.token_to_id("cat"), tokenizer.token_to_id("##cat")]) == b" catcat"
    assert spelling.always_led


@pytest.mark.parametrize(
    ("decoder", "told"),
    [
        (None, "no decoder"),
        (decoders.BPEDecoder("</w>"), "'BPEDecoder'"),
        (decoders.CTC(), "'CTC'"),
        (decoders.Sequence([decoders.Fuse(), decoders.Replace("a", "bb"), decoders.Strip("c", 1, 1)]), "should write"),
    ],
)
def test_a_decoder_that_does_more_than_joining_is_refused(decoder: decoders.Decoder | None, told: str) -> None:
    vocab = {letter: place for place, letter in enumerate("abcdefgh")}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="a"))
    if decoder is not None:
        tokenizer.decoder = decoder
    with pytest.raises(Unsupported, match=told):
        spell(tokenizer)
