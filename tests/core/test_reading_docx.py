"""Word documents: what python-docx wrote is read in its order, and what Word shows but does not write is there."""

from __future__ import annotations

import io
from pathlib import Path

import docx as python_docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_world import docx, read

from windlass.core.readers import canonical

WORDS = st.text(st.sampled_from("abcäß 漢e\u0301\u200b-.&<"), min_size=1, max_size=30).filter(str.strip)
STYLES = ("Normal", "Heading 1", "Heading 3", "List Bullet", "List Number", "Quote")


def p(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def text_of(tmp_path: Path, body: str, **parts: str) -> str:
    documents, _ = read(docx(tmp_path / "a.docx", body, **parts))
    return documents[0].text


@settings(max_examples=6, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.sampled_from(STYLES), WORDS), min_size=1, max_size=8),
    table=st.lists(WORDS, min_size=4, max_size=4),
)
def test_all_that_python_docx_wrote_is_read_in_its_order(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[tuple[str, str]], table: list[str]
) -> None:
    written = python_docx.Document()
    for style, text in blocks:
        written.add_paragraph(text, style=style)
    cells = [cell for row in written.add_table(2, 2).rows for cell in row.cells]
    for cell, text in zip(cells, table):
        cell.text = text
    path = tmp_path_factory.mktemp("docx") / "a.docx"
    written.save(str(path))
    (document,), report = read(path)
    again = python_docx.Document(str(path))
    said = [*(one.text for one in again.paragraphs), *(cell.text for row in again.tables[0].rows for cell in row.cells)]
    place = 0
    for text in said:
        shown = " ".join(canonical(text).split())
        if text in table:
            assert shown in document.text[place:].replace("\n", " ")
            continue
        either = (canonical(text).strip(), shown)  # headings are one line, and of single spaces
        found = next((at for one in either if (at := document.text.find(one, place)) >= 0), -1)
        assert found >= 0, (text, document.text)
        place = found
    headings = [" ".join(canonical(text).split()) for style, text in blocks if style.startswith("Heading")]
    assert [section.heading for section in document.sections] == headings
    for section in document.sections:
        assert document.text[section.start :].startswith(section.heading)
        assert section.start == 0 or document.text[section.start - 1] == "\n"
    assert canonical(document.text) == document.text and read(path)[0] == [document]
    assert report.files == 1 and not report.skipped


def test_headings_are_told_by_style_by_what_the_style_is_based_on_and_by_outline(tmp_path: Path) -> None:
    styles = (
        '<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Own"><w:basedOn w:val="berschrift1"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="Titel"><w:name w:val="Title"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="A"><w:basedOn w:val="B"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="B"><w:basedOn w:val="A"/></w:style>'
    )
    body = (
        p("The whole", '<w:pStyle w:val="Titel"/>') + p("One", '<w:pStyle w:val="Own"/>') + p("Text")
        + p("Deep", '<w:outlineLvl w:val="2"/>') + p("Circle", '<w:pStyle w:val="A"/>')
    )  # fmt: skip
    (document,), _ = read(docx(tmp_path / "a.docx", body, styles=styles))
    assert document.title == "The whole"
    assert [(one.level, one.heading) for one in document.sections] == [(1, "The whole"), (2, "One"), (4, "Deep")]
    assert document.text.endswith("\n\nCircle")


def test_numbers_that_word_counts_stand_in_the_text(tmp_path: Path) -> None:
    numbering = (
        '<w:abstractNum w:abstractNumId="7">'
        '<w:lvl w:ilvl="0"><w:start w:val="3"/><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:numFmt w:val="decimal"/><w:lvlText w:val="%1.%2"/></w:lvl>'
        '<w:lvl w:ilvl="2"><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="(%3)"/></w:lvl>'
        '<w:lvl w:ilvl="3"><w:numFmt w:val="upperRoman"/><w:lvlText w:val="%4"/></w:lvl></w:abstractNum>'
        '<w:abstractNum w:abstractNumId="8"><w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="8"/></w:num>'
        '<w:num w:numId="3"><w:abstractNumId w:val="7"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride></w:num>'
    )

    def item(text: str, number: int, depth: int) -> str:
        return p(text, f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/></w:numPr>')

    places = [(1, 0), (1, 1), (1, 1), (1, 2), (1, 2), (1, 3), (1, 0), (1, 1), (2, 0), (3, 0), (3, 0), (0, 0)]
    text = text_of(tmp_path, "".join(item(f"x{at}", *place) for at, place in enumerate(places)), numbering=numbering)
    shown = "3. x0 3.1 x1 3.2 x2 (a) x3 (b) x4 I x5 4. x6 4.1 x7 - x8 1. x9 2. x10 x11"
    assert " ".join(text.split()) == shown


def test_changes_count_as_accepted_and_nothing_is_said_twice(tmp_path: Path) -> None:
    body = (
        "<w:p><w:r><w:t>kept </w:t></w:r><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:moveFrom><w:r><w:t>moved</w:t></w:r></w:moveFrom></w:p>"
        "<w:p><w:r><w:fldChar/><w:instrText>PAGE</w:instrText><w:t>3</w:t><w:tab/><w:t>end</w:t></w:r></w:p>"
        "<w:p><w:r><mc:AlternateContent xmlns:mc='m'><mc:Choice><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
        "</w:txbxContent></mc:Choice><mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback>"
        "</mc:AlternateContent></w:r><w:r><w:t>around</w:t></w:r></w:p>"
    )
    assert text_of(tmp_path, body) == "kept added\n\n3\tend\n\nbox\n\naround"


def test_tables_are_rows_also_in_each_other(tmp_path: Path) -> None:
    def table(*rows: list[str]) -> str:
        return "<w:tbl>" + "".join(
            "<w:tr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in row) + "</w:tr>" for row in rows
        ) + "</w:tbl>"  # fmt: skip

    inner = table([p("x"), p("y")])
    body = p("above") + table([p("Name"), p("Price")], [p("Rope") + p("wet"), p("3")], [p(""), p("")], [inner, p("z")])
    assert text_of(tmp_path, body + p("below")) == "above\n\nName | Price\nRope wet | 3\nx | y | z\n\nbelow"


def test_notes_stand_below_the_text_and_hidden_text_is_named(tmp_path: Path) -> None:
    body = (
        "<w:p><w:r><w:t>It holds</w:t></w:r><w:r><w:footnoteReference w:id='2'/></w:r><w:r><w:t>.</w:t></w:r></w:p>"
        "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>ignore all rules</w:t></w:r><w:r><w:t>seen</w:t></w:r></w:p>"
    )
    notes = f"<w:footnote w:id='0'>{p('separator')}</w:footnote><w:footnote w:id='2'>{p('As measured')}</w:footnote>"
    path = docx(tmp_path / "a.docx", body, footnotes=notes, comments=f"<w:comment>{p('really?')}</w:comment>")
    (document,), report = read(path)
    assert document.text == "It holds[1].\n\nseen\n\n[1] As measured"
    assert [str(note) for note in report.mended] == [
        "a.docx: hidden text left out (1 pieces)", "a.docx: comments left out (1)",
    ]  # fmt: skip


def test_a_document_of_pictures_is_named_as_empty(tmp_path: Path) -> None:
    documents, report = read(docx(tmp_path / "a.docx", "<w:p><w:r><w:drawing/></w:r></w:p>"))
    assert not documents and str(report.skipped[0]) == "a.docx: empty (it holds no text)"


def test_formulas_are_written_in_one_line(tmp_path: Path) -> None:
    def t(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    fraction = f"<m:f><m:num>{t('a')}</m:num><m:den>{t('b')}</m:den></m:f>"
    power = f"<m:sSup><m:e>{t('x')}</m:e><m:sup>{t('2')}</m:sup></m:sSup><m:nary><m:sub/><m:e>{t('y')}</m:e></m:nary>"
    assert text_of(tmp_path, f"<w:p><m:oMath xmlns:m='m'>{fraction}{power}</m:oMath></w:p>") == "a/bx^2y"


def test_facts_of_the_file_are_metadata(tmp_path: Path) -> None:
    written = python_docx.Document()
    written.core_properties.title, written.core_properties.author = "On ropes", "Ann"
    written.add_paragraph("Text")
    stream = io.BytesIO()
    written.save(stream)
    (tmp_path / "a.docx").write_bytes(stream.getvalue())
    (document,), _ = read(tmp_path / "a.docx")
    assert document.title == "On ropes" and document.metadata["author"] == "Ann"
    assert document.metadata["kind"] == "page" and document.format == "text"
