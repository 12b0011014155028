"""Strikes secrets out of text before it is stored: key formats of well-known providers, bearer tokens, private keys,
passwords in URLs, and the values of environment variables whose names say that they are secret.

It runs on every span, so it must cost little where there is nothing to strike. One alternation of all formats costs
about 16 µs per 1.5 KB, because its first characters are common letters. Instead each family of formats is anchored on
a rare character that all its members contain: `re` skips to that character quickly, looks at what follows and then
behind, which brings the same text to about 3 µs. Only where an anchor bites does the family's full pattern run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

MARK = "[redacted]"

_FAMILIES: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...] = tuple(
    ("://" if anchor[0] == "@" else anchor[0], re.compile(anchor, re.ASCII), re.compile(full, re.ASCII))
    for anchor, full in (
        (
            r"-(?=[\w-]{12})(?:(?<=\bsk-)|(?<=\bxox[a-z]-)|(?<=\bxapp-)|(?<=\bglpat-))",
            r"\b(?:sk-|xox[a-z]-|xapp-|glpat-)[\w-]{12,}",
        ),
        (
            r"_(?=\w{16})(?:(?<=\bgh[a-z]_)|(?<=\bhf_)|(?<=\bgsk_)|(?<=\b[sr]k_)|(?<=\bgithub_))",
            r"\b(?:gh[a-z]_|github_pat_|hf_|gsk_|[sr]k_live_|[sr]k_test_)\w{12,}",
        ),
        (r"A(?=[\w-]{19})(?<=\bA)(?:KIA|SIA|Iza)", r"\bA(?:KIA|SIA|Iza)[\w-]{16,}"),
        (r"J(?<=\beyJ)(?=[\w-]{8,}\.)", r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"),
        # In prose "Basic mathematics" and "bearer certificates" are no secrets: a token is long and has a digit or '='.
        (
            r"B(?:earer|EARER|asic) +[\w.~+/=-]{12}",
            r"(?:(?<=\bBearer )|(?<=\bBEARER )|(?<=\bBasic )) *(?=[^\s\"]*[0-9=])[\w.~+/=-]{12,}",
        ),
        (
            r"b(?:earer|asic) +[\w.~+/=-]{12}",
            r"(?:(?<=\bbearer )|(?<=\bbasic )) *(?=[^\s\"]*[0-9=])[\w.~+/=-]{12,}",
        ),
        (
            r"P(?:RIVATE KEY-----)",
            r'-----BEGIN [A-Z ]*PRIVATE KEY-----[^"]*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=")|\Z)',
        ),
        (r"@(?<=[^\s/@]@)", r"(?<=://)[^\s/@:\"]*:[^\s/@\"]+(?=@)"),
    )
)
"""(rare character, quick test that starts with it, what is struck out). Passwords stand in URLs, and addresses of mail
bear an @ as well: for them it is the rarer `://`."""


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Where keys, tokens, private keys and passwords in URLs stand, in order and disjoint."""
    spans: list[tuple[int, int]] = []
    for character, anchor, secret in _FAMILIES:
        if character in text and anchor.search(text) is not None:
            spans += (match.span() for match in secret.finditer(text))
    apart: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if not apart or start >= apart[-1][1]:
            apart.append((start, end))
    return apart


_NAMES = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SHORTEST = 8
"""Characters. A shorter value ("1", "test") would strike out ordinary words."""


class Redactor:
    """Call it with text, plain or JSON, and get the text without secrets.

    `names` are further variables of the environment that hold secrets, whatever they are called. `refresh` reads the
    environment again: keys may be set after the start.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, *, names: Collection[str] = ()) -> None:
        self._environment = os.environ if environment is None else environment
        self._names = frozenset(names)
        self._values: tuple[str, ...] = ()
        self.refresh()

    def refresh(self) -> None:
        values = set()
        for name, around in self._environment.items():
            value = around.strip()
            if len(value) >= _SHORTEST and (name in self._names or _NAMES.search(name)):
                values.add(value)
                values.add(json.dumps(value, ensure_ascii=False)[1:-1])  # as it stands inside JSON text
        self._values = tuple(sorted(values, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for value in self._values:
            if value in text:
                text = text.replace(value, MARK)
        for character, anchor, secret in _FAMILIES:
            if character in text and anchor.search(text) is not None:
                text = secret.sub(MARK, text)
        return text


_TOO_SHORT = 4
"""Characters. To strike out less would spoil the text and hide nothing."""


def struck(text: str, secrets: Iterable[str], mark: str = MARK) -> str:
    """The text without these secrets, as they are, and as JSON and addresses write them."""
    for key in secrets:
        if len(key) >= _TOO_SHORT:
            text = re.sub("".join(map(_written, key)), mark, text)
    return text


def _written(letter: str) -> str:
    """How a letter may be written: after a backslash or several (JSON within JSON), or by its number."""
    if letter.isalnum() or letter in "-_.~" or not letter.isascii():
        return re.escape(letter)
    return rf"(?:\\*{re.escape(letter)}|%(?i:{ord(letter):02x}))"


_PUBLIC = (
    "-version", "referer", "host", "connection", "user-agent", "content-type", "content-length", "accept", "-encoding",
)  # fmt: skip
"""How the names of headers end that hold no secret."""


def secret_headers(headers: Mapping[str, str]) -> Iterator[str]:
    """The values of headers that may be secret: all that is not known to be public. `Bearer abc` is also `abc`."""
    for name, value in headers.items():
        if len(value) >= _SHORTEST and not name.lower().endswith(_PUBLIC):
            yield value
            yield value.rpartition(" ")[2]
