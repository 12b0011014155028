"""PDF files: every page read or named, offsets that lead back to the page, and files that were made to do harm."""

from __future__ import annotations

import io
import logging
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pypdf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_world import read
from reportlab.pdfgen.canvas import Canvas

from windlass.core.documents import place
from windlass.core.readers import Folder, ReadReport, canonical
from windlass.core.readers.pages import joined_pages


def pdf(
    path: Path, pages: Sequence[Sequence[str]], bookmarks: Sequence[tuple[str, int, int]] = (), **facts: str
) -> Path:
    """Lines by page; bookmarks are (title, level, page from 1)."""
    made = Canvas(str(path))
    for number, lines in enumerate(pages, start=1):
        made.setFont("Helvetica", 10)
        for title, level, page in bookmarks:
            if page == number:
                made.bookmarkPage(title)
                made.addOutlineEntry(title, title, level - 1)
        for line, text in enumerate(lines):
            made.drawString(40, 800 - 12 * line, text)
        made.showPage()
    for fact, value in facts.items():
        getattr(made, f"set{fact.capitalize()}")(value)
    made.save()
    return path


def test_each_page_is_found_by_its_offset(tmp_path: Path) -> None:
    pages = [[f"Page {number} begins.", f"Word{number} stands here."] for number in range(1, 13)]
    (document,), report = read(pdf(tmp_path / "a.pdf", pages, title="On ropes", author="Ann"))
    for number in range(1, 13):
        assert place(document.metadata, document.text.index(f"Word{number} ")) == f"page {number}"
        assert document.text[document.metadata["pages"][number - 1] :].startswith(f"Page {number} begins.")
    assert document.title == "On ropes" and document.metadata["author"] == "Ann"
    assert canonical(document.text) == document.text and document.metadata["pages"][0] == 0
    assert report.parts == {"pages": 12} and not report.skipped and read(tmp_path / "a.pdf")[0] == [document]


def test_the_text_is_what_pypdf_finds(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", [["One line, and another.", "Two."], ["A second page."]])
    (document,), _ = read(path)
    theirs = "\n\n".join(page.extract_text().strip() for page in pypdf.PdfReader(path).pages)
    assert document.text == theirs


def test_pages_without_text_are_named_one_by_one(tmp_path: Path) -> None:
    (document,), report = read(pdf(tmp_path / "scan.pdf", [["Text"], [], ["More"], []]))
    assert [note.source for note in report.skipped] == ["scan.pdf#page=2", "scan.pdf#page=4"]
    assert {note.reason for note in report.skipped} == {"page without text"} and "ocrmypdf" in report.skipped[0].detail
    assert place(document.metadata, document.text.index("More")) == "page 3"
    documents, report = read(pdf(tmp_path / "all.pdf", [[], []]))
    assert not documents and report.skips == {"page without text": 2, "empty": 1}


def test_bookmarks_are_sections_where_their_titles_stand(tmp_path: Path) -> None:
    marks = [("Ropes", 1, 1), ("Care of ropes", 2, 1), ("Pawls", 1, 2), ("Not written there", 1, 3)]
    pages = [
        ["Ropes", "They lift.", "2. Care  of ropes", "Keep them dry."],
        ["First. ", "Pawls", "They hold."],
        ["Last."],
    ]
    (document,), _ = read(pdf(tmp_path / "a.pdf", pages, marks))
    starts = [document.text[one.start :].split("\n")[0] for one in document.sections]
    assert starts == ["Ropes", "2. Care of ropes", "Pawls", "Last."]
    assert [(one.level, one.heading) for one in document.sections] == [(level, title) for title, level, _ in marks]


def test_headers_and_footers_are_kept_once(tmp_path: Path) -> None:
    pages = [
        ["ACME Annual Report", f"Chapter {number}", *(f"line {number}.{at}." for at in range(8)), f"Page {number} of 9"]
        for number in range(1, 10)
    ]
    (document,), report = read(pdf(tmp_path / "a.pdf", pages))
    assert document.text.count("ACME Annual Report") == 1 and document.text.count(" of 9") == 1
    for number in range(1, 10):
        assert f"Chapter {number}\nline {number}.0." in document.text  # one word with a number is a heading
        assert place(document.metadata, document.text.index(f"line {number}.3.")) == f"page {number}"
    assert report.mended[0].reason == "headers and footers kept on their first page"


def test_rows_of_numbers_at_the_end_of_each_page_are_no_footers() -> None:
    pages = [
        "\n".join(
            [f"Month {'abcdefgh'[page]}", *(f"row {page} {at}" for at in range(9)), f"{page * 7 + 3} {page * 11} 5"]
        )
        for page in range(8)
    ]
    text, _, furniture = joined_pages(pages)
    assert not furniture and all(f"{page * 7 + 3} {page * 11} 5" in text for page in range(8))


def test_sums_that_are_alike_on_all_pages_stay() -> None:
    pages = [
        "\n".join(["ACME", *(f"{name} {at}" for at in range(9)), "Net pay 1,000.00"])
        for name in ("May", "June", "July")
    ]
    text, _, furniture = joined_pages(pages)
    assert text.count("Net pay 1,000.00") == 3 and furniture == ["ACME"]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("an exam-\nple of it", "an example\nof it"),
        ("an exam-\nple.", "an example."),
        ("a well-\nknown name, well-known", "a well-known\nname, well-known"),
        ("a state-of-the-\nart pump", "a state-of-the-art\npump"),
        ("pre- and post-\nwar", "pre- and postwar"),
        ("pre-\nand postwar", "pre-\nand postwar"),
        ("Baden-\nBaden", "Baden-\nBaden"),
        ("an XML-\nbased format", "an XML-based\nformat"),
        ("see http://x.org/REC-\nxmlbase-2001 there", "see http://x.org/REC-xmlbase-2001\nthere"),
        ("in 1914-\n1918", "in 1914-\n1918"),
        ("soft\u00ad\nware and soft\u00adware", "software and software"),
        ("ﬁnd the ﬂow", "find the flow"),
        ("a list:\n- one\n- two", "a list:\n- one\n- two"),
    ],
)
def test_words_cut_at_the_end_of_a_line_are_joined(page: str, text: str) -> None:
    assert joined_pages([page])[0] == text


def test_a_sentence_goes_on_over_the_page() -> None:
    text, starts, _ = joined_pages(["It goes on and", "", "on for ever, exam-", "ple by example.", "New."])
    assert text == "It goes on and\non for ever, example\nby example.\n\nNew."
    assert [text[start : start + 2] for start in starts] == ["It", "\no", "on", "by", "Ne"]


@settings(max_examples=80, deadline=None)
@given(pages=st.lists(st.text(st.sampled_from("ab A-.\n1é\u0301\u00ad\ufb01"), max_size=60), max_size=8))
def test_no_letter_is_lost_and_no_page_out_of_place(pages: list[str]) -> None:
    text, starts, furniture = joined_pages(pages)
    assert canonical(text) == text and len(starts) == len(pages) and starts == sorted(starts)
    assert joined_pages(pages) == (text, starts, furniture)
    if not furniture:
        assert letters(text) == letters("".join(pages).replace("\ufb01", "fi"))


def letters(text: str) -> list[str]:
    return sorted(filter(str.isalnum, unicodedata.normalize("NFD", text)))


# files that are broken, locked or made to do harm ------------------------------------------------------------------


def objects(*bodies: bytes, root: int = 1) -> bytes:
    """A PDF of these objects, numbered from 1."""
    data = b"%PDF-1.7\n"
    places = []
    for number, body in enumerate(bodies, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(bodies) + 1
    end = b"xref\n0 %d\n0000000000 65535 f \n" % size + table + b"trailer\n<< /Size %d /Root %d 0 R >>\n" % (size, root)
    return data + end + b"startxref\n%d\n%%%%EOF\n" % len(data)


def stream(data: bytes, more: bytes = b"") -> bytes:
    packed = zlib.compress(data)
    return b"<< /Filter /FlateDecode /Length %d %s >>\nstream\n" % (len(packed), more) + packed + b"\nendstream"


FONT = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGES = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
SAYS = b"BT /F1 12 Tf 72 700 Td (Hello there) Tj ET"


def page(resources: bytes = b"/Font << /F1 4 0 R >>") -> bytes:
    return (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 5 0 R /Resources << " + resources + b" >> >>"
    )


def forms() -> bytes:
    """A form that shows a form ten times, which shows a form ten times, ... ten deep."""
    link = b"/XObject << /X %d 0 R >>"
    bodies = [CATALOG, PAGES, page(b"/Font << /F1 4 0 R >> " + link % 6), FONT, stream(SAYS + b" /X Do" * 10)]
    for number in range(6, 16):
        inner = link % (number + 1) if number < 15 else b""
        more = b"/Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << " + inner + b" >>"
        bodies.append(stream(b" /X Do" * 10 * (number < 15), more))
    return objects(*bodies)


def deep() -> bytes:
    """A tree of pages that is 3,000 levels deep."""
    levels = (b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 1) for number in range(2, 3002))
    return objects(CATALOG, *levels, page())


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no pdf": lambda: b"Hello" * 100,
    "cut": lambda: objects(CATALOG, PAGES, page(), FONT, stream(SAYS))[:200],
    "no pages": lambda: objects(CATALOG, b"<< /Type /Pages /Kids [] /Count 0 >>"),
    "no root": lambda: objects(CATALOG, PAGES, page(), FONT, stream(SAYS), root=77),
    "pages in a circle": lambda: objects(CATALOG, b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"),
    "a page that is its own parent": lambda: objects(CATALOG, PAGES, b"<< /Type /Pages /Kids [2 0 R] /Parent 2 0 R >>"),
    "contents in a circle": lambda: objects(CATALOG, PAGES, page(), FONT, b"5 0 R"),
    "deep pages": deep,
    "deep arrays": lambda: objects(CATALOG, PAGES, page(), FONT, stream(b"[" * 100_000 + b"]" * 100_000 + b" TJ")),
    "forms of forms": forms,
    "a bomb": lambda: objects(CATALOG, PAGES, page(), FONT, stream(b" " * 100_000_000)),
    "a damaged stream": lambda: objects(CATALOG, PAGES, page(), FONT, stream(SAYS).replace(b"x\x9c", b"no")),
    "a wrong number of pages": lambda: objects(CATALOG, PAGES.replace(b"1", b"9999999"), page(), FONT, stream(SAYS)),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_files_that_do_harm_are_named_and_others_are_read(tmp_path: Path, what: str) -> None:
    (tmp_path / "bad.pdf").write_bytes(HOSTILE[what]())
    pdf(tmp_path / "good.pdf", [["Good"]])
    report = ReadReport()
    found = {one.id: one.text for one in Folder(tmp_path).documents(report)}
    assert found["good.pdf"] == "Good"
    assert "bad.pdf" in found or any(note.source.startswith("bad.pdf") for note in report.skipped)
    assert len(found.get("bad.pdf", "")) < 1_000_000


def test_what_a_damaged_file_still_holds_is_read(tmp_path: Path) -> None:
    whole = objects(CATALOG, PAGES, page(), FONT, stream(SAYS))
    (tmp_path / "a.pdf").write_bytes(whole)
    (tmp_path / "b.pdf").write_bytes(whole.replace(b"startxref\n", b"startxref\n9"))  # the table is elsewhere
    assert read(tmp_path / "a.pdf")[0][0].text == "Hello there"
    (document,), report = read(tmp_path / "b.pdf")
    assert document.text == "Hello there" and report.mends["damaged in part"] >= 1


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_password_is_asked_for_only_where_one_is_needed(tmp_path: Path, algorithm: str) -> None:
    plain = pdf(tmp_path / "plain.pdf", [["A secret"]])

    def locked(name: str, user: str) -> Path:
        writer = pypdf.PdfWriter(clone_from=plain)
        writer.encrypt(user, "owner", algorithm=algorithm)
        with (tmp_path / name).open("wb") as file:
            writer.write(file)
        return tmp_path / name

    assert read(locked("owner.pdf", ""))[0][0].text == "A secret"
    documents, report = read(locked("user.pdf", "user"))
    assert not documents and str(report.skipped[0]) == "user.pdf: encrypted (save a copy without a password)"


def test_a_file_that_takes_too_long_is_given_up_and_its_other_pages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("windlass.core.readers.pdf.monotonic", lambda: 25.0 * next(ticks))
    (document,), report = read(pdf(tmp_path / "a.pdf", [[f"Page {number}."] for number in range(5)]))
    assert document.text == "Page 0.\n\nPage 1." and report.parts == {"pages": 2}
    assert [note.source for note in report.skipped] == [f"a.pdf#page={number}" for number in (3, 4, 5)]


def test_what_stands_beside_the_pages_is_named(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(clone_from=pdf(tmp_path / "plain.pdf", [["Text"]]))
    writer.add_attachment("inside.txt", b"enclosed")
    stream = io.BytesIO()
    writer.write(stream)
    (tmp_path / "a.pdf").write_bytes(stream.getvalue())
    _, report = read(tmp_path / "a.pdf")
    assert report.mends == {"enclosed files left out": 1}


def test_nothing_is_printed_and_no_handler_stays(tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "bad.pdf").write_bytes(HOSTILE["cut"]())
    read(tmp_path / "bad.pdf")
    assert capfd.readouterr() == ("", "") and not logging.getLogger("pypdf").handlers
