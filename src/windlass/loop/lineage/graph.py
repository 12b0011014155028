"""Lineage: from an answer, a generated token or an artifact back to the documents it rests on.

Every node names something the workspace holds; every edge says that its first end was made from its second, in a
role. Nothing is inferred: what a trace does not name, or what is no longer there, appears as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from windlass.core import semconv
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError, NotFound
from windlass.core.records import SpanRecord
from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    """An artifact's digest, a trace or run id, or `kind:…` for what has no id of its own. Unique in its graph."""
    kind: str
    """`answer`, `token`, `citation`, `document`, `release`, `run`, `traces`, `embedder`, or an artifact's kind."""
    label: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LineageGraph:
    root: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str, str], ...]
    """(from, to, role): `from` was made from `to`."""

    def node(self, identifier: str) -> Node:
        return next(node for node in self.nodes if node.id == identifier)

    def to_json(self) -> dict[str, Any]:
        return {
            "root": self.root,
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [{"from": a, "to": b, "role": role} for a, b, role in self.edges],
        }


class GraphBuilder:
    """Collects nodes and edges once each, in the order in which they were first met."""

    def __init__(self, ws: Workspace) -> None:
        self.ws = ws
        self._nodes: dict[str, Node] = {}
        self._edges: dict[tuple[str, str, str], None] = {}

    def add(self, identifier: str, kind: str, label: str, **detail: Any) -> str:
        self._nodes.setdefault(identifier, Node(identifier, kind, label, detail))
        return identifier

    def edge(self, source: str, target: str, role: str) -> None:
        self._edges.setdefault((source, target, role))

    def graph(self, root: str) -> LineageGraph:
        return LineageGraph(root, tuple(self._nodes.values()), tuple(self._edges))

    # artifacts ------------------------------------------------------------------------------------------------------

    def artifact(self, digest: str) -> str:
        """Adds an artifact and everything behind it."""
        if digest in self._nodes:
            return digest
        record = self.ws.store.artifact(digest)
        if record is None:
            return self.add(digest, "missing", f"{digest[:12]} is not in this workspace")
        self.add(digest, record.kind, record.ref, digest=digest, created=record.created, size=record.size)
        if record.run is not None:
            self._run(digest, record.run)
        for role, parent in record.parents:
            self.edge(digest, self.artifact(parent), role)
        more = {"corpus": self._corpus, "dataset": self._dataset, "index": self._index, "variant": self._variant}
        if record.kind in more:
            more[record.kind](self.ws.artifacts.get(digest))
        return digest

    def _run(self, made: str, identifier: str) -> None:
        run = self.ws.store.run(identifier)
        if run is None:
            self.edge(made, self.add(identifier, "missing", f"run {identifier}"), "made by")
            return
        facts = {"status": run.status, "seed": run.seed, "revision": run.environment.get("revision")}
        self.edge(made, self.add(run.id, "run", run.id, **facts, config=dict(run.config)), "made by")

    def _corpus(self, corpus: Artifact) -> None:
        """A corpus may hold a hundred thousand sources: one node stands for all, cited ones get their own."""
        sources = sorted({document.source for document in self.documents(corpus.digest).values()})
        label = f"{len(sources):,} sources of {len(self.documents(corpus.digest)):,} documents"
        self.edge(corpus.digest, self.add(f"sources:{corpus.digest}", "sources", label, first=sources[:5]), "read from")

    def _dataset(self, dataset: Artifact) -> None:
        """The traces that a harvested dataset was made of."""
        traces = [trace for row in _rows(dataset) for trace in row.get("traces", ())]
        if traces:
            label = f"{len(traces):,} scored traces"
            node = self.add(f"traces:{dataset.digest}", "traces", label, traces=traces)
            self.edge(dataset.digest, node, "harvested from")

    def _index(self, index: Artifact) -> None:
        path = index.path / "index.json"
        described = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if described.get("embedder"):
            digest = described["embedder"]
            label = f"{described.get('embedder_name', 'embedder')} ({digest[:12]})"
            self.edge(index.digest, self.add(f"embedder:{digest}", "embedder", label, digest=digest), "embedded by")

    def _variant(self, variant: Artifact) -> None:
        """How the variant came to be served, and on what evidence."""
        for row in self.ws.store.releases():
            if row.variant == variant.digest and row.action == "promote":
                label = f"release {row.id} of {row.task}"
                self.add(f"release:{row.id}", "release", label, reason=row.reason, at=row.at)
                self.edge(variant.digest, f"release:{row.id}", "promoted by")
                if row.experiment is not None:
                    self.edge(f"release:{row.id}", self.artifact(row.experiment), "allowed by")

    # documents ------------------------------------------------------------------------------------------------------

    def documents(self, corpus: str) -> dict[str, Document]:
        return _documents(self.ws.artifacts.get(corpus).path / "documents.jsonl")

    def document(self, corpus: str, identifier: str) -> str:
        known = self.documents(corpus).get(identifier)
        if known is None:
            return self.add(f"document:{identifier}", "missing", f"{identifier} is not in the corpus")
        self.add(f"document:{identifier}", "document", known.title, id=identifier, source=known.source)
        self.edge(f"document:{identifier}", self.artifact(corpus), "in")
        return f"document:{identifier}"


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
        from windlass.loop.lineage.tokens import token_lineage

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


def find_spans(ws: Workspace, identifier: str) -> list[SpanRecord]:
    """The spans of a trace by its id or a unique prefix of 6 digits or more, or by the id of a response in it."""
    text = identifier.lower()
    if len(text) >= 6 and all(c in "0123456789abcdef" for c in text):
        return ws.store.trace(text)
    if not identifier.startswith("chatcmpl-"):
        return []
    offset, page = 0, 500
    while summaries := ws.store.traces(limit=page, offset=offset):
        for summary in summaries:
            spans = ws.store.trace(summary.root.trace_id)
            if any(span.attributes.get(semconv.RESPONSE_ID) == identifier for span in spans):
                return spans
        offset += page
    return []


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
    corpus = _corpus_behind(builder.ws, used.get("index"))
    for number, cited in enumerate(citations_of(root), start=1):
        label = f"[{number}] {cited.get('title') or cited['document']}, characters {cited['start']}-{cited['end']}"
        known = builder.documents(corpus).get(cited["document"]) if corpus else None
        node = builder.add(
            f"citation:{trace}:{number}",
            "citation",
            label,
            quote=cited.get("quote", ""),
            heading=cited.get("heading", ""),
            verbatim=known is not None and known.text[cited["start"] : cited["end"]] == cited.get("quote"),
        )
        builder.edge(trace, node, "quotes")
        if corpus:
            builder.edge(node, builder.document(corpus, cited["document"]), "from")
    for role in ("variant", "index", "adapter", "model"):
        if role in used:
            reached = any(used[role] == node.id for node in builder.graph(trace).nodes)
            digest = builder.artifact(used[role])
            if not reached:
                builder.edge(trace, digest, role)
    return trace


def _corpus_behind(ws: Workspace, index: str | None) -> str | None:
    record = ws.store.artifact(index) if index else None
    return next((digest for role, digest in record.parents if role == "corpus"), None) if record else None


@lru_cache(maxsize=2)
def _documents(path: Path) -> dict[str, Document]:
    """A corpus never changes under its path, and a server draws many graphs over the same one."""
    return {document.id: document for document in read_documents(path)}


# reading spans ------------------------------------------------------------------------------------------------------


def asked(span: SpanRecord) -> str:
    """The text of the last user message of a span's input; '' when there is none."""
    messages = span.input if isinstance(span.input, list) else []
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            content = message.get("content", "")
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return ""


def answered(span: SpanRecord) -> str:
    """The text that a span put out; '' when there is none."""
    output = span.output
    if isinstance(output, str):
        return output
    return str(output.get("content") or output.get("answer") or "") if isinstance(output, Mapping) else ""


def citations_of(span: SpanRecord) -> list[dict[str, Any]]:
    held = span.output.get("citations", ()) if isinstance(span.output, Mapping) else ()
    return [dict(c) for c in held if isinstance(c, Mapping) and {"document", "start", "end"} <= set(c)]


def shortened(text: str, length: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _rows(dataset: Artifact) -> Iterable[dict[str, Any]]:
    path = dataset.path / "items.jsonl"
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON ({error}).") from error


# as text ------------------------------------------------------------------------------------------------------------


def render_tree(graph: LineageGraph) -> str:
    """The graph as an indented tree. What was printed above already is only named again."""
    below: dict[str, list[tuple[str, str]]] = {}
    for source, target, role in graph.edges:
        below.setdefault(source, []).append((role, target))
    nodes = {node.id: node for node in graph.nodes}
    printed: set[str] = set()
    lines: list[str] = []

    def show(identifier: str, role: str, indent: str, last: bool, top: bool) -> None:
        node = nodes[identifier]
        branch = "" if top else ("└─ " if last else "├─ ")
        digest = f" · {node.id[:12]}" if node.detail.get("digest") == node.id else ""
        seen = identifier in printed
        children = below.get(identifier, [])
        again = "  (above)" if seen and children else ""
        said = f"{role}: " if role else ""
        lines.append(f"{indent}{branch}{said}{node.kind} {node.label}{digest}{again}")
        if seen:
            return
        printed.add(identifier)
        inner = indent if top else indent + ("   " if last else "│  ")
        for key in ("quote", "matched", "source", "reason", "revision", "occurrences"):
            value = node.detail.get(key)
            if value:
                lines.append(f"{inner}{'│  ' if children else '   '}  {key}: {shortened(str(value), 100)}")
        if node.kind == "citation":
            verdict = "equal to the document's text" if node.detail["verbatim"] else "NOT equal to the document's text"
            lines.append(f"{inner}{'│  ' if children else '   '}  {verdict}")
        for position, (child_role, child) in enumerate(children, start=1):
            show(child, child_role, inner, position == len(children), False)

    show(graph.root, "", "", True, True)
    return "\n".join(lines)
