"""Tables for the terminal."""

from __future__ import annotations

from windlass.core.tables import table


def test_numbers_stand_right_and_unknown_is_a_dash() -> None:
    text = table(("name", "count", "share"), [("first", 1234, 0.5), ("the second", None, 12.345), ("x", 7, True)])
    assert text.split("\n") == [
        "name        count  share",
        "----------  -----  -----",
        "first       1,234   0.50",
        "the second      -  12.35",
        "x               7   True",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(("a", "bc"), []) == "a  bc\n-  --"
