"""Lineage as a drawing: from an answer, a generated token or an artifact back to the documents it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from windlass.core import semconv
from windlass.core.records import SpanRecord
from windlass.loop.lineage.following import lineage
from windlass.loop.lineage.graph import LineageGraph, Node
from windlass.loop.lineage.spans import answered, find_spans
from windlass.studio.ask import document_address
from windlass.studio.layers import HEIGHT, WIDTH, layout
from windlass.studio.traces import citations
from windlass.studio.web import Visit

MAX_NODES = 100
"""Boxes drawn; the page says how many more there are."""
MAX_TOKENS = 600
"""Tokens of a generated text offered for following back."""


@dataclass(frozen=True, slots=True)
class Box:
    node: Node
    x: int
    y: int
    address: str | None
    note: str
    """A second fact beside the kind."""


def show(visit: Visit) -> Response:
    identifier = visit.path("id")
    token = visit.whole("token", 0) if visit.query("token") else None
    visit.ws.recorder.flush()  # an answer of a moment ago can be followed at once
    graph = lineage(visit.ws, identifier, token=token)
    spans = find_spans(visit.ws, identifier)
    kept = {node.id: node for node in graph.nodes[:MAX_NODES]}
    edges = [edge for edge in graph.edges if edge[0] in kept and edge[1] in kept]
    edges += _used_for(visit, graph, kept)
    drawing = layout(list(kept), [(a, b) for a, b, _ in edges])
    addresses = _addresses(visit, graph, kept.values(), spans)
    root = kept[graph.root]
    return visit.page(
        "lineage.html",
        "traces" if spans else "artifacts",
        root=root,
        address=addresses.get(graph.root),
        left_out=len(graph.nodes) - len(graph.nodes[:MAX_NODES]),
        drawing=drawing,
        boxes=[Box(kept[key], x, y, addresses.get(key), _note(kept[key])) for key, (x, y) in drawing.boxes.items()],
        paths=[(path, role) for (_, _, path), (_, _, role) in zip(drawing.paths, edges, strict=True)],
        edges=[(kept[a], role, kept[b], _facts(kept[b].detail)) for a, b, role in edges],
        box=(WIDTH, HEIGHT),
        trace=spans[0].trace_id if spans else None,
        tokens=_tokens(visit, spans) if spans else [],
        token=token,
    )


def _used_for(visit: Visit, graph: LineageGraph, kept: dict[str, Node]) -> list[tuple[str, str, str]]:
    """What was made directly from the artifact that is looked at."""
    edges = []
    for role, child in visit.ws.store.children(graph.root):
        if child.digest not in kept and len(kept) < MAX_NODES:
            kept[child.digest] = Node(child.digest, child.kind, child.ref, {"created": child.created})
            edges.append((child.digest, graph.root, role))
    return edges


def _addresses(visit: Visit, graph: LineageGraph, nodes: Iterable[Node], spans: Sequence[SpanRecord]) -> dict[str, str]:
    """Node id -> page."""
    corpora = {a: b for a, b, role in graph.edges if role == "in"}
    quotes = {}
    if spans:
        root, index = _root(spans), _digest(spans, semconv.INDEX_DIGEST)
        for number, cited in enumerate(citations(root), start=1):
            quotes[f"citation:{root.trace_id}:{number}"] = document_address(visit.studio, index, cited)
    found: dict[str, str | None] = {}
    for node in nodes:
        if node.kind in ("answer", "token"):
            found[node.id] = f"/traces/{spans[0].trace_id}" if spans else None
        elif node.kind == "citation":
            found[node.id] = quotes.get(node.id)
        elif node.kind == "document" and node.id in corpora:
            found[node.id] = f"/artifacts/{corpora[node.id]}/document?{urlencode({'id': node.detail['id']})}"
        elif node.kind == "verbatim":
            found[node.id] = _place(node, graph, corpora)
        elif node.kind == "run":
            found[node.id] = f"/runs/{quote(node.id, safe='')}"
        elif node.kind == "release":
            found[node.id] = "/releases"
        elif node.kind == "sources":
            found[node.id] = f"/artifacts/{node.id.partition(':')[2]}/documents"
        elif node.kind == "traces":
            found[node.id] = f"/artifacts/{node.id.partition(':')[2]}"
        elif node.kind == "experiment":
            found[node.id] = f"/experiments/{node.id}"
        elif len(node.id) == 64 and node.kind != "missing":
            found[node.id] = f"/artifacts/{node.id}"
    return {key: address for key, address in found.items() if address}


def _place(node: Node, graph: LineageGraph, corpora: Mapping[str, str]) -> str | None:
    """The passage of the training text that a `verbatim` node stands for."""
    document = next((b for a, b, _ in graph.edges if a == node.id and b in corpora), None)
    start = node.id.rpartition(":")[2]
    if document is None or not start.isdigit():
        return None
    span = {"start": start, "end": int(start) + int(node.detail.get("length", 0))}
    known = next(n for n in graph.nodes if n.id == document)
    return f"/artifacts/{corpora[document]}/document?{urlencode({'id': known.detail['id'], **span})}#quote"


def _note(node: Node) -> str:
    if node.kind == "citation":
        return {True: "verbatim", False: "not verbatim"}.get(node.detail["verbatim"], "not compared")
    return str(node.detail.get("source") or node.detail.get("occurrences") or node.detail.get("status") or "")


def _facts(detail: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What the list below the drawing says of a box beyond its label."""
    return [
        (key, value) for key, value in detail.items() if key in ("quote", "matched", "source", "reason", "revision")
    ]


def _root(spans: Sequence[SpanRecord]) -> SpanRecord:
    return next((span for span in spans if span.parent_id is None), spans[0])


def _digest(spans: Sequence[SpanRecord], key: str) -> str | None:
    return next((span.attributes[key] for span in spans if span.attributes.get(key)), None)


def _tokens(visit: Visit, spans: Sequence[SpanRecord]) -> list[str]:
    """The text a model of this workspace wrote in the trace, cut into its tokens; empty when none did."""
    for span in spans:
        digest = span.attributes.get(semconv.MODEL_DIGEST)
        if span.operation in ("chat", "text_completion") and isinstance(digest, str):
            model = visit.ws.artifacts.find(digest)
            if model is not None and model.kind == "model" and "tokenizer.json" in model.record.files:
                from windlass.loop.lineage.tokens import token_spans

                text = answered(span)
                return [text[start:end] for start, end in token_spans(model, text)[:MAX_TOKENS]]
    return []
