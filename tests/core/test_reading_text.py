"""Canonical text and decoding: one form for the same text, and nothing guessed in silence."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from windlass.core.readers.text import NotText, canonical, decode

ANY = st.text(st.characters(codec=None), max_size=200)
LINES = st.lists(st.sampled_from(["", " ", "\t", "a", "  b  ", "e\u0301", "\x00", "\x0c", "\r", "\ufeff"]), max_size=30)


@given(ANY | LINES.map("\n".join))
@example("\ud800")
@example("a\x00\u0301")
@example("\n\x00\n\n\n")
@example(" \n\u2028\n \x07 \n x")
def test_canonical_is_idempotent_valid_unicode_and_clean(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once
    once.encode("utf-8")
    assert "\n\n\n\n" not in once and "\r" not in once and "\x00" not in once
    assert not any(line != line.rstrip(" \t") for line in once.split("\n"))


def test_canonical_composes_and_keeps_what_matters() -> None:
    assert canonical("cafe\u0301\r\n\tindented  \r\n") == "café\n\tindented"
    assert canonical("a\n\n\n\n\n\nb") == "a\n\n\nb"
    assert canonical("\n\n  first") == "  first"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=300))
def test_utf8_is_decoded_as_it_is(text: str) -> None:
    if not text.startswith("\ufeff"):
        assert decode(text.encode()) == (text, "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    assert decode("Grüße, 世界".encode(encoding)) == ("Grüße, 世界", "")


def test_a_few_broken_bytes_are_replaced_and_counted() -> None:
    text, note = decode("Grüße ".encode() * 20 + b"\xff\xfe" + "über".encode())
    assert text.count("\ufffd") == 2 and "2 broken" in note


def test_legacy_western_text_is_read_and_said() -> None:
    assert decode("Ein Café für Ärzte.".encode("cp1252")) == (
        "Ein Café für Ärzte.",
        "not UTF-8: decoded as Windows-1252",
    )


def test_a_truncated_character_is_not_taken_for_another_encoding() -> None:
    text, note = decode(b"a long enough plain sentence, cut: \xe2\x82")
    assert text.endswith("\ufffd") and "1 broken" in note


def test_a_declared_encoding_is_used_and_a_false_one_is_not() -> None:
    data = "Привет, мир".encode("koi8-r")
    assert decode(data, "koi8-r") == ("Привет, мир", "decoded as koi8-r, as it declares")
    with pytest.raises(NotText, match="does not declare"):
        decode(data)
    with pytest.raises(NotText, match="does not declare"):
        decode(data, "no-such-encoding")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", b"\x01\x02\x03" * 50 + b"text", bytes(100)])
def test_binary_is_refused(data: bytes) -> None:
    with pytest.raises(NotText, match="binary"):
        decode(data)


def test_random_bytes_are_refused() -> None:
    with pytest.raises(NotText):
        decode(bytes((i * 197 + 31 * (i // 7)) % 256 or 1 for i in range(4000)))


@pytest.mark.parametrize("text", ["It’s naïve — “quoted”…", "Élan, Ångström, señor"])
@pytest.mark.parametrize("table", ["latin-1", "cp1252"])
def test_utf8_read_as_latin1_is_certain_where_it_left_control_characters(text: str, table: str) -> None:
    for char in text:
        slipped = "".join(
            bytes([b]).decode(table) if table == "latin-1" or b not in _UNUSED else chr(b) for b in char.encode()
        )
        certain = any("\x80" <= c <= "\x9f" for c in slipped)
        assert canonical(f"a{slipped}b") == (f"a{char}b" if certain else f"a{slipped}b")


_UNUSED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
"""Bytes that Windows-1252 gives no character."""
