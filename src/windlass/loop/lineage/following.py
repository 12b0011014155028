"""Lineage: from an answer, a generated token or an artifact back to the documents it rests on.

What a trace does not name appears as missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core.errors import NotFound
from windlass.core.records import SpanRecord
from windlass.core.workspace import Workspace
from windlass.loop.lineage.graph import GraphBuilder, LineageGraph
from windlass.loop.lineage.shelves import shelf_of
from windlass.loop.lineage.spans import answered, asked, citations_of, find_spans
from windlass.loop.lineage.tokens import token_lineage
from windlass.loop.text import shortened


def lineage(ws: Workspace, identifier: str, *, token: int | None = None) -> LineageGraph:
    """What a trace, a response or an artifact was made from, down to the source documents.

    `identifier` is a trace id (or a unique prefix), the id of a response, or anything that names an artifact. With
    `token`, the graph is that of one token (counted from 0) that a model of this workspace wrote in the trace.
    Raises `NotFound` when nothing has that name, `InputError` when the trace holds no such token.
    """
    spans = find_spans(ws, identifier)
    if token is not None:
        if not spans:
            raise NotFound(f"There is no trace '{identifier}'.", "`windlass traces` lists them.")
        return token_lineage(ws, spans, token)
    builder = GraphBuilder(ws)
    if spans:
        return builder.graph(_answer(builder, spans))
    artifact = ws.artifacts.find(identifier)
    if artifact is None:
        raise NotFound(
            f"There is no trace, response or artifact '{identifier}' in this workspace.",
            "`windlass traces` and `windlass artifacts` list what there is.",
        )
    return builder.graph(builder.artifact(artifact.digest))


def _answer(builder: GraphBuilder, spans: Sequence[SpanRecord]) -> str:
    root = next((span for span in spans if span.parent_id is None), spans[0])
    trace = root.trace_id
    question, answer = asked(root), answered(root)
    builder.add(trace, "answer", shortened(question or root.name), question=question, answer=answer, at=root.start_ns)
    used: dict[str, str] = {}
    for span in spans:
        for key, value in span.attributes.items():
            if key.startswith("windlass.") and key.endswith(".digest") and isinstance(value, str):
                used.setdefault(key.split(".")[1], value)
    citations = citations_of(root)
    shelf = shelf_of(builder, used.get("index"), [cited["document"] for cited in citations])
    for number, cited in enumerate(citations, start=1):
        label = f"[{number}] {cited.get('title') or cited['document']}, characters {cited['start']}-{cited['end']}"
        known = shelf.documents.get(cited["document"])
        node = builder.add(
            f"citation:{trace}:{number}",
            "citation",
            label,
            quote=cited.get("quote", ""),
            heading=cited.get("heading", ""),
            verbatim=shelf.compared(known, cited),
        )
        builder.edge(trace, node, "quotes")
        if shelf.node:
            builder.edge(node, shelf.add(builder, cited["document"]), "from")
    if shelf.living:
        del used["index"]
        builder.edge(trace, shelf.node, "index")
    for role in ("variant", "index", "adapter", "model"):
        if role in used:
            digest = builder.artifact(used[role])
            if not builder.leads(trace, digest):
                builder.edge(trace, digest, role)
    return trace
