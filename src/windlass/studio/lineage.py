"""Lineage as a drawing: from an answer or an artifact back to the documents it rests on, and on to what used it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from windlass.core.errors import NotFound
from windlass.core.records import ArtifactRecord
from windlass.core.workspace import Workspace
from windlass.studio.format import preview
from windlass.studio.layers import HEIGHT, WIDTH, layout
from windlass.studio.traces import spans_of
from windlass.studio.web import Visit

MAX_NODES = 120
"""Boxes drawn; the page says how many more there are."""


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    kind: str
    label: str
    detail: str
    address: str | None


def show(visit: Visit) -> Response:
    identifier = visit.path("id")
    record = visit.ws.store.artifact(identifier)
    if record is not None:
        nodes, edges, left_out = _family(visit.ws, [record.digest])
        chosen, title, address = record.digest, record.ref, f"/artifacts/{record.digest}"
    elif re.fullmatch(r"[0-9a-f]{6,32}", identifier):
        nodes, edges, left_out, chosen = _answer(visit, identifier)
        title, address = nodes[chosen].label, f"/traces/{chosen}"
    else:
        raise NotFound(
            f"There is nothing called '{identifier[:80]}' in this workspace.",
            "Lineage is drawn for an artifact or a trace.",
        )
    drawing = layout(list(nodes), [(a, b) for a, _, b in edges])
    return visit.page(
        "lineage.html",
        "",
        title=title,
        address=address,
        chosen=chosen,
        count=len(nodes),
        left_out=left_out,
        drawing=drawing,
        boxes=[(nodes[key], x, y) for key, (x, y) in drawing.boxes.items()],
        paths=[(path, role) for (_, _, path), (_, role, _) in zip(drawing.paths, edges, strict=True)],
        edges=[(nodes[a].label, role, nodes[b].label) for a, role, b in edges],
        box=(WIDTH, HEIGHT),
    )


Edges = list[tuple[str, str, str]]
"""(made from, role, gave), by node id."""


def _family(ws: Workspace, digests: list[str], *, descend: bool = True) -> tuple[dict[str, Node], Edges, int]:
    """Everything the artifacts were made from, and, when `descend`, what was made from them directly."""
    nodes: dict[str, Node] = {}
    edges: Edges = []
    waiting = list(dict.fromkeys(digests))
    while waiting and len(nodes) < MAX_NODES:
        digest = waiting.pop(0)
        if digest in nodes:
            continue
        record = ws.store.artifact(digest)
        nodes[digest] = _artifact_node(digest, record)
        for role, parent in record.parents if record else ():
            edges.append((parent, role, digest))
            waiting.append(parent)
    left_out = len(set(waiting) - set(nodes))
    if descend:
        for digest in digests:
            for role, child in ws.store.children(digest):
                if child.digest not in nodes and len(nodes) < MAX_NODES:
                    nodes[child.digest] = _artifact_node(child.digest, child)
                    edges.append((digest, role, child.digest))
    edges = [edge for edge in dict.fromkeys(edges) if edge[0] in nodes and edge[2] in nodes]
    return nodes, edges, left_out


def _artifact_node(digest: str, record: ArtifactRecord | None) -> Node:
    if record is None:
        return Node(digest, "unknown", digest[:12], "not in this workspace", None)
    return Node(digest, record.kind, record.ref, "", f"/artifacts/{digest}")


def _answer(visit: Visit, trace: str) -> tuple[dict[str, Node], Edges, int, str]:
    """An answer: the artifacts its spans name, and the documents it quotes."""
    spans = spans_of(visit, trace)
    root = next((s for s in spans if s.parent_id is None), spans[0])
    used: dict[str, str] = {}
    for span in spans:
        for key, value in span.attributes.items():
            if key.startswith("windlass.") and key.endswith(".digest") and isinstance(value, str):
                used.setdefault(value, key.split(".")[1])
    nodes, edges, left_out = _family(visit.ws, list(used), descend=False)
    inner = {a for a, _, _ in edges}
    label = preview(root.input) or root.name
    nodes[root.trace_id] = Node(root.trace_id, "answer", label, root.name, f"/traces/{root.trace_id}")
    # What reaches the answer through another artifact needs no arrow of its own.
    edges.extend((digest, role, root.trace_id) for digest, role in used.items() if digest not in inner)
    corpus = visit.studio.corpora.behind(next(iter(used), None))
    for cited in _cited(root.output):
        key = f"document {cited['document']}"
        place = urlencode({"id": cited["document"], "start": cited["start"], "end": cited["end"]})
        if key not in nodes:
            nodes[key] = Node(
                key,
                "document",
                str(cited.get("title", cited["document"])),
                "quoted",
                f"/artifacts/{corpus}/document?{place}#quote" if corpus else None,
            )
            edges.append((key, "quoted", corpus if corpus in nodes else root.trace_id))
    return nodes, edges, left_out, root.trace_id


def _cited(output: Any) -> list[Mapping[str, Any]]:
    held = output.get("citations", ()) if isinstance(output, Mapping) else ()
    return [c for c in held if isinstance(c, Mapping) and {"document", "start", "end"} <= set(c)]
