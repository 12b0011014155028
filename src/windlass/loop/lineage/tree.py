"""A lineage as text."""

from __future__ import annotations

from windlass.loop.lineage.graph import LineageGraph
from windlass.loop.text import shortened

_VERDICTS = {
    True: "equal to the document's text",
    False: "NOT equal to the document's text",
    None: "not compared: the document is not here any more",
}


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
            verdict = _VERDICTS[node.detail["verbatim"]]
            lines.append(f"{inner}{'│  ' if children else '   '}  {verdict}")
        for position, (child_role, child) in enumerate(children, start=1):
            show(child, child_role, inner, position == len(children), False)

    show(graph.root, "", "", True, True)
    return "\n".join(lines)
