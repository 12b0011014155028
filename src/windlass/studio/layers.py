"""Layered drawing of a directed graph (Sugiyama, Tagawa and Toda 1981), small and without dependencies.

Nodes stand in columns, each to the right of everything it was made from. Edges that cross columns run through
invisible waypoints, so that they pass between boxes and not through them. Sweeps that sort each column by the mean
position of its neighbours remove most crossings.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 184, 50
"""Of a box, in pixels."""
GAP_X, GAP_Y = 48, 18
WAYPOINT = 8
"""Height that a passing edge takes in a column."""
MARGIN = 12
SWEEPS = 6


@dataclass(frozen=True, slots=True)
class Layout:
    width: int
    height: int
    boxes: Mapping[str, tuple[int, int]]
    """Node id -> left and top of its box."""
    paths: Sequence[tuple[str, str, str]]
    """(from, to, SVG path data), in the order of the edges."""


def layout(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> Layout:
    """Places `nodes`; an edge (a, b) puts a to the left of b. Edges that would close a circle bend backwards."""
    ranks = _ranks(nodes, edges)
    columns: list[list[Hashable]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for node in nodes:
        columns[ranks[node]].append(node)
    chains: list[list[Hashable]] = []
    for number, (a, b) in enumerate(edges):
        chain: list[Hashable] = [a]
        for column in range(ranks[a] + 1, ranks[b]):
            waypoint = (number, column)
            columns[column].append(waypoint)
            chain.append(waypoint)
        chains.append([*chain, b])
    _uncross(columns, chains)
    places, height = _place(columns)
    boxes = {node: places[node] for node in nodes}
    paths = [(a, b, _curve([places[point] for point in chain])) for (a, b), chain in zip(edges, chains, strict=True)]
    width = 2 * MARGIN + len(columns) * (WIDTH + GAP_X) - GAP_X
    return Layout(width, height, boxes, paths)


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


def _uncross(columns: list[list[Hashable]], chains: Sequence[Sequence[Hashable]]) -> None:
    before: dict[Hashable, list[Hashable]] = {}
    after: dict[Hashable, list[Hashable]] = {}
    for chain in chains:
        for a, b in itertools.pairwise(chain):
            before.setdefault(b, []).append(a)
            after.setdefault(a, []).append(b)
    for sweep in range(SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        spots = {item: i / max(1, len(column) - 1) for column in columns for i, item in enumerate(column)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            mean = {
                item: sum(spots[n] for n in near) / len(near) if (near := neighbours.get(item)) else spots[item]
                for item in column
            }
            column.sort(key=mean.__getitem__)
            spots.update({item: i / max(1, len(column) - 1) for i, item in enumerate(column)})


def _place(columns: Sequence[Sequence[Hashable]]) -> tuple[dict[Hashable, tuple[int, int]], int]:
    def tall(item: Hashable) -> int:
        return WAYPOINT if isinstance(item, tuple) else HEIGHT

    heights = [sum(tall(i) for i in column) + GAP_Y * max(0, len(column) - 1) for column in columns]
    whole = max(heights, default=0)
    places: dict[Hashable, tuple[int, int]] = {}
    for number, (column, height) in enumerate(zip(columns, heights, strict=True)):
        y = MARGIN + (whole - height) // 2
        for item in column:
            places[item] = (MARGIN + number * (WIDTH + GAP_X), y)
            y += tall(item) + GAP_Y
    return places, whole + 2 * MARGIN


def _curve(points: Sequence[tuple[int, int]]) -> str:
    """From the right side of the first box, straight through the columns of the waypoints, to the last box's left."""
    (x, y), *middle, (last_x, last_y) = points
    here = (x + WIDTH, y + HEIGHT // 2)
    path = f"M{here[0]} {here[1]}"
    for point_x, point_y in [*middle, (last_x, last_y + HEIGHT // 2 - WAYPOINT // 2)]:
        there = (point_x, point_y + WAYPOINT // 2)
        half = (here[0] + there[0]) // 2
        path += f"C{half} {here[1]} {half} {there[1]} {there[0]} {there[1]}"
        if (point_x, point_y) in middle:
            path += f"h{WIDTH}"
            there = (there[0] + WIDTH, there[1])
        here = there
    return path
