"""Web pages by a list of their addresses. Nothing is fetched that is not on the list, or where a page of it redirects.

Sites are treated as a guest does: `robots.txt` is asked first (RFC 9309), one page of a site is fetched at a time with
a pause in between, and a page that was read before is fetched again only if it changed (`ETag`, `Last-Modified`).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urlsplit

from windlass.core.documents import Document
from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import sha256_file, sha256_json
from windlass.core.readers.fetching import Fetched, Fetching, Refused, Unreachable, fetch
from windlass.core.readers.reading import is_readable, read_file
from windlass.core.readers.report import UNREACHED, ReadReport, SourceFile
from windlass.core.readers.row_documents import RowFields
from windlass.core.version import __version__

if TYPE_CHECKING:
    from urllib.robotparser import RobotFileParser

READING = 1
"""Raised when other documents are made of the same pages."""

_TYPES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "message/rfc822": ".eml",
    "application/mbox": ".mbox",
}
_VAGUE = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream"})
"""Types that servers give to what they do not know: the end of the address says more."""

_ROBOT = "windlass"
_LONGEST_PAUSE = 30.0
_GONE = (404, 410)


@dataclass(frozen=True, slots=True)
class UrlList:
    """A `FileSource`: each address is a file of it. `pause` is the least time between two pages of a site, seconds."""

    urls: tuple[str, ...]
    fetching: Fetching = field(default_factory=lambda: Fetching(agent=f"{_ROBOT}/{__version__}"))
    fields: RowFields = field(default_factory=RowFields)
    pause: float = 1.0

    @classmethod
    def of_file(cls, path: Path, fetching: Fetching | None = None, pause: float = 1.0) -> UrlList:
        """The addresses in a text file, one a line; lines that begin with # are remarks."""
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read: {error}.", "Give a text file with one address a line.") from error
        urls = tuple(line for line in lines if line and not line.startswith("#"))
        if not urls:
            raise InputError(f"{path} holds no address.", "Write one a line, as in: https://example.org/page")
        return cls(urls, pause=pause) if fetching is None else cls(urls, fetching, pause=pause)

    @property
    def name(self) -> str:
        return f"a list of {len(self.urls):,} web pages"

    @property
    def licence(self) -> str:
        return "unknown: that of the pages themselves"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        before = report.documents
        for file in self.files(report):
            yield from file.documents(report)
        if report.documents == before:
            first = f" First: {report.skipped[0]}." if report.skipped else ""
            raise report.missing or InputError(f"None of {len(self.urls):,} pages could be read.{first}")

    def files(self, report: ReadReport, stamps: Mapping[str, str] | None = None) -> Iterator[SourceFile]:
        """The pages, in the order of the list. Those whose stamp is held are asked only whether they changed."""
        visit = _Visit(self.fetching, self.pause)
        for url in dict.fromkeys(urldefrag(url.strip()).url for url in self.urls):
            with tempfile.TemporaryDirectory(prefix="windlass-") as folder:
                body = Path(folder, "page")
                held = (stamps or {}).get(url, "")
                answer = visit.page(url, body, report, self._conditions(held))
                if answer is not None:
                    stamp = held if answer.status == 304 else self._stamp(answer, body)
                    yield SourceFile(url, stamp, partial(self._read, url, answer, body, visit))

    @property
    def _setup(self) -> str:
        return sha256_json([READING, self.fetching.max_bytes, repr(self.fields)])[:8]

    def _stamp(self, answer: Fetched, body: Path) -> str:
        """What the server calls this state of the page; without a name, the digest of what it sent."""
        said = {key: answer.headers[key] for key in ("etag", "last-modified") if answer.headers.get(key)}
        return json.dumps([self._setup, said or sha256_file(body)], sort_keys=True)

    def _conditions(self, stamp: str) -> dict[str, str]:
        """The headers that ask for a page only if it is not as it was."""
        try:
            setup, said = json.loads(stamp)
        except ValueError:
            return {}
        names = {"etag": "if-none-match", "last-modified": "if-modified-since"}
        if setup != self._setup or not isinstance(said, dict):
            return {}
        return {names[key]: str(value) for key, value in said.items() if key in names}

    def _read(self, url: str, answer: Fetched, body: Path, visit: _Visit, report: ReadReport) -> Iterator[Document]:
        with tempfile.TemporaryDirectory(prefix="windlass-") as folder:
            if not body.exists():  # it had not changed, or another page was asked for since, and is wanted all the same
                body = Path(folder, "page")
                again = visit.page(url, body, report, {})
                if again is None:
                    return
                answer = again
            suffix = _suffix(answer)
            if not suffix:
                type = answer.headers.get("content-type") or "it says none"
                report.skip(url, "of a type that windlass does not read", type)
                return
            _recode(body, answer)
            file = body.rename(body.with_name(f"page{suffix}"))
            try:
                for document in read_file(file, url, report, max_bytes=self.fetching.max_bytes, fields=self.fields):
                    report.documents += 1
                    yield replace(document, metadata={**document.metadata, "url": answer.url})
            except MissingExtra as error:
                report.lacks(url, error)


def _suffix(answer: Fetched) -> str:
    """Of a file with this page: its type decides, else the end of the address; '' for what is not read."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _TYPES:
        return _TYPES[kind]
    called = PurePosixPath(unquote(urlsplit(answer.url).path)).name
    if kind in _VAGUE and is_readable(f"page{PurePosixPath(called).suffix}"):
        return PurePosixPath(called).suffix
    return ".txt" if kind == "text/plain" else ""


def _recode(body: Path, answer: Fetched) -> None:
    """Text whose encoding only the server tells becomes UTF-8, as readers expect it."""
    kind, _, rest = answer.headers.get("content-type", "").partition(";")
    charset = rest.partition("charset=")[2].partition(";")[0].strip("\"' ").lower()
    if not kind.strip().startswith("text/") or charset in ("", "utf-8", "utf8", "us-ascii"):
        return
    try:
        text = body.read_bytes().decode(charset)
    except (LookupError, UnicodeError):
        return  # it is not what the server says: the reader judges the bytes
    body.write_text(text, encoding="utf-8", newline="")


class _Visit:
    """One pass over a list: what `robots.txt` said, and when each site was asked last."""

    def __init__(self, fetching: Fetching, pause: float) -> None:
        self._fetching = fetching
        self._pause = pause
        self._robots: dict[str, RobotFileParser | str] = {}
        """By site; a text says why it could not be asked."""
        self._asked: dict[str, float] = {}

    def page(self, url: str, into: Path, report: ReadReport, conditions: Mapping[str, str]) -> Fetched | None:
        """The answer for a page that is there, changed or not. All else is skipped and named."""
        try:
            robots = self._rules(url, into.with_name("robots"))
            if isinstance(robots, str):
                report.skip(url, UNREACHED, f"robots.txt: {robots}; try again later")
                return None
            if not robots.can_fetch(_ROBOT, url):
                report.skip(url, "robots.txt forbids it", "ask the site's owner")
                return None
            delay = robots.crawl_delay(_ROBOT)
            self._wait(_site(url), max(self._pause, min(float(delay or 0), _LONGEST_PAUSE)))
            answer = fetch(url, into, self._fetching, conditions)
        except Refused as error:
            report.skip(url, error.reason, error.detail)
        except Unreachable as error:
            report.skip(url, UNREACHED, f"{error}; try again later")
        else:
            if answer.status == 200 or (answer.status == 304 and conditions):
                return answer
            if answer.status in _GONE:
                report.skip(url, "gone", f"status {answer.status}: take it off the list")
            else:
                report.skip(url, UNREACHED, f"status {answer.status}")
        return None

    def _rules(self, url: str, into: Path) -> RobotFileParser | str:
        site = _site(url)
        if site not in self._robots:
            self._robots[site] = self._asked_rules(site, into)
        return self._robots[site]

    def _asked_rules(self, site: str, into: Path) -> RobotFileParser | str:
        """What a site forbids: nothing if it has no rules; unknown while its server fails (RFC 9309, 2.3.1)."""
        from urllib.robotparser import RobotFileParser

        rules = RobotFileParser()
        into.unlink(missing_ok=True)
        self._wait(site, 0)
        try:
            answer = fetch(f"{site}/robots.txt", into, replace(self._fetching, max_bytes=512_000))
        except Unreachable as error:
            return str(error)
        except Refused as error:
            if error.reason not in ("too large", "redirected too often"):  # those are read so far, and count as none
                raise
        else:
            if answer.status >= 500 or answer.status == 429:
                return f"status {answer.status}"
        text = into.read_text(encoding="utf-8", errors="replace") if into.exists() else ""
        rules.parse(text.splitlines())
        return rules

    def _wait(self, site: str, pause: float) -> None:
        passed = time.monotonic() - self._asked.get(site, -1e9)
        if passed < pause:
            time.sleep(pause - passed)
        self._asked[site] = time.monotonic()


def _site(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
