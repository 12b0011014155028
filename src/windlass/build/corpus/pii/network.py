"""What machines are called: e-mail addresses, IP addresses, MAC addresses, keys and passwords.

Each search jumps to a character that the format cannot do without (`@`, `:`), so that prose costs next to nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from windlass.core.redact import secret_spans

_DOMAIN = re.compile(r"@((?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}[^\W\d_]{2,24})(?![\w-])")
_LOCAL = re.compile(r"[\w.+%'&*=^{|}~!#$-]{1,64}\Z")
_RESERVED = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|local|noreply\.github\.com)$")
_NOBODY = frozenset({"git", "noreply", "no-reply", "donotreply", "do-not-reply"})
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_GROUPS = re.compile(r"[0-9A-Fa-f:]+(?:\.\d{1,3}){0,3}")
_HYPHENS = re.compile(r"-[0-9A-Fa-f]{2}-(?=[0-9A-Fa-f]{2}-)")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}\Z")
_LONGEST = 48
"""Characters of an IPv6 address with room for its zone."""


def secrets(text: str) -> Iterator[tuple[str, int, int]]:
    """Keys, tokens, private keys, and the user and password of a URL, as `core.redact` knows them."""
    for start, end in secret_spans(text):
        yield "secret", start, end


def emails(text: str) -> Iterator[tuple[str, int, int]]:
    """E-mail addresses, but not those of nobody: reserved domains (RFC 2606), `noreply`, `git@`."""
    if "@" not in text:
        return
    for match in _DOMAIN.finditer(text):
        local = _LOCAL.search(text, max(0, match.start() - 64), match.start())
        if local is None or _RESERVED.search(match[1].lower()):
            continue
        name = local[0].lstrip(".'*=&#!{|}~^$%-").rstrip(".")
        if name and name.lower() not in _NOBODY and text[match.start() - 1] != ".":
            yield "email", match.start() - len(name), match.end()


def addresses(text: str) -> Iterator[tuple[str, int, int]]:
    """IPv6 and MAC addresses. (IPv4 addresses are numbers: see `numbers`.)"""
    place = 0
    for match in _COLONS.finditer(text):
        if match.start() < place:
            continue
        start = match.start()
        while start and match.start() - start < 4 and text[start - 1] in "0123456789abcdefABCDEF":
            start -= 1
        groups = _GROUPS.match(text, start, start + _LONGEST)
        place = match.end() if groups is None else groups.end()
        if groups is None or (start and (text[start - 1].isalnum() or text[start - 1] in "_.:")):
            continue
        shown = groups[0].rstrip(":") if not groups[0].endswith("::") else groups[0]
        end = start + len(shown)
        if end < len(text) and (text[end].isalnum() or text[end] == "_"):
            continue
        if _MAC.match(shown):
            yield "mac", start, end
        elif _is_public_v6(shown):
            yield "ip", start, end
    for match in _HYPHENS.finditer(text):
        start, end = match.start() - 2, match.start() + 15
        if start >= 0 and _MAC.match(text[start:end]) and not _word_at(text, start - 1) and not _word_at(text, end):
            yield "mac", start, end


def _word_at(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place].isalnum() or text[place] in "-_")


def _is_public_v6(shown: str) -> bool:
    """`abc::def` is an address too, but far more often a name in a program: four groups, or one of 2000::/3."""
    if shown.count(":") < 4 and not re.match(r"[23][0-9a-fA-F]{3}:", shown):
        return False
    try:
        address = ipaddress.IPv6Address(shown)
    except ValueError:
        return False
    return address.is_global and any(map(str.isdigit, shown))


def is_public_v4(shown: str) -> bool:
    """A loopback, private or documentation address says nothing about anybody."""
    try:
        return ipaddress.IPv4Address(shown).is_global
    except ValueError:
        return False
