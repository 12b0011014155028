"""A Slack export (zip archive or folder): one document for each thread, and one for what else was said on a day.

An export holds `users.json`, lists of channels, and a folder for each channel with a file for each day. Who may not see
a channel must not find it: documents of channels that are not public carry the access label `slack:NAME`, and so do
those of a channel that no list names.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.readers.report import ReadReport, SourceFile
from windlass.core.readers.slack_text import author_of, said_in
from windlass.core.readers.text import canonical
from windlass.core.readers.unpacking import UNPACKING_ERRORS, reason

READING = 1
"""Raised when other documents are made of the same export."""

_LISTS = {"channels.json": True, "groups.json": False, "mpims.json": False, "dms.json": False}
"""Lists of channels, and whether those are public."""

_LARGEST = 50_000_000
"""Bytes of one file, unpacked: a day of the busiest channel has a few million."""

_EVENTS = frozenset(
    {"channel_join", "channel_leave", "channel_topic", "channel_purpose", "channel_name", "channel_archive",
     "channel_unarchive", "group_join", "group_leave", "group_topic", "group_purpose", "group_name", "group_archive",
     "pinned_item", "unpinned_item", "bot_add", "bot_remove", "tombstone", "reminder_add", "channel_convert_to_private"}
)  # fmt: skip
"""Messages that Slack writes itself about the channel."""

_DAMAGED = (ValueError, RecursionError, zipfile.BadZipFile, RuntimeError, NotImplementedError, *UNPACKING_ERRORS)
_ISO = "%Y-%m-%dT%H:%M:%S+00:00"
Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Channel:
    id: str
    name: str
    public: bool


@dataclass(frozen=True, slots=True)
class SlackExport:
    """A `FileSource`: each channel is a file of it. `domain` (as in `acme.slack.com`) makes the permalinks."""

    path: Path
    domain: str = ""

    @property
    def name(self) -> str:
        return f"the Slack export {self.path.resolve().name}"

    @property
    def licence(self) -> str:
        return "unknown: that of the workspace's members"

    def documents(self, report: ReadReport) -> Iterator[Document]:
        before = report.documents
        for file in self.files(report):
            yield from file.documents(report)
        if report.documents == before:
            found = ", ".join(f"{count:,} {reason}" for reason, count in report.reasons().items()) or "no messages"
            raise InputError(f"There is nothing to read in {self.path}: {found}.", "Export the channels once more.")

    def files(self, report: ReadReport, stamps: Mapping[str, str] | None = None) -> Iterator[SourceFile]:
        """The channels by name. A stamp is made of the sizes and times, or check sums, of the channel's days."""
        with _opened(self.path) as export:
            files = export.names()
            entries = _entries(export, "users.json", report) if "users.json" in files else []
            users = {str(user.get("id")): name for user in entries if (name := _user_name(user))}
            channels = _channels(export, files, report)
            names = {channel.id: channel.name for channel in channels.values()}
            days: dict[str, list[str]] = {}
            for file in files:
                folder, _, day = file.rpartition("/")
                if day.endswith(".json") and folder and "/" not in folder:
                    days.setdefault(folder, []).append(file)
                elif file not in _LISTS and file != "users.json":
                    report.skip(file, "no list of messages")
            listing = sha256_json([READING, self.domain, users, names, sorted(channels)])[:16]
            for folder in sorted(days):
                known = channels.get(folder)
                if known is None:
                    report.mend(folder, "a channel that no list names: taken for private")
                channel = known or Channel("", folder, False)
                stamp = sha256_json([listing, channel.public, [export.stamp(file) for file in days[folder]]])
                reading = _Reading(self.path, f"slack/{folder}", channel, days[folder], users, names, self.domain)
                yield SourceFile(reading.name, stamp, reading.documents)


def is_export(path: Path) -> bool:
    """Whether a folder or a zip archive is a Slack export: it lists its users and its channels."""
    try:
        if path.is_dir():
            return (path / "users.json").is_file() and any((path / name).is_file() for name in _LISTS)
        if path.suffix.lower() != ".zip" or not path.is_file():
            return False
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            return "users.json" in names and bool(names & set(_LISTS))
    except (OSError, zipfile.BadZipFile):
        return False


class _Folder:
    """The files of an export that was unpacked."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        found = [*self._root.glob("*"), *self._root.glob("*/*")]
        return sorted(path.relative_to(self._root).as_posix() for path in found if path.is_file())

    def stamp(self, name: str) -> str:
        status = (self._root / name).stat()
        return f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()


class _Archive:
    """The files of an export as it comes."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def names(self) -> list[str]:
        return sorted(info.filename for info in self._archive.infolist() if not info.is_dir())

    def stamp(self, name: str) -> str:
        info = self._archive.getinfo(name)
        return f"{info.file_size:x}-{info.CRC:x}"

    def size(self, name: str) -> int:
        return self._archive.getinfo(name).file_size

    def read(self, name: str) -> bytes:
        return self._archive.read(name)


_Export = _Folder | _Archive


@contextmanager
def _opened(path: Path) -> Iterator[_Export]:
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Name a Slack export: a zip archive, or the folder it unpacks to.")
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no zip archive ({error}).", "Download the export once more.") from error
    with archive:
        yield _Archive(archive)


def _entries(export: _Export, name: str, report: ReadReport, source: str = "") -> list[Message]:
    """The objects of a file of the export; none, and a note on `source`, when it cannot be read."""
    source = source or name
    try:
        if export.size(name) > _LARGEST:
            report.skip(source, "too large", f"{name}: the limit is {_LARGEST / 1e6:,.0f} MB")
            return []
        data = export.read(name)
        value = json.loads(data)
    except _DAMAGED as error:
        what, detail = reason(error) if isinstance(error, UNPACKING_ERRORS) else ("damaged", str(error))
        report.skip(source, what, f"{name}: {detail}")
        return []
    report.bytes += len(data)
    found: list[Message] = [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
    if not isinstance(value, list) or len(found) < len(value):
        report.skip(source, "entries that are no objects", name)
    return found


def _channels(export: _Export, names: Collection[str], report: ReadReport) -> dict[str, Channel]:
    """The channels by the folder that holds their days; talks between people are kept under their ids."""
    found: dict[str, Channel] = {}
    for name, public in _LISTS.items():
        for entry in _entries(export, name, report) if name in names else ():
            id, title = entry.get("id"), entry.get("name") or entry.get("id")
            if isinstance(id, str) and isinstance(title, str):
                channel = Channel(id, title, public and not entry.get("is_private"))
                found.setdefault(title, channel)
                found.setdefault(id, channel)
    return found


def _user_name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile")
    if not isinstance(profile, Mapping):
        profile = {}
    names = (profile.get("display_name"), profile.get("real_name"), user.get("real_name"), user.get("name"))
    return next((name for name in names if isinstance(name, str) and name.strip()), "")


def _ts(message: Message) -> str:
    return str(message["ts"])


def _time(message: Message) -> float:
    return float(_ts(message))


def _moment(time: str) -> datetime | None:
    """Slack's name of a message is when it was written: seconds since 1970, with six digits more."""
    try:
        return datetime.fromtimestamp(float(time), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _day(time: str) -> str:
    return f"{_moment(time):%Y-%m-%d}"


@dataclass(slots=True)
class _Reading:
    """Reads one channel."""

    export: Path
    name: str
    channel: Channel
    files: list[str]
    users: Mapping[str, str]
    channels: Mapping[str, str]
    domain: str

    def documents(self, report: ReadReport) -> Iterator[Document]:
        threads: dict[str, list[Message]] = {}
        seen: set[tuple[str, str]] = set()
        for file, number, message in self._messages(report):
            time = message.get("ts")
            if not isinstance(time, str) or _moment(time) is None:
                report.skip(f"{file}:{number}", "message without a time")
            elif message.get("subtype") in _EVENTS:
                report.skip(f"{file}:{number}", "a message of Slack about the channel", str(message["subtype"]))
            elif (time, str(message.get("user"))) in seen:  # a reply that is shown in the channel too
                report.skip(f"{file}:{number}", "said twice")
            else:
                seen.add((time, str(message.get("user"))))
                root = message.get("thread_ts")
                alone = not isinstance(root, str) or _moment(root) is None
                report.parts["messages"] += 1
                threads.setdefault(_day(time) if alone else str(root), []).append(message)
        for key, messages in sorted(threads.items(), key=lambda item: min(map(_time, item[1]))):
            document = self._document(key, sorted(messages, key=_time))
            if document is None:
                report.skip(f"slack/{self.channel.name}#{key}", "messages without text", f"{len(messages):,}")
                continue
            report.documents += 1
            yield document

    def _messages(self, report: ReadReport) -> Iterator[tuple[str, int, Message]]:
        """Each with its file and its number there."""
        with _opened(self.export) as export:
            for file in self.files:
                report.files += 1
                for number, message in enumerate(_entries(export, file, report, self.name), start=1):
                    yield file, number, message

    def _document(self, key: str, messages: list[Message]) -> Document | None:
        lines, people = [], []
        for message in messages:
            said = canonical(said_in(message, self.users, self.channels))
            if said:
                who = canonical(author_of(message, self.users))
                people.append(who)
                lines.append(f"{who} ({_moment(_ts(message)):%Y-%m-%d %H:%M}): {said}")
        if not lines:
            return None
        first, last = _moment(_ts(messages[0])), _moment(_ts(messages[-1]))
        id = f"slack/{self.channel.name}#{key}"
        about: dict[str, Any] = {"kind": "page", "module": "", "cluster": id, "channel": self.channel.name}
        about |= {"people": sorted(set(people)), "date": f"{first:{_ISO}}", "last": f"{last:{_ISO}}"}
        if not self.channel.public:
            about["access"] = [f"slack:{self.channel.name}"]
        source = id
        if self.domain and self.channel.id:
            time = _ts(messages[0]) if "-" in key else key
            about["url"] = source = f"https://{self.domain}/archives/{self.channel.id}/p{time.replace('.', '')}"
        begins = lines[0].partition(": ")[2].partition("\n")[0][:80]
        title = f"#{self.channel.name} on {key}" if "-" in key else f"#{self.channel.name}: {begins}"
        return Document(id, source, canonical(title), canonical("\n\n".join(lines)), "text", (), about)
