"""`find` and `mask`: all finders over one text, and their findings made disjoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from windlass.build.corpus.pii import network, numbers, people

Kind = Literal[
    "secret", "email", "iban", "card", "national_id", "ip", "mac", "phone", "birth_date", "address", "person"
]  # fmt: skip
"""Most certain first: of two findings that overlap the earlier kind stands."""
EVERY_KIND: tuple[Kind, ...] = get_args(Kind)
DEFAULT_KINDS: tuple[Kind, ...] = EVERY_KIND[:8]
"""Those with a format of their own. Birth dates, addresses and names are rules of thumb: they must be asked for."""


class Finding(NamedTuple):
    kind: Kind
    start: int
    end: int


_FINDERS: tuple[tuple[frozenset[str], Callable[[str], Iterable[tuple[str, int, int]]]], ...] = (
    (frozenset({"secret"}), network.secrets),
    (frozenset({"email"}), network.emails),
    (frozenset({"ip", "mac"}), network.addresses),
    (frozenset({"iban", "national_id"}), numbers.lettered),
    (frozenset({"card", "national_id", "ip", "phone"}), numbers.numbers),
    (frozenset({"birth_date"}), people.birth_dates),
    (frozenset({"address"}), people.addresses),
    (frozenset({"person"}), people.names),
)


def find(text: str, kinds: Collection[Kind] = DEFAULT_KINDS) -> list[Finding]:
    """The findings of these kinds, in order and disjoint. Placeholders of `mask` are never found again."""
    wanted = set(kinds)
    if unknown := wanted.difference(EVERY_KIND):
        raise ValueError(f"no kind of personal data: {', '.join(sorted(unknown))}; known: {', '.join(EVERY_KIND)}")
    rank = {kind: place for place, kind in enumerate(EVERY_KIND)}
    found = [
        Finding(kind, start, end)
        for served, finder in _FINDERS
        if not wanted.isdisjoint(served)
        for kind, start, end in finder(text)
        if kind in wanted
    ]
    if len(found) < 2:
        return found
    found.sort(key=lambda one: (rank[one.kind], one.start, -one.end))
    kept: list[Finding] = []
    for kind in EVERY_KIND:
        kept = list(_merged(kept, [one for one in found if one.kind == kind]))
    return kept


def _merged(kept: list[Finding], more: list[Finding]) -> Iterator[Finding]:
    """Both in the order of the text, without those of `more` that overlap one that stands already."""
    place = 0
    end = 0
    for one in more:
        while place < len(kept) and kept[place].end <= one.start:
            yield kept[place]
            place += 1
        if one.start >= end and (place == len(kept) or kept[place].start >= one.end):
            yield one
            end = one.end
    yield from kept[place:]


def mask(text: str, findings: Iterable[Finding]) -> str:
    """The text with a placeholder such as `[EMAIL]` for each of the findings, which must be disjoint and in order."""
    parts: list[str] = []
    place = 0
    for kind, start, end in findings:
        if start < place:
            raise ValueError(f"finding at {start} overlaps the one before it, which ends at {place}")
        parts += (text[place:start], f"[{kind.upper()}]")
        place = end
    return "".join([*parts, text[place:]])
