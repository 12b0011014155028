"""A Slack export: threads with names, dates and links, and nobody finds what was said behind closed doors."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.readers import Folder, ReadReport, SlackExport, canonical, source_at
from windlass.core.readers.slack_text import plain_text

T = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def message(after: int, text: str, user: str = "U1", **more: Any) -> dict[str, Any]:
    return {"type": "message", "ts": f"{T + after}.000100", "user": user, "text": text, **more}


EXPORT: dict[str, Any] = {
    "users.json": [
        {"id": "U1", "name": "ann", "profile": {"display_name": "", "real_name": "Ann Rope"}},
        {"id": "U2", "name": "bob", "profile": {"display_name": "bobby"}},
    ],
    "channels.json": [{"id": "C1", "name": "general"}],
    "groups.json": [{"id": "G1", "name": "secret"}],
    "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
    "general/2023-11-14.json": [
        message(0, "Is the pawl &lt;new&gt;, <@U2>?", thread_ts=f"{T}.000100"),
        message(60, "Lunch?", "U2"),
        message(90, "<@U2> has joined the channel", "U2", subtype="channel_join"),
    ],
    "general/2023-11-15.json": [
        message(86_400, "Yes, see <https://x.org/pawl|the page>.", "U2", thread_ts=f"{T}.000100"),
        message(86_500, "Good morning", files=[{"name": "plan.pdf"}]),
    ],
    "secret/2023-11-14.json": [message(5, "We sell the company.")],
    "D1/2023-11-14.json": [message(6, "Between us.")],
    "unlisted/2023-11-14.json": [message(7, "Who knows.")],
}


def folder(path: Path, export: dict[str, Any] = EXPORT) -> Path:
    for name, value in export.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(value))
    return path


def archive(path: Path, export: dict[str, Any] = EXPORT) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as file:
        for name, value in export.items():
            file.writestr(name, json.dumps(value))
    return path.with_suffix(".zip")


def read(path: Path, domain: str = "") -> tuple[dict[str, Document], ReadReport]:
    report = ReadReport()
    return {one.id: one for one in SlackExport(path, domain).documents(report)}, report


@pytest.mark.parametrize("make", [folder, archive])
def test_a_thread_is_one_document_whatever_days_it_took(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found, report = read(make(tmp_path / "export"), "acme.slack.com")
    thread = found[f"slack/general#{T}.000100"]
    assert thread.text == (
        "Ann Rope (2023-11-14 22:13): Is the pawl <new>, @bobby?\n\n"
        "bobby (2023-11-15 22:13): Yes, see the page (https://x.org/pawl)."
    )
    assert thread.source == thread.metadata["url"] == f"https://acme.slack.com/archives/C1/p{T}000100"
    assert thread.title == "#general: Is the pawl <new>, @bobby?"
    assert thread.metadata["people"] == ["Ann Rope", "bobby"] and thread.metadata["date"] == "2023-11-14T22:13:20+00:00"
    day = found["slack/general#2023-11-15"]
    assert day.text.endswith("Good morning\n[file: plan.pdf]") and day.title == "#general on 2023-11-15"
    assert report.skips == {"a message of Slack about the channel": 1}
    assert report.parts["messages"] == 7 and report.documents == len(found) == 6
    assert all(canonical(one.text) == one.text for one in found.values())


@pytest.mark.parametrize("make", [folder, archive])
def test_only_public_channels_are_without_a_label(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found, report = read(make(tmp_path / "export"))
    labels = {id.partition("#")[0]: one.metadata.get("access") for id, one in found.items()}
    assert labels == {
        "slack/general": None, "slack/secret": ["slack:secret"], "slack/D1": ["slack:D1"],
        "slack/unlisted": ["slack:unlisted"],
    }  # fmt: skip
    assert "taken for private" in report.mended[0].reason


def test_a_channel_that_says_it_is_private_is_although_it_stands_among_the_public_ones(tmp_path: Path) -> None:
    export = EXPORT | {"channels.json": [{"id": "C1", "name": "general", "is_private": True}]}
    found, _ = read(folder(tmp_path, export))
    assert all(one.metadata.get("access") for one in found.values())


@pytest.mark.parametrize("make", [folder, archive])
def test_only_channels_with_new_messages_are_stamped_anew(tmp_path: Path, make: Callable[..., Path]) -> None:
    def stamps(path: Path) -> dict[str, str]:
        return {file.name: file.stamp for file in SlackExport(path).files(ReadReport())}

    before = stamps(make(tmp_path / "export"))
    assert before == stamps(tmp_path / "export" if make is folder else tmp_path / "export.zip")
    day = tmp_path / "export" / "general" / "2023-11-16.json"
    if make is folder:
        day.write_text(json.dumps([message(172_800, "More")]))
        after = stamps(tmp_path / "export")
    else:
        after = stamps(archive(tmp_path / "export", EXPORT | {"general/2023-11-16.json": [message(172_800, "More")]}))
    assert {name for name in before if before[name] != after[name]} == {"slack/general"}


def test_a_file_may_be_read_after_the_listing_has_ended(tmp_path: Path) -> None:
    files = list(SlackExport(archive(tmp_path / "export")).files(ReadReport()))
    assert sum(len(list(file.documents(ReadReport()))) for file in files) == 6


def test_exports_are_told_from_folders(tmp_path: Path) -> None:
    assert isinstance(source_at(folder(tmp_path / "slack")), SlackExport)
    assert isinstance(source_at(archive(tmp_path / "slack")), SlackExport)
    shutil.rmtree(tmp_path / "slack" / "general")
    (tmp_path / "slack" / "users.json").unlink()
    assert isinstance(source_at(tmp_path / "slack"), Folder)
    (tmp_path / "other.zip").write_bytes(b"PK\x03\x04 not a zip")
    assert isinstance(source_at(tmp_path / "other.zip"), Folder)


def test_what_is_broken_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    export = EXPORT | {
        "general/2023-11-14.json": [{"type": "message", "text": "when?"}, 7, message(1, ""), message(2, "Fine.")],
        "secret/2023-11-14.json": {"not": "a list"},
    }
    folder(tmp_path, export)
    (tmp_path / "D1" / "2023-11-14.json").write_text("[{")
    (tmp_path / "integration_logs.json").write_text("[]")
    found, report = read(tmp_path)
    assert "slack/general#2023-11-14" in found and "slack/D1#2023-11-14" not in found
    assert report.skips["message without a time"] == 1 and report.skips["entries that are no objects"] == 2
    assert report.skips["no list of messages"] == 1
    assert any(note.source == "slack/D1" and note.reason == "damaged" for note in report.skipped)


def test_an_empty_export_and_a_broken_archive_are_errors(tmp_path: Path) -> None:
    only = {"users.json": [], "channels.json": []}
    with pytest.raises(InputError, match="nothing to read"):
        read(folder(tmp_path / "empty", only))
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="no zip archive"):
        read(tmp_path / "broken.zip")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere.zip")


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<@U1> and <@U9> and <@U9|nine>", "@Ann and @U9 and @nine"),
        ("<#C1> <#C2|two>", "#general #two"),
        ("<!here> <!subteam^S1|@team> <!date^1392734382^{date}|Feb 18>", "@here @team Feb 18"),
        (
            "<https://x.org> <https://x.org|x.org> <mailto:a@x.org|a@x.org>",
            "https://x.org https://x.org a@x.org",
        ),
        ("1 &lt; 2 &amp;&amp; 3 &gt; 2, &amp;lt;", "1 < 2 && 3 > 2, &lt;"),
    ],
)
def test_mark_up_becomes_plain_text(marked: str, plain: str) -> None:
    assert plain_text(marked, {"U1": "Ann"}, {"C1": "general"}) == plain


def test_messages_of_programs_are_read(tmp_path: Path) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "Build *failed*"}}]
    sent = [{"pretext": "Alert", "fields": [{"title": "Host", "value": "db1"}]}]
    export = EXPORT | {
        "general/2023-11-14.json": [
            message(0, "", blocks=blocks, subtype="bot_message", username="CI", user=None),
            message(1, "", attachments=sent, user_profile={"real_name": "Cy"}, user="U7"),
        ]
    }
    found, _ = read(folder(tmp_path, export))
    assert found["slack/general#2023-11-14"].text == (
        "CI (2023-11-14 22:13): Build *failed*\n\nCy (2023-11-14 22:13): Alert\nHost: db1"
    )
