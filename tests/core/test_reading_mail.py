"""Letters and mailboxes: what the standard library writes is read back, and what is attached goes to its reader."""

from __future__ import annotations

import io
import mailbox
import tracemalloc
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_world import read

from windlass.core.readers import Folder, ReadReport, canonical
from windlass.core.readers.reading import read_file

WORDS = st.text(st.sampled_from("abc äß漢.>\n From"), min_size=1, max_size=60).filter(lambda text: bool(text.split()))


def letter(text: str = "Hello Bob,\n\nsee below.\n\n> what you wrote\n", **headers: str) -> EmailMessage:
    message = EmailMessage()
    said = {"Subject": "An offer", "From": "Ann Rope <ann@x.org>", "To": "bob@x.org, Cy <cy@x.org>"}
    for name, value in {**said, "Date": "Mon, 01 Jan 2024 10:00:00 +0100", **headers}.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def saved(tmp_path: Path, message: EmailMessage | bytes, name: str = "a.eml") -> Path:
    (tmp_path / name).write_bytes(message if isinstance(message, bytes) else message.as_bytes())
    return tmp_path / name


def test_headers_are_metadata_and_quotations_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, letter(Message_ID="<1@x.org>", In_Reply_To="<0@x.org>", Cc="Dee <dee@x.org>"))
    (document,), report = read(path)
    assert document.text == "Hello Bob,\n\nsee below.\n\n> what you wrote" and document.title == "An offer"
    said = {key: document.metadata[key] for key in ("from", "to", "cc", "date", "message_id", "in_reply_to")}
    assert said == {
        "from": "Ann Rope <ann@x.org>", "to": ["bob@x.org", "Cy <cy@x.org>"], "cc": ["Dee <dee@x.org>"],
        "date": "2024-01-01T10:00:00+01:00", "message_id": "<1@x.org>", "in_reply_to": "<0@x.org>",
    }  # fmt: skip
    assert report.parts == {"messages": 1} and report.files == 1 and not report.skipped


def test_plain_text_is_preferred_unless_it_is_empty(tmp_path: Path) -> None:
    message = letter("plain")
    message.add_alternative("<h1>Rich</h1><p>text</p>", subtype="html")
    assert read(saved(tmp_path, message))[0][0].text == "plain"
    message = letter(" \n")
    message.add_alternative("<h1>Rich</h1><p>text</p>", subtype="html")
    (document,), report = read(saved(tmp_path, message))
    assert document.text == "Rich\n\ntext" and document.sections[0].heading == "Rich" and not report.skipped


def test_texts_without_a_name_belong_to_the_letter(tmp_path: Path) -> None:
    data = (
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\nThe letter.\n--x\nContent-Type: text/html\n\n"
        b"<p>Sent by the <b>list</b>.</p>\n--x\n\n\n--x--\n"
    )
    (document,), report = read(saved(tmp_path, data))
    assert document.text == "The letter.\n\nSent by the list." and not report.skipped and not report.mended


def test_attachments_are_read_by_their_readers_and_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["Rope", 3])
    stream = io.BytesIO()
    book.save(stream)
    message = letter()
    message.add_attachment(stream.getvalue(), maintype="application", subtype="octet-stream", filename="prices.xlsx")
    message.add_attachment(b"# Terms\n\nNone.", maintype="text", subtype="markdown", filename="../../etc/terms.md")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png")
    message.add_attachment("again", filename="terms.md")
    message.add_attachment(b"?", maintype="application", subtype="pkcs7-signature")
    found, report = read(saved(tmp_path, message))
    assert [one.id for one in found] == [
        "a.eml", "a.eml/prices.xlsx#Sheet", "a.eml/terms.md", "a.eml/4-terms.md",
    ]  # fmt: skip
    assert found[1].text == "Sheet\nRope | 3" and found[2].title == "Terms"
    assert found[0].metadata["attachments"] == ["prices.xlsx", "terms.md", "logo.png", "terms.md"]
    assert [str(note) for note in report.skipped] == ["a.eml/logo.png: of a type that windlass does not read (.png)"]
    assert report.mended[0].detail == "application/pkcs7-signature without a name"
    assert report.parts["attachments"] == 4


def test_a_letter_in_a_letter_is_read_but_not_for_ever(tmp_path: Path) -> None:
    message = letter("the innermost", Subject="0")
    for depth in range(1, 7):
        outer = letter(f"around {depth}", Subject=str(depth))
        outer.add_attachment(message)
        message = outer
    found, report = read(saved(tmp_path, message))
    assert [one.title for one in found] == ["6", "5", "4", "3"]
    assert report.skips == {"enclosed too deep": 1}


@pytest.mark.parametrize(
    ("charset", "text"),
    [("iso-8859-1", "Größe"), ("iso-2022-jp", "日本語のメール"), ("utf-8", "漢"), ("koi8-r", "Привет")],
)
def test_encodings_are_those_that_the_letter_names(tmp_path: Path, charset: str, text: str) -> None:
    message = EmailMessage()
    message["Subject"] = text
    message.set_content(text, charset=charset)
    (document,), _ = read(saved(tmp_path, message))
    assert document.text == text and document.title == text


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n\n", b"Subject: x", b"\xff\xfe\x00" * 9, b"From: a@b\nDate: never\nTo: <<<>>>, ,;;\n\ntext",
        b"Content-Type: text/plain; charset=nonsense\n\ntext", b"Content-Type: multipart/mixed\n\n--x\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\nhi",
        b"Content-Transfer-Encoding: base64\n\n!!!", b"Subject: =?utf-8?B?////?=\n\ntext",
        b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA==",
        b"To: " + b"(" * 5000 + b"\n\nx",
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(150)) + b"\ninner",
    ],
)  # fmt: skip
def test_broken_letters_are_read_or_named(tmp_path: Path, data: bytes) -> None:
    found, report = read(saved(tmp_path, data))
    assert found or report.skipped
    assert all(canonical(one.text) == one.text for one in found)


@settings(max_examples=12, deadline=None)
@given(texts=st.lists(WORDS, min_size=1, max_size=5))
def test_a_mailbox_is_read_as_the_standard_library_wrote_it(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("mail") / "a.mbox"
    box = mailbox.mbox(path)
    for number, text in enumerate(texts):
        box.add(letter(text, Subject=f"Number {number}"))
    box.flush()
    found, report = read(path)
    theirs = [str(one.get_payload(decode=True), "utf-8") for one in box]  # type: ignore[arg-type]
    box.close()
    assert [one.title for one in found] == [f"Number {number}" for number in range(len(texts))]
    assert [one.id for one in found] == [f"a.mbox:{number}" for number in range(1, len(texts) + 1)]
    for one, text in zip(found, theirs, strict=True):
        assert one.text.replace(">From ", "From ") == canonical(text).replace(">From ", "From ")
    assert report.parts == {"messages": len(texts)}


def test_a_large_mailbox_is_read_in_the_memory_of_a_message(tmp_path: Path) -> None:
    message = b"From a@b Mon Jan  1 10:00:00 2024\nSubject: x\n\n" + (b"word " * 200 + b"\n") * 64 + b"\n"
    path = saved(tmp_path, message * 80, "large.mbox")
    tracemalloc.start()
    count = sum(1 for _ in read_file(path, path.name, ReadReport()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 80 and peak < 0.3 * path.stat().st_size, (peak, path.stat().st_size)


def test_a_message_over_the_limit_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    begins = b"From a@b Mon Jan  1 10:00:00 2024\n"
    data = begins + b"Subject: big\n\n" + b"word " * 3000 + b"\n\n" + begins + b"Subject: small\n\ntext\n"
    found, report = read(saved(tmp_path, data, "a.mbox"), max_bytes=1000)
    assert [one.title for one in found] == ["small"]
    assert str(report.skipped[0]).startswith("a.mbox:1: message too large")
    assert not read(saved(tmp_path, b"no mailbox", "b.mbox"))[0]


def test_an_attachment_that_needs_an_extra_does_not_stop_the_mailbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    message: Any = letter()
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    box = mailbox.mbox(tmp_path / "a.mbox")
    box.add(message)
    box.add(letter("second"))
    box.close()
    monkeypatch.setitem(sys.modules, "pypdf", None)
    report = ReadReport()
    assert [one.text for one in Folder(tmp_path).documents(report)][1:] == ["second"]
    assert report.skips == {"needs an extra that is not installed": 1} and not report.was_reached("a.mbox:1/a.pdf")
