"""Tables for the terminal: numbers to the right, text to the left."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[int] = ()) -> str:
    """Lines of a table. Integers get thousands separators, floats two digits, None is a dash.

    Columns of numbers are aligned to the right, and so are those in `right`, whose numbers come as text.
    """
    values = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in values]
    to_right = [i in right or any(isinstance(row[i], int | float) for row in values) for i in range(len(headers))]
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]

    def line(texts: Sequence[str]) -> str:
        padded = [t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, to_right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), "  ".join("-" * width for width in widths), *map(line, cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
