"""Curves with axes for the terminal, drawn in Braille: every character is a field of 2 x 4 dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from windlass.core.scale import Scale, scale

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bit of each dot of a Braille character, by row and column (Unicode 2800-28FF)."""
_COLOURS = (36, 33, 35, 32, 34, 31)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MANY = 20

Series = Sequence[tuple[float, float]]
"""Points (x, y) in order of x."""


def chart(
    curves: Mapping[str, Series],
    *,
    width: int = 72,
    height: int = 14,
    x_label: str = "step",
    colour: bool = False,
) -> str:
    """The curves over each other. Several are told apart by colour, or without it by letters.

    `width` and `height` are those of the field between the axes, in characters. Points that are not finite leave a gap.
    The first tenth of a long curve that falls may leave the field: what matters is behind it.
    """
    finite: dict[str, Series] = {}
    for name, points in curves.items():
        if kept := [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]:
            finite[name] = kept
    if not finite:
        return "(no finite values)"
    xs = [x for points in finite.values() for x, _ in points]
    low, high = min(xs), max(xs)
    y_scale = scale([y for points in finite.values() for y in _settled(points)], wanted=max(3, height // 3))
    canvas = _Canvas(width, height)
    for number, points in enumerate(finite.values()):
        _draw(canvas, number, points, low, high, y_scale)
    several = len(finite) > 1
    labels = _tick_labels(y_scale, height)
    margin = max(map(len, labels.values())) + 1
    lines = [
        f"{labels.get(r, ''):>{margin - 1}} {'┤' if r in labels else '│'}"
        + canvas.row(r, several and colour, several and not colour)
        for r in range(height)
    ]
    lines.append(" " * margin + "└" + "─" * width)
    lines.append(" " * (margin + 1) + _x_axis(low, high, width, x_label))
    if several:
        marks = [f"\x1b[{_COLOURS[i % 6]}m━\x1b[0m" if colour else _LETTERS[i % 26] for i in range(len(finite))]
        lines.append(" " * (margin + 1) + "   ".join(f"{mark} {name}" for mark, name in zip(marks, finite)))
    return "\n".join(lines)


def _settled(points: Series) -> list[float]:
    """The values that the scale is made for."""
    values = [y for _, y in points]
    falls = len(values) > _MANY and values[0] >= max(values[len(values) // 10 :])
    return values[len(values) // 10 :] if falls else values


class _Canvas:
    """Dots, and which curve drew last in each character."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._dots: dict[tuple[int, int], int] = {}
        self._owner: dict[tuple[int, int], int] = {}

    def dot(self, owner: int, x: int, y: int) -> None:
        """`y` counts from the top; what lies outside is not drawn."""
        if 0 <= x < 2 * self.width and 0 <= y < 4 * self.height:
            cell = (y // 4, x // 2)
            self._dots[cell] = self._dots.get(cell, 0) | _DOTS[y % 4][x % 2]
            self._owner[cell] = owner

    def row(self, number: int, colour: bool, letters: bool) -> str:
        text = []
        for column in range(self.width):
            bits = self._dots.get((number, column), 0)
            owner = self._owner.get((number, column), 0)
            sign = (_LETTERS[owner % 26] if letters else chr(0x2800 + bits)) if bits else " "
            text.append(f"\x1b[{_COLOURS[owner % 6]}m{sign}\x1b[0m" if colour and bits else sign)
        return "".join(text)


def _draw(canvas: _Canvas, owner: int, points: Series, low: float, high: float, y_scale: Scale) -> None:
    """Means of the points in each column of dots, joined by lines."""
    columns = 2 * canvas.width
    heaps: dict[int, list[float]] = {}
    for x, y in points:
        place = 0 if high == low else round((x - low) / (high - low) * (columns - 1))
        heaps.setdefault(place, []).append(y)
    before: tuple[int, int] | None = None
    for x, ys in sorted(heaps.items()):
        mean = sum(ys) / len(ys)
        share = (mean - y_scale.low) / (y_scale.high - y_scale.low)
        y = round((1 - share) * (4 * canvas.height - 1))
        for at_x, at_y in _line(before or (x, y), (x, y)):
            canvas.dot(owner, at_x, at_y)
        before = (x, y)


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """All dots from start to end."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (start[0] + round((end[0] - start[0]) * i / count), start[1] + round((end[1] - start[1]) * i / count))
        for i in range(count + 1)
    ]


def _tick_labels(y_scale: Scale, height: int) -> dict[int, str]:
    """Row -> value of the tick that lies in it."""
    labels = {}
    for tick in y_scale.ticks:
        share = (tick - y_scale.low) / (y_scale.high - y_scale.low)
        labels[min(height - 1, max(0, round((1 - share) * (height - 1))))] = f"{tick:.6g}"
    return labels


def _x_axis(low: float, high: float, width: int, label: str) -> str:
    """First and last place, and in the middle what is counted."""
    left, right = short(low), short(high)
    return f"{left}{label.center(max(width - len(left) - len(right), len(label) + 2))}{right}"


def short(value: float) -> str:
    """A number in few characters: 950, 12.5k, 3.1M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and size > 1e3):
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"
