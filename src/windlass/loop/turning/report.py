"""The report of a turn as an artifact."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.core.artifacts import Artifact
from windlass.core.files import write_json
from windlass.core.workspace import Workspace
from windlass.loop.turning.page import Page
from windlass.loop.turning.page_html import html

KIND = "report"


def store_page(ws: Workspace, page: Page, parents: Sequence[tuple[str, Artifact]]) -> Artifact:
    """The page as an artifact: `report.md`, `report.html`, and `report.json` for programs."""
    with ws.artifacts.build(KIND, f"{page.task}-report") as draft:
        (draft.path / "report.md").write_text(page.markdown(), encoding="utf-8")
        (draft.path / "report.html").write_text(html(page), encoding="utf-8")
        write_json(draft.path / "report.json", page.to_json())
        for role, parent in parents:
            draft.add_parent(role, parent)
        draft.card = {"task": page.task, "promoted": page.promoted, "title": page.title, "done": page.done}
    return draft.done
