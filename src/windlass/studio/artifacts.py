"""Artifacts: the list by kind, one with its card and family, its files, and the documents of a corpus."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from starlette.responses import FileResponse, Response

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.errors import InputError, NotFound
from windlass.studio.web import Visit

PAGE = 100
SHOWN = 60_000
"""Characters of a document on one page; the rest is a link away."""
README_SHOWN = 20_000
TEXT_FILES = {".json", ".jsonl", ".md", ".txt", ".toml", ".csv"}


def listing(visit: Visit) -> Response:
    kind = visit.query("kind")
    found = visit.ws.store.artifacts()
    return visit.page(
        "artifacts.html",
        "artifacts",
        kind=kind,
        kinds=sorted(Counter(a.kind for a in found).items()),
        artifacts=[a for a in found if kind in ("", a.kind)],
        limited=len(found) == 1000,
    )


def _artifact(visit: Visit) -> Artifact:
    return visit.ws.artifacts.get(visit.path("ref"))


def show(visit: Visit) -> Response:
    artifact = _artifact(visit)
    store = visit.ws.store
    readme = artifact.path / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if "README.md" in artifact.record.files else ""
    return visit.page(
        "artifact.html",
        "artifacts",
        artifact=artifact,
        readme=text[:README_SHOWN],
        readme_cut=len(text) > README_SHOWN,
        sizes={name: (artifact.path / name).stat().st_size for name in artifact.record.files},
        parents=[(role, digest, store.artifact(digest)) for role, digest in artifact.record.parents],
        children=store.children(artifact.digest),
    )


def download(visit: Visit) -> Response:
    """One file of an artifact, as text where it is text and as a download otherwise; never as a page."""
    artifact, name = _artifact(visit), visit.path("file")
    if name not in artifact.record.files:
        raise NotFound(f"{artifact.ref} has no file '{name[:120]}'.", "Its page lists its files.")
    if PurePosixPath(name).suffix in TEXT_FILES:
        return FileResponse(artifact.path / name, media_type="text/plain; charset=utf-8")
    return FileResponse(artifact.path / name, media_type="application/octet-stream", filename=PurePosixPath(name).name)


def documents(visit: Visit) -> Response:
    """The documents of a corpus, found by a part of their title or source."""
    artifact = _artifact(visit)
    wanted, page = visit.query("q"), visit.whole("page", 1, low=1)
    entries = visit.studio.corpora.entries(artifact)
    found = [e for e in entries.values() if wanted.lower() in f"{e.title}\n{e.source}".lower()]
    return visit.page(
        "documents.html",
        "artifacts",
        artifact=artifact,
        wanted=wanted,
        total=len(entries),
        count=len(found),
        entries=found[(page - 1) * PAGE : page * PAGE],
        page=page,
        more=len(found) > page * PAGE,
    )


def document(visit: Visit) -> Response:
    """A document's text with a span of it highlighted, cut to a window around the span when it is long."""
    artifact = _artifact(visit)
    found = visit.studio.corpora.document(artifact, visit.query("id"))
    page = f"/artifacts/{artifact.digest}"
    return reader(visit, found, "artifacts", [(artifact.ref, page), ("Documents", f"{page}/documents")])


def reader(visit: Visit, found: Document, here: str, crumbs: Sequence[tuple[str, str]]) -> Response:
    """The page of a text, with the span that the address names."""
    start, end = visit.whole("start", 0), visit.whole("end", 0)
    if not start <= end <= len(found.text):
        raise InputError(
            f"Characters {start} to {end} do not lie in '{found.title}', which has {len(found.text):,}.",
            "The quotation may be of another version of the text.",
        )
    middle = visit.whole("at", (start + end) // 2)
    low = 0 if len(found.text) <= SHOWN else max(0, min(middle - SHOWN // 2, len(found.text) - SHOWN))
    high = min(len(found.text), low + SHOWN)
    return visit.page(
        "document.html",
        here,
        crumbs=crumbs,
        document=found,
        start=start,
        end=end,
        low=low,
        high=high,
        pieces=pieces(found, start, end, low, high),
        before=max(0, low - SHOWN // 2) if low else None,
        after=min(len(found.text), high + SHOWN // 2) if high < len(found.text) else None,
    )


def pieces(document: Document, start: int, end: int, low: int, high: int) -> list[tuple[str, str, int]]:
    """The text from `low` to `high` as (kind, text, offset); kinds: `mark`, `section` where one begins, `text`."""
    begins = {s.start for s in document.sections if low <= s.start < high}
    cuts = sorted({low, high, *begins, *(c for c in (start, end) if low < c < high)})
    found: list[tuple[str, str, int]] = []
    for left, right in itertools.pairwise(cuts):
        if left in begins:
            found.append(("section", "", left))
        found.append(("mark" if start <= left and right <= end else "text", document.text[left:right], left))
    return found
