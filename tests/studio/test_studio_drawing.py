"""The geometry of the studio's drawings, and how it writes figures."""

from __future__ import annotations

import itertools
import math
import re
import time

import pytest

pytest.importorskip("starlette", reason="needs windlass[serve]")

from hypothesis import example, given
from hypothesis import strategies as st

from windlass.apply.rag.answers.showing import sources
from windlass.core.documents import Document, Section
from windlass.core.records import MetricPoint, SpanRecord
from windlass.core.scale import scale
from windlass.core.values import ChatResponse, Citation, Message
from windlass.studio import format as write
from windlass.studio.artifacts import pieces
from windlass.studio.ask import only_quotes, references, without_sources
from windlass.studio.layers import HEIGHT, WIDTH, layout
from windlass.studio.runs import MAX_POINTS, baselines, curves, thin
from windlass.studio.traces import waterfall

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


# scale ------------------------------------------------------------------------------------------------------------


@example([0.1])
@given(st.lists(FINITE, max_size=8))
def test_a_scale_holds_its_values_and_its_ticks(values: list[float]) -> None:
    made = scale(values)
    assert made.low < made.high
    assert all(0 <= made.at(value) <= 100 for value in values)
    assert 2 <= len(made.ticks) <= 12
    assert all(made.low <= tick <= made.high for tick in made.ticks)
    steps = {round((b - a) / (made.ticks[1] - made.ticks[0]), 6) for a, b in itertools.pairwise(made.ticks)}
    assert steps == {1.0}


def test_a_scale_keeps_order_and_bounds_what_nothing_bounds() -> None:
    made = scale([0.1, 0.2, math.inf, -math.inf])
    assert made.at(-math.inf) == 0 < made.at(0.1) < made.at(0.15) < made.at(0.2) < made.at(math.inf) == 100


# layers -----------------------------------------------------------------------------------------------------------

GRAPHS = st.integers(1, 14).flatmap(
    lambda n: st.tuples(
        st.just([f"n{i}" for i in range(n)]),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=30),
    )
)


@given(GRAPHS)
def test_boxes_never_overlap_and_arrows_point_down(graph: tuple[list[str], list[tuple[int, int]]]) -> None:
    nodes, pairs = graph
    edges = list(dict.fromkeys((f"n{min(a, b)}", f"n{max(a, b)}") for a, b in pairs if a != b))
    made = layout(nodes, edges)
    assert set(made.boxes) == set(nodes)
    for (ax, ay), (bx, by) in itertools.combinations(made.boxes.values(), 2):
        assert abs(ax - bx) >= WIDTH or abs(ay - by) >= HEIGHT
    for a, b in edges:
        assert made.boxes[a][1] + HEIGHT < made.boxes[b][1]
    for x, y in made.boxes.values():
        assert 0 <= x <= made.width - WIDTH
        assert 0 <= y <= made.height - HEIGHT
    assert [(a, b) for a, b, _ in made.paths] == edges


@given(GRAPHS)
def test_circles_are_drawn_too(graph: tuple[list[str], list[tuple[int, int]]]) -> None:
    nodes, pairs = graph
    edges = list(dict.fromkeys((f"n{a}", f"n{b}") for a, b in pairs if a != b))
    made = layout(nodes, edges)
    assert len(made.paths) == len(edges)


def test_an_edge_over_a_row_passes_between_its_boxes() -> None:
    nodes = ["top", *(f"m{i}" for i in range(5)), "end"]
    edges = [("top", f"m{i}") for i in range(5)] + [(f"m{i}", "end") for i in range(5)] + [("top", "end")]
    made = layout(nodes, edges)
    path = next(p for a, b, p in made.paths if (a, b) == ("top", "end"))
    x = int(re.findall(r" (\d+) \d+V", path)[0])
    for node in nodes[1:-1]:
        left = made.boxes[node][0]
        assert not left <= x <= left + WIDTH


# waterfall --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=20))
def test_every_span_has_a_bar_within_the_track(made: list[tuple[int, int, int]]) -> None:
    spans = [
        SpanRecord("t", f"{i}", None if parent >= i else f"{parent}", "s", "chat", at, at + took, "ok", None, {})
        for i, (parent, at, took) in enumerate(made)
    ]
    rows = waterfall(spans)
    assert sorted(row.span.span_id for row in rows) == sorted(s.span_id for s in spans)
    depth = {row.span.span_id: row.depth for row in rows}
    order = [row.span.span_id for row in rows]
    for row in rows:
        assert 0 <= row.left < 100
        assert row.width > 0
        assert row.left + row.width <= 100.0001
        if row.span.parent_id is not None:
            assert depth[row.span.span_id] == depth[row.span.parent_id] + 1
            assert order.index(row.span.parent_id) < order.index(row.span.span_id)


def test_a_span_whose_parent_is_lost_still_shows() -> None:
    lost = SpanRecord("t", "a", "gone", "s", "chat", 5, 6, "ok", None, {})
    assert [(row.span.span_id, row.depth) for row in waterfall([lost])] == [("a", 0)]


# text -------------------------------------------------------------------------------------------------------------


def quoted(*quotes: str, text: str) -> ChatResponse:
    cited = [Citation("d", "t", "h", 0, len(q), q) for q in quotes]
    return ChatResponse("r", "m", Message("assistant", text), "stop", citations=cited)


def test_references_are_those_of_quotations_that_exist() -> None:
    assert references("A [1], b [3] and [0].", 2) == [("A ", None), ("[1]", 1), (", b ", None), ("[3]", None),
                                                      (" and ", None), ("[0]", None), (".", None)]  # fmt: skip
    assert references("", 2) == []


@pytest.mark.parametrize(
    ("text", "alone"),
    [("One. [1]\n\nTwo. [2]", True), ("“One.” [1]", True), ("So: One. [1]", False), ("", True), ("Two", False)],
)
def test_an_answer_of_nothing_but_quotations_is_known(text: str, alone: bool) -> None:
    assert only_quotes(quoted("One.", "Two.", text=text)) is alone


def test_the_list_of_sources_is_left_to_the_page() -> None:
    response = quoted("One.", "Two.", text="")
    text = f"“One.” [1]\n\n“Two.” [2]\n\n{sources(response.citations)}"
    response = quoted("One.", "Two.", text=text)
    assert without_sources(response) == "“One.” [1]\n\n“Two.” [2]"
    assert only_quotes(response)


def test_an_answer_without_quotations_is_not_only_quotations() -> None:
    assert only_quotes(quoted(text="")) is False


@given(st.text(max_size=60), st.data())
def test_pieces_of_a_document_are_its_text_with_the_span_marked(text: str, data: st.DataObject) -> None:
    low, start, end, high = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=4, max_size=4)))
    begins = data.draw(st.sets(st.integers(0, len(text)), max_size=4))
    document = Document("d", "s", "t", text, sections=[Section(at, 1, "h") for at in sorted(begins)])
    made = pieces(document, start, end, low, high)
    assert "".join(piece for _, piece, _ in made) == text[low:high]
    assert "".join(piece for kind, piece, _ in made if kind == "mark") == text[start:end]
    assert {at for kind, _, at in made if kind == "section"} == {at for at in begins if low <= at < high}


# curves -----------------------------------------------------------------------------------------------------------


def test_long_series_are_thinned_evenly_from_first_to_last() -> None:
    points = [MetricPoint(step, "loss", float(step), 0.0) for step in range(20_000)]
    kept = thin(points)
    assert len(kept) == MAX_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    gaps = {b.step - a.step for a, b in itertools.pairwise(kept)}
    assert max(gaps) - min(gaps) <= 1
    (curve,) = curves(points, {})
    assert curve["points"] == 20_000


def test_a_value_that_is_no_number_leaves_a_gap() -> None:
    (curve,) = curves([MetricPoint(0, "loss", 1.0, 0.0), MetricPoint(1, "loss", math.nan, 0.0)], {})
    assert curve["values"] == [1.0, None]
    assert curve["last"] is None


# figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (write.number(None), "–"), (write.number(0), "0"), (write.number(1234567), "1,234,567"),
        (write.number(0.123456), "0.1235"), (write.number(math.inf), "inf"), (write.number(True), "true"),
        (write.cost(None), "–"), (write.cost(0), "$0.00"), (write.cost(0.00031), "$0.00031"),
        (write.cost(12.3), "$12.30"),
        (write.duration(None), "–"), (write.duration(0.0421), "42 µs"), (write.duration(12.34), "12.3 ms"),
        (write.duration(999.7), "1 s"), (write.duration(1500), "1.5 s"), (write.duration(59_999), "60 s"),
        (write.duration(61_000), "1 min 1 s"), (write.duration(3_720_000), "1 h 2 min"),
        (write.size(None), "–"), (write.size(999), "999 B"), (write.size(13_504_131), "13.5 MB"),
        (write.signed(-0.0871), "−0.087"), (write.signed(None), "–"), (write.short(None), "–"),
        (write.slug("NO-GO"), "no-go"), (write.slug('x" onload='), "x--onload-"),
        (write.preview([{"role": "user", "content": "One\n two"}, {"role": "assistant", "content": "x"}]), "One two"),
        (write.preview({"query": "q" * 200}, 10), "q" * 9 + "…"), (write.preview(None), ""),
        (write.preview({"a": 1}), '{"a": 1}'),
    ],
)  # fmt: skip
def test_figures_read_well(made: str, text: str) -> None:
    assert made == text


def test_ages_carry_the_exact_moment() -> None:
    now = time.time()
    assert "just now" in write.when(now)
    assert "5 min ago" in write.when(now - 300)
    assert "3 h ago" in write.when(now - 3 * 3600)
    assert "4 d ago" in write.when(now - 4 * 86_400)
    assert 'title="1970-01-01 00:00:00 UTC">1970-01-01' in write.when(0.0)
    assert write.when(None) == "–"


def test_baselines_come_from_the_cards_of_what_the_run_made() -> None:
    from windlass.core.records import ArtifactRecord, RunRecord

    run = RunRecord("r", "pretrain", "n", "done", 0.0, 1.0, {}, {})
    card = {"baselines": {"gzip -9": 2.5, "note": "text is no baseline"}}
    made = ArtifactRecord("d", "model", "m", 1, 0.0, 0, {}, card, [])
    assert baselines(run, [made]) == {"gzip -9": 2.5}
