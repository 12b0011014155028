"""Letters: a message in a file (.eml, RFC 5322 and MIME) and mailboxes (mbox, RFC 4155), by the standard library.

Who wrote to whom and when is metadata; the text is what was written, with what it quotes. What is attached is read by
the same readers and named after the letter: `offer.eml/prices.xlsx`.
"""

from __future__ import annotations

import email.policy
import re
from collections.abc import Callable, Collection, Iterator
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.utils import getaddresses, parsedate_to_datetime
from typing import IO, Any

from windlass.core.documents import Document, Section
from windlass.core.readers.html import read_html
from windlass.core.readers.report import ReadReport
from windlass.core.readers.text import NotText, canonical, decode

Part = MIMEPart
Enclosed = Callable[[bytes, str], Iterator[Document]]
"""Reads the bytes of an attachment under a name."""

_MOST_PARTS = 1_000
_SPACE = re.compile(r"\s+")
_FROM = re.compile(rb"From \S+ .*\d\d:\d\d")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_BROKEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, AssertionError)
"""What `email` raises of headers and bodies that break its rules, besides those that it notes as defects."""


def read_mail(
    stream: IO[bytes], name: str, report: ReadReport, max_bytes: int, enclosed: Enclosed
) -> Iterator[Document]:
    """The documents of a file with one message: the letter and what is attached to it."""
    data = stream.read(10 * max_bytes + 1)
    if len(data) > 10 * max_bytes:
        report.skip(name, "too large", f"the limit is {10 * max_bytes / 1e6:,.0f} MB")
    else:
        yield from _letter(data, name, report, enclosed)


def read_mailbox(
    stream: IO[bytes], name: str, report: ReadReport, max_bytes: int, enclosed: Enclosed
) -> Iterator[Document]:
    """The documents of a mailbox, one message after the other, in the memory of one: `name:1`, `name:2`, ..."""
    number = 0
    for number, data in enumerate(_messages(stream, 10 * max_bytes), start=1):
        source = f"{name}:{number}"
        if data is None:
            report.skip(source, "message too large", f"the limit is {10 * max_bytes / 1e6:,.0f} MB")
        else:
            yield from _letter(data, source, report, enclosed)
    if not number:
        report.skip(name, "empty", "it holds no message that begins with a line 'From '")


def _messages(stream: IO[bytes], limit: int) -> Iterator[bytes | None]:
    """The messages of a mailbox, None for one that is longer than `limit`.

    A line `From WHOM WHEN` after an empty line begins the next one; in a text it was written as `>From ` (mboxrd).
    """
    parts: list[bytes] = []
    size, inside, blank = 0, False, True
    while line := stream.readline(1 << 16):
        if blank and _FROM.match(line):
            if inside:
                yield _joined(parts) if size <= limit else None
            parts, size, inside = [], 0, True
        elif inside:
            size += len(line)
            if size <= limit:
                parts.append(line)
            else:
                parts.clear()
        blank = not line.strip(b"\r\n")
    if inside:
        yield _joined(parts) if size <= limit else None


def _joined(lines: list[bytes]) -> bytes:
    return _QUOTED_FROM.sub(rb"\1", b"".join(lines))


def _letter(data: bytes, name: str, report: ReadReport, enclosed: Enclosed) -> Iterator[Document]:
    report.parts["messages"] += 1
    try:
        message = BytesParser(_class=EmailMessage, policy=email.policy.default).parsebytes(data)
        headers = _headers(message)
        body, text, sections = _written(message)
        attachments, further, remarks = _enclosed(message, _alternatives(message, body))
        text = "\n\n".join(filter(None, [text, *further]))
    except NotText as error:
        report.skip(name, "not text", str(error))
        return
    except _BROKEN as error:
        report.skip(name, "damaged", f"{type(error).__name__}: {error}".partition("\n")[0][:200])
        return
    if not headers and not text and not attachments:
        report.skip(name, "damaged", "it has neither headers nor text")
        return
    for remark in remarks:
        report.mend(name, "part of a letter left out", remark)
    subject = headers.pop("subject", "")
    if text:
        about: dict[str, Any] = {"kind": "page", "module": "", "cluster": name, **headers}
        if attachments:
            about["attachments"] = [title for title, _ in attachments]
        yield Document(name, name, subject or name, text, "text", tuple(sections), about)
    else:
        report.skip(name, "letter without text", f"and {len(attachments)} attachments")
    seen: set[str] = set()
    for number, (title, content) in enumerate(attachments, start=1):
        source = f"{name}/{title}" if title not in seen else f"{name}/{number}-{title}"
        seen.add(title)
        report.parts["attachments"] += 1
        yield from enclosed(content, source)


def _headers(message: EmailMessage) -> dict[str, Any]:
    """Subject, people, date and thread of a letter, as far as it says."""
    found: dict[str, Any] = {}
    for header in ("subject", "message-id", "in-reply-to"):
        if value := _header(message, header):
            found[header.replace("-", "_")] = value
    for header in ("from", "to", "cc"):
        values = [_SPACE.sub(" ", str(value)) for value in message.get_all(header, [])]
        people = [canonical(f"{who} <{address}>" if who else address) for who, address in getaddresses(values)]
        if people := [one for one in people if one]:
            found[header] = people[0] if header == "from" else people
    if value := _header(message, "date"):
        try:
            found["date"] = parsedate_to_datetime(value).isoformat()
        except ValueError:
            found["date"] = value
    return found


def _header(message: EmailMessage, name: str) -> str:
    return _SPACE.sub(" ", canonical(str(message.get(name, "") or ""))).strip()


def _enclosed(message: EmailMessage, written: Collection[int]) -> tuple[list[tuple[str, bytes]], list[str], list[str]]:
    """(what is attached, as name and bytes; texts without a name, as a list puts below letters; what is neither)."""
    remarks: list[str] = []
    attachments: list[tuple[str, bytes]] = []
    further: list[str] = []
    parts = 0
    pending: list[Any] = [message]
    while pending:
        part = pending.pop(0)
        parts += 1
        if parts > _MOST_PARTS:
            remarks.append(f"all after {_MOST_PARTS:,} parts")
            break
        kind = part.get_content_type()
        if kind == "message/rfc822":
            inner = part.get_payload()
            if isinstance(inner, list) and inner:
                title = _file_name(part) or "letter"
                attachments.append((title if title.endswith(".eml") else f"{title}.eml", inner[0].as_bytes()))
        elif part.is_multipart():
            pending[:0] = part.get_payload()
        elif id(part) not in written:
            if title := _file_name(part):
                content = part.get_payload(decode=True)
                attachments.append((title, content if isinstance(content, bytes) else b""))
            elif kind in ("text/plain", "text/html"):
                further.append(_text(part)[0])
            else:
                remarks.append(f"{kind} without a name")
    return attachments, further, remarks


def _file_name(part: Part) -> str:
    """As a name in one folder: a letter may call its attachment `../../x`."""
    name = canonical(str(part.get_filename() or "")).replace("\\", "/").rpartition("/")[2]
    return _SPACE.sub(" ", name).strip().lstrip(".")[-120:]


def _written(message: EmailMessage) -> tuple[Part | None, str, list[Section]]:
    """The part that was written, and its text: the plain one unless that is empty."""
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        text, sections = ("", []) if body is None else _text(body)
        if text:
            return body, text, sections
    return None, "", []


def _alternatives(message: EmailMessage, body: Part | None) -> set[int]:
    """The part that was written, and those that say the same in another way."""
    wholes = [part for part in message.walk() if part.get_content_type() == "multipart/alternative"]
    same = [part for whole in wholes if any(one is body for one in whole.walk()) for part in whole.walk()]
    return {id(body), *(id(part) for part in same if part.get_content_maintype() == "text" and not _file_name(part))}


def _text(part: Part) -> tuple[str, list[Section]]:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return "", []
    text = _decoded(data, part.get_content_charset())
    if part.get_content_type() == "text/html":
        _, text, sections = read_html(text)
        return text, sections
    return canonical(text), []


def _decoded(data: bytes, charset: str | None) -> str:
    """As the letter says; ISO-2022 is valid ASCII, so it must be asked first."""
    if charset and charset not in ("us-ascii", "utf-8"):
        try:
            return data.decode(charset)
        except (LookupError, UnicodeError):
            pass  # it says what it is not: judge the bytes instead
    return decode(data)[0]
