"""Layered drawing of a directed graph (Sugiyama, Tagawa and Toda 1981), small and without dependencies.

Nodes stand in rows, each above everything it was made from. Edges that cross rows run through invisible waypoints,
so that they pass between boxes and not through them. Sweeps that sort each row by the mean position of its
neighbours remove most crossings.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 212, 50
"""Of a box, in pixels."""
GAP_X, GAP_Y = 20, 42
WAYPOINT = 8
"""Width that a passing edge takes in a row."""
MARGIN = 12
SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Layout:
    width: int
    height: int
    boxes: Mapping[str, tuple[int, int]]
    """Node id -> left and top of its box."""
    paths: Sequence[tuple[str, str, str]]
    """(from, to, SVG path data), in the order of the edges."""


def layout(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> Layout:
    """Places `nodes`; an edge (a, b) puts a above b. Edges that would close a circle bend backwards."""
    ranks = _ranks(nodes, edges)
    rows: list[list[Hashable]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for node in nodes:
        rows[ranks[node]].append(node)
    chains: list[list[Hashable]] = []
    for number, (a, b) in enumerate(edges):
        chain: list[Hashable] = [a]
        for row in range(ranks[a] + 1, ranks[b]):
            rows[row].append((number, row))
            chain.append((number, row))
        chains.append([*chain, b])
    _uncross(rows, chains)
    places, width = _place(rows)
    boxes = {node: places[node] for node in nodes}
    paths = [(a, b, _curve(places, chain)) for (a, b), chain in zip(edges, chains, strict=True)]
    return Layout(width, 2 * MARGIN + len(rows) * (HEIGHT + GAP_Y) - GAP_Y, boxes, paths)


def _ranks(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Longest path from a node without incoming edges; the visit order breaks circles."""
    incoming: dict[str, list[str]] = {node: [] for node in nodes}
    for a, b in edges:
        incoming[b].append(a)
    ranks: dict[str, int] = {}
    open_: set[str] = set()
    for first in nodes:
        stack = [first]
        while stack:
            node = stack[-1]
            if node in ranks:
                stack.pop()
                continue
            open_.add(node)
            waiting = [a for a in incoming[node] if a not in ranks and a not in open_]
            if waiting:
                stack.extend(waiting)
                continue
            ranks[node] = max((ranks[a] + 1 for a in incoming[node] if a in ranks), default=0)
            open_.discard(node)
            stack.pop()
    return ranks


def _uncross(rows: list[list[Hashable]], chains: Sequence[Sequence[Hashable]]) -> None:
    above: dict[Hashable, list[Hashable]] = {}
    below: dict[Hashable, list[Hashable]] = {}
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            above.setdefault(b, []).append(a)
            below.setdefault(a, []).append(b)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        spots = {item: i / max(1, len(row) - 1) for row in rows for i, item in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            mean = {
                item: sum(spots[n] for n in near) / len(near) if (near := neighbours.get(item)) else spots[item]
                for item in row
            }
            row.sort(key=mean.__getitem__)
            spots.update({item: i / max(1, len(row) - 1) for i, item in enumerate(row)})


def _wide(item: Hashable) -> int:
    return WAYPOINT if isinstance(item, tuple) else WIDTH


def _place(rows: Sequence[Sequence[Hashable]]) -> tuple[dict[Hashable, tuple[int, int]], int]:
    """Left and top of everything, each row centred; and the width of the whole."""
    widths = [sum(map(_wide, row)) + GAP_X * max(0, len(row) - 1) for row in rows]
    whole = max(widths, default=0)
    places: dict[Hashable, tuple[int, int]] = {}
    for number, (row, width) in enumerate(zip(rows, widths, strict=True)):
        x = MARGIN + (whole - width) // 2
        for item in row:
            places[item] = (x, MARGIN + number * (HEIGHT + GAP_Y))
            x += _wide(item) + GAP_X
    return places, whole + 2 * MARGIN


def _curve(places: Mapping[Hashable, tuple[int, int]], chain: Sequence[Hashable]) -> str:
    """From the underside of the first box, straight through the rows of the waypoints, to the top of the last box."""

    def centre(item: Hashable) -> int:
        return places[item][0] + _wide(item) // 2

    x, y = centre(chain[0]), places[chain[0]][1] + HEIGHT
    path = f"M{x} {y}"
    for item in chain[1:]:
        to_x, to_y = centre(item), places[item][1]
        half = (y + to_y) // 2
        path += f"C{x} {half} {to_x} {half} {to_x} {to_y}"
        x, y = to_x, to_y
        if isinstance(item, tuple):
            y += HEIGHT
            path += f"V{y}"
    return path
