"""Tables for the terminal: numbers to the right, text to the left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from windlass.core.terminal import one_line, width


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()) -> str:
    """Lines of a table. Integers get thousands separators, floats two digits, None is a dash.

    Columns of numbers are aligned to the right, and so are those in `right`, whose numbers come as text. A row is one
    line, whatever its texts hold: names of files and documents are anybody's.
    """
    values = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in values]
    to_right = [i in right or any(isinstance(row[i], int | float) for row in values) for i in range(len(headers))]
    widths = [max(width(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]

    def line(texts: Sequence[str]) -> str:
        blanks = [" " * (wide - width(text)) for text, wide in zip(texts, widths, strict=True)]
        padded = (blank + text if right else text + blank for text, blank, right in zip(texts, blanks, to_right))
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), "  ".join("-" * width for width in widths), *map(line, cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return one_line(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
