from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")
pytest.importorskip("torch")

from engine_world import byte_tokenizer
from tokenizers import Tokenizer, decoders, models

from windlass.core.errors import InputError
from windlass.serve.engine.dialect.dialect import Dialect
from windlass.serve.engine.text import ByteDecoder, Characters, Detokenizer, StopStrings, Text

BYTE_LEVEL = byte_tokenizer()


def decoders_of(tokenizer: Tokenizer) -> list[Characters]:
    dialect = Dialect.of(None)
    return [Detokenizer(dialect.decoder(tokenizer)), dialect.characters(tokenizer)()]


def sentencepiece_like() -> Tokenizer:
    """A word at the start loses its leading space, unknown characters are single bytes: the decoder of Llama 2."""
    vocabulary = {"<unk>": 0, "▁a": 1, "▁cat": 2, "s": 3, **{f"<0x{i:02X}>": i + 4 for i in range(256)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


LLAMA = sentencepiece_like()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 290), max_size=40))
def test_pieces_of_any_bytes_add_up_to_the_whole(ids: list[int]) -> None:
    """Also behind the end of the vocabulary, where a model may have more tokens than its tokenizer."""
    for text in decoders_of(BYTE_LEVEL):
        pieces = [text.push(token) for token in ids]
        assert "".join(pieces) + text.finish() == BYTE_LEVEL.decode(ids)


def test_bytes_are_known_where_a_text_is_their_sum_and_only_there() -> None:
    assert [type(text) for text in decoders_of(BYTE_LEVEL)] == [Detokenizer, ByteDecoder]
    assert [type(text) for text in decoders_of(LLAMA)] == [Detokenizer, Detokenizer]


def test_a_token_that_was_added_writes_itself() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["Ġspace", "日本", "plain word"])
    ids = [BYTE_LEVEL.token_to_id("a"), *(tokenizer.token_to_id(word) for word in ("Ġspace", "日本", "plain word"))]
    for text in decoders_of(tokenizer):
        assert "".join(text.push(token) for token in ids) + text.finish() == tokenizer.decode(ids)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.text("é日🎈\ufffda", max_size=4).map(str.encode), st.binary(max_size=50)), max_size=20),
    st.integers(0, 3),
)
def test_pieces_add_up_however_long_no_character_is_whole(stretches: list[bytes], shift: int) -> None:
    """Bytes of whole and broken characters in any order, one or up to four in a token."""
    raw = b"".join(stretches)
    chunks = [raw[:shift], *(raw[i : i + shift + 1] for i in range(shift, len(raw), shift + 1))]

    def decode(places: Sequence[int]) -> str:
        return b"".join(chunks[place] for place in places).decode(errors="replace")

    text = Detokenizer(decode)
    assert "".join(text.push(place) for place in range(len(chunks))) + text.finish() == raw.decode(errors="replace")


@pytest.mark.parametrize("word", ["\x80", "\xe6\x97", "\xa5\xe6\x97"], ids=["continuations", "heads", "straddling"])
def test_the_window_stays_short_in_bytes_that_are_no_text(word: str) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return (word.encode("latin1") * len(ids)).decode(errors="replace")

    text = Detokenizer(decode)
    shown = "".join(text.push(0) for _ in range(500))
    assert shown + text.finish() == (word.encode("latin1") * 500).decode(errors="replace")
    assert longest <= 70 and len(shown) > 450


WORDS = [[1], [2], [3], *([byte + 4 for byte in character.encode()] for character in "é日🎈")]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=15))
def test_pieces_add_up_with_another_decoder(words: list[list[int]]) -> None:
    ids = [token for word in words for token in word]
    text = Detokenizer(LLAMA.decode)
    pieces = [text.push(token) for token in ids]
    assert "".join(pieces) + text.finish() == LLAMA.decode(ids)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc äé日本🎈\n", max_size=30))
def test_pieces_of_valid_text_are_valid(original: str) -> None:
    text = Detokenizer(BYTE_LEVEL.decode)
    pieces = [text.push(token) for token in BYTE_LEVEL.encode(original).ids]
    assert "\ufffd" not in "".join(pieces) and "".join(pieces) == original and text.finish() == ""


def test_the_window_stays_short() -> None:
    longest = 0

    def decode(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return str(BYTE_LEVEL.decode(ids))

    text = Detokenizer(decode)  # type: ignore[arg-type]
    for token in BYTE_LEVEL.encode("the cat sat on the mat 🎈 " * 50).ids:
        text.push(token)
    assert longest <= 10


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.text(alphabet="ab", max_size=6), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=4),
    st.booleans(),
)
def test_the_stop_string_that_is_complete_first_cuts_however_the_text_is_split(
    pieces: list[str], stops: list[str], include: bool
) -> None:
    whole = "".join(pieces)
    ends = [(end, -len(stop), stop) for end in range(len(whole) + 1) for stop in stops if whole[:end].endswith(stop)]
    guard = StopStrings(stops, include=include)
    shown = ""
    for piece in pieces:
        shown += guard.push(piece)
        assert whole.startswith(shown)
        if guard.found is not None:
            break
    shown += guard.finish()
    if not ends:
        assert shown == whole and guard.found is None
    else:
        end, _, stop = min(ends)
        assert guard.found == stop and shown == whole[: end if include else end - len(stop)]


def test_text_is_held_back_only_while_it_may_be_a_stop_string() -> None:
    guard = StopStrings(["END"])
    assert [guard.push(p) for p in ("a", " E", "N", "x", "E", "ND!")] == ["a", " ", "", "ENx", "", ""]
    assert guard.found == "END" and guard.push("more") == "" and guard.finish() == ""


def test_a_stop_string_across_tokens_and_characters() -> None:
    for include, expected in ((False, "ab 日"), (True, "ab 日日本")):
        text = Text(Detokenizer(BYTE_LEVEL.decode), ["日本"], include_stop=include)
        shown = "".join(text.push(token) for token in BYTE_LEVEL.encode("ab 日日本 c").ids)
        assert (shown + text.finish(), text.stopped) == (expected, True)


def test_empty_stop_strings_are_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        StopStrings(["a", ""])
