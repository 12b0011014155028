"""What a Slack message says, as a person reads it: names instead of ids, addresses beside their words."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

_MARKED = re.compile(r"<([@#!]?)([^<>|]*)(?:\|([^<>]*))?>")


def plain_text(text: str, users: Mapping[str, str], channels: Mapping[str, str]) -> str:
    """Slack's mark-up (`<@U1>`, `<#C1|general>`, `<https://...|words>`, `&lt;`) as plain text."""

    def shown(match: re.Match[str]) -> str:
        sign, what, words = match[1], match[2].removeprefix("mailto:"), match[3]
        if sign == "@":
            return f"@{users.get(what, words or what)}"
        if sign == "#":
            return f"#{words or channels.get(what, what)}"
        if sign == "!":
            return words or f"@{what.partition('^')[0]}"
        return f"{words} ({what})" if words and words not in what else what

    return html.unescape(_MARKED.sub(shown, text))


def said_in(message: Mapping[str, Any], users: Mapping[str, str], channels: Mapping[str, str]) -> str:
    """All that a message shows: its text, the text of what it links to or a program sent, the names of its files."""
    parts = [plain_text(_string(message.get("text")), users, channels)]
    for attachment in _objects(message.get("attachments")):
        said = [_string(attachment.get(key)) for key in ("pretext", "title", "text")]
        said += [
            f"{_string(field.get('title'))}: {_string(field.get('value'))}"
            for field in _objects(attachment.get("fields"))
        ]
        text = "\n".join(filter(None, said)) or _string(attachment.get("fallback"))
        parts.append(plain_text(text, users, channels))
    if not any(part.strip() for part in parts):
        parts += [plain_text(text, users, channels) for text in _block_texts(message.get("blocks"))]
    names = [_string(file.get("title")) or _string(file.get("name")) for file in _objects(message.get("files"))]
    parts += [f"[file: {name}]" for name in names if name]
    return "\n".join(part.strip() for part in parts if part.strip())


def author_of(message: Mapping[str, Any], users: Mapping[str, str]) -> str:
    """Who wrote a message: a person, a program, or the name that it gave itself."""
    user = _string(message.get("user"))
    profile = message.get("user_profile")
    if not isinstance(profile, Mapping):
        profile = {}
    given = (message.get("username"), profile.get("real_name"), profile.get("name"), user, message.get("bot_id"))
    return users.get(user, "") or next((name for name in map(_string, given) if name), "somebody")


def _block_texts(blocks: Any) -> list[str]:
    """The texts in a message that was put together from blocks, in order."""
    found: list[str] = []
    pending = list(reversed(_objects(blocks)))
    while pending:
        block = pending.pop()
        text = block.get("text")
        if isinstance(text, str):
            found.append(text)
        inside = [text] if isinstance(text, Mapping) else []
        for key in ("elements", "fields"):
            inside += _objects(block.get(key))
        pending += reversed(inside)
    return found


def _objects(value: Any) -> list[Any]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
