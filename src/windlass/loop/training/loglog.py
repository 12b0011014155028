"""Curves on two logarithmic axes, as an SVG file that follows the reader's light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 130, 20, 56
_COLOURS = ("#0b6a8f", "#b3521e", "#7a4fc4", "#0b7f73", "#b3261e", "#84560a")
_STYLE = """text { font: 13px system-ui, sans-serif; fill: #535c64 } .grid { stroke: #8884 } .bar { stroke: #16191c }
@media (prefers-color-scheme: dark) { text { fill: #a5aeb7 } .bar { stroke: #e8eaed } }"""


@dataclass(frozen=True, slots=True)
class Curve:
    name: str
    line: Sequence[tuple[float, float]]
    points: Sequence[tuple[float, float]]


def loglog(
    curves: Sequence[Curve], bar: tuple[float, float, float] | None = None, *, x_label: str, y_label: str
) -> str:
    """Lines and points of each curve; `bar` (x, low, high) is an interval. All values must be positive."""
    everything = [p for curve in curves for p in (*curve.line, *curve.points)]
    everything += [(bar[0], bar[1]), (bar[0], bar[2])] if bar else []
    xs, ys = ([math.log10(p[axis]) for p in everything] for axis in (0, 1))
    x_low, x_high, y_low, y_high = *_room(xs), *_room(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        up = (math.log10(y) - y_low) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"><style>{_STYLE}</style>']
    for value in _ticks(x_low, x_high):
        x, y = at(value, 10**y_low)
        power = math.floor(math.log10(value) + 1e-9)
        parts.append(f'<path class="grid" d="M{x} {y}V{_TOP}"/>')
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{value / 10**power:.0f}e{power}</text>')
    for value in _ticks(y_low, y_high):
        x, y = at(10**x_low, value)
        parts.append(f'<path class="grid" d="M{x} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        path = "L".join("{} {}".format(*at(*point)) for point in curve.line)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += ['<circle cx="{}" cy="{}" r="4" fill="{}"/>'.format(*at(*point), colour) for point in curve.points]
        x, y = _WIDTH - _RIGHT + 14, _TOP + 14 + 20 * number
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 10}" y="{y}">{escape(curve.name)}</text>')
    if bar:
        (x, low), (_, high) = at(bar[0], bar[1]), at(bar[0], bar[2])
        parts.append(f'<path class="bar" d="M{x - 5} {low}h10M{x - 5} {high}h10M{x} {low}V{high}" fill="none"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(18 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten; every tenth of the range where these are too few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= math.log10(m * 10.0**p) <= high]
    if len(found) >= 3:
        return found
    step = 10 ** math.floor(math.log10((10**high - 10**low) / 4))
    first = math.ceil(10**low / step)
    return [
        i * step
        for i in range(first, math.floor(10**high / step) + 1, max(1, math.ceil((10**high - 10**low) / step / 8)))
    ]
