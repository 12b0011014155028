"""The graph of a lineage. Every node names something the workspace holds; every edge says that its first end was made
from its second, in a role. Nothing is inferred: what is no longer there appears as missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError
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

    def leads(self, source: str, target: str) -> bool:
        """Whether edges lead from one node to the other, so far."""
        met, waiting = set[str](), [source]
        while waiting:
            if (node := waiting.pop()) == target:
                return True
            if node not in met:
                met.add(node)
                waiting += [below for above, below, _ in self._edges if above == node]
        return False

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


@lru_cache(maxsize=2)
def _documents(path: Path) -> dict[str, Document]:
    """A corpus never changes under its path, and a server draws many graphs over the same one."""
    return {document.id: document for document in read_documents(path)}


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
