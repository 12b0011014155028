"""PowerPoint presentations: a section for each slide, its text in the order of its shapes, tables as rows, notes.

Pictures and charts are left out; a slide that has no text besides them is named.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from windlass.core.documents import Document
from windlass.core.readers.blocks import Blocks, row_text
from windlass.core.readers.office.package import Package, document_of
from windlass.core.readers.office.xml_events import events
from windlass.core.readers.report import ReadReport

_TITLES = ("title", "ctrTitle")
_FURNITURE = ("sldNum", "dt", "ftr", "hdr", "sldImg")
"""Placeholders of what stands on every slide: its number, the date, a line below."""


def read_pptx(package: Package, main: str, name: str, report: ReadReport) -> Iterator[Document]:
    """The one document of a .pptx file. `metadata["slides"]` holds where each slide begins."""
    blocks = Blocks()
    title = ""
    for number, slide in enumerate(_slides(package, main), start=1):
        blocks.page()
        source = f"{name}#slide={number}"
        try:
            shapes = _shapes(package, slide)
            relations = package.relations(slide).values()
            diagrams = [r.target for r in relations if r.kind == "diagramData" and r.target in package]
            shapes += [shape for part in diagrams for shape in _shapes(package, part)]
            notes_part = package.related(slide, "notesSlide")
            notes = [] if notes_part is None else _shapes(package, notes_part)
        except (zipfile.BadZipFile, ValueError) as error:
            report.skip(source, "slide damaged", str(error))
            continue
        report.parts["slides"] += 1
        heading = next((shape.text for shape in shapes if shape.place in _TITLES and shape.text), "")
        bodies = [shape for shape in shapes if shape.place not in (*_TITLES, *_FURNITURE) and shape.lines]
        said = [shape for shape in notes if shape.place == "body" and shape.lines]
        if not heading and not bodies and not said:
            report.skip(source, "slide without text", "a picture? windlass does not read what it shows")
            continue
        blocks.heading(heading or f"Slide {number}", 1)
        title = title or heading
        for shape in bodies:
            for line, text in enumerate(shape.lines):
                blocks.add(text, tight=line > 0)
        for shape in said:
            blocks.add("Notes:\n" + "\n".join(shape.lines))
    if not blocks.length:
        report.skip(name, "empty", "no slide has text")
        return
    yield document_of(blocks, name, package, title=title, about={"slides": blocks.starts})


def _slides(package: Package, main: str) -> Iterator[str]:
    """The parts of the slides in the order in which they are shown."""
    relations = package.relations(main)
    with package.opened(main) as stream:
        for kind, tag, said in events(stream):
            if kind == "start" and tag == "sldId" and said is not None:
                relation = relations.get(said.get("r:id", ""))
                if relation is not None:
                    yield relation.target


@dataclass(slots=True)
class _Shape:
    place: str = ""
    """What the layout keeps the place for: `title`, `body`; '' for a shape of its own."""
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(self.lines)


def _shapes(package: Package, part: str) -> list[_Shape]:
    """The shapes of a slide that hold text, and its tables, each row a line."""
    shapes = [_Shape()]
    row: list[str] | None = None
    cell: list[str] | None = None
    words: list[str] = []
    in_text, fallback = False, 0
    with package.opened(part) as stream:
        for kind, tag, said in events(stream):
            if tag == "Fallback" and kind != "text":
                fallback += 1 if kind == "start" else -1
            elif fallback:
                continue
            elif kind == "text":
                if in_text:
                    words.append(tag)
            elif tag == "t":
                in_text = kind == "start"
            elif kind == "start":
                if tag in ("sp", "graphicFrame"):
                    shapes.append(_Shape())
                elif tag == "ph" and said is not None:
                    shapes[-1].place = said.get("type", "body")
                elif tag == "tr":
                    row = []
                elif tag == "tc":
                    cell = []
                elif tag == "br":
                    words.append(" " if shapes[-1].place in _TITLES else "\n")
            elif tag == "p":
                text = "".join(words).strip()
                words.clear()
                if cell is not None:
                    cell.append(text)
                elif text:
                    shapes[-1].lines.append(text)
            elif tag == "tc" and row is not None and cell is not None:
                row.append(" ".join(cell))
                cell = None
            elif tag == "tr" and row is not None:
                if any(row):
                    shapes[-1].lines.append(row_text(row))
                row = None
    return shapes
