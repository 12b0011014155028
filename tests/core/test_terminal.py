"""What a terminal shows, and what must not reach it."""

from __future__ import annotations

import io

import pytest

from windlass.core.tables import table
from windlass.core.terminal import colourful, columns, cut, one_line, width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "wide"), [("pump", 4), ("水泵", 4), ("e\u0301", 1), ("🙂", 2), ("a\u200db", 2), ("", 0)]
)
def test_width_is_in_columns(text: str, wide: int) -> None:
    assert width(text) == wide


def test_a_line_is_cut_to_columns() -> None:
    assert cut("pump", 4) == "pump" and cut("pumps", 4) == "pum…"
    assert cut("水泵水泵", 5) == "水泵…" and width(cut("水泵水泵", 4)) <= 4


def test_nothing_in_a_line_steers_the_terminal() -> None:
    assert one_line("a\tb\nc") == "a b c"
    assert one_line("\x1b[31mred\x07\u202egnp.exe") == "�[31mred��gnp.exe"
    assert one_line("naïve 水") == "naïve 水"


def test_a_table_keeps_its_columns_whatever_its_texts_hold() -> None:
    text = table(("name", "count"), [("水泵", 1), ("a\tb\nc", 2), ("\x1b]0;title\x07", 3)])
    lines = text.split("\n")
    assert len(lines) == 5 and "\t" not in text and "\x1b" not in text
    assert {width(line) for line in lines} == {width(lines[0])}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colourful(Terminal()) is wanted
    assert not colourful(io.StringIO())


def test_an_unknown_width_is_that_of_old_terminals() -> None:
    assert columns(io.StringIO()) == 80
