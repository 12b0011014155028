"""A corpus of files that are not text: they go through the same stages, and a page stays where its words are."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import docx
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfgen.canvas import Canvas

from windlass.build.corpus import build_corpus, corpus_settings
from windlass.build.corpus.reading import corpus_documents
from windlass.build.corpus.rewriting import rewritten
from windlass.core.documents import Document, Section, place
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

PROSE = "The drum turns and the pawl holds the load that was lifted by hand with rope number {}."


def test_documents_of_all_kinds_become_a_corpus_with_right_pages(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    made = Canvas(str(folder / "a.pdf"))
    for number in range(1, 4):
        made.setFont("Helvetica", 8)
        made.drawString(40, 800, PROSE.format(number) + f" Write to ann{number}@mail.org.")
        made.showPage()
    made.save()
    written = docx.Document()
    written.add_heading("Ropes")
    written.add_paragraph(PROSE.replace("drum", "wheel").format("four"))
    written.save(str(folder / "b.docx"))
    letter = EmailMessage()
    letter["Subject"] = "Ropes"
    letter.set_content("Dear all, " + PROSE.replace("pawl", "ratchet").format("five"))
    (folder / "c.eml").write_bytes(letter.as_bytes())
    with Workspace(tmp_path / "ws") as ws:
        corpus = build_corpus(ws, Folder(folder), corpus_settings(None, {"pii": "mask", "heldout": 0.0}))
        found = {document.id: document for document in corpus_documents(corpus)}
    assert sorted(found) == ["a.pdf", "b.docx", "c.eml"]
    pdf = found["a.pdf"]
    assert "mail.org" not in pdf.text and pdf.text.count("[EMAIL]") == 3
    for number in (1, 2, 3):
        assert place(pdf.metadata, pdf.text.index(f"number {number}")) == f"page {number}"


@given(
    pages=st.lists(st.sampled_from(["", "aaa", "bXb", "XX", "aXa\n\nbb", "c"]), min_size=1, max_size=7),
    heads=st.sets(st.integers(0, 6)),
)
def test_what_is_left_of_a_page_stays_on_it(pages: list[str], heads: set[int]) -> None:
    text, starts, sections = "", [], []
    for number, page in enumerate(pages):
        if page:
            text += "\n\n" if text else ""
            if number in heads:
                sections.append(Section(len(text), 1, page.partition("\n")[0]))
        starts.append(len(text))
        text += page
    document = Document("d", "d", "d", text, "text", tuple(sections), {"pages": starts})
    after = rewritten(document, lambda start, piece: piece.replace("X", ""))
    left = after.metadata["pages"]
    assert len(left) == len(pages) and left == sorted(left)
    for number, (start, end) in enumerate(zip(left, [*left[1:], len(after.text)])):
        assert after.text[start:end].strip("\n") == pages[number].replace("X", "").strip("\n")
        for at in range(start, end):
            if not after.text[at].isspace():
                assert place(after.metadata, at) == f"page {number + 1}"
    if "X" not in text:
        assert after is document


def test_a_document_without_pages_has_none_afterwards() -> None:
    document = Document("d", "d", "d", "one two")
    assert rewritten(document, lambda start, piece: "one").metadata == {}
