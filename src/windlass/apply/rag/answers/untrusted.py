"""What documents say is data: found, marked, and kept from giving orders.

Passages reach a language model between marks that whoever wrote them cannot write. Where that is not enough they can be
*spotlighted* (Hines et al., arXiv 2403.14720): `datamark` puts a character that stands nowhere else between all words,
`encode` gives the passages in base64, which only large models read well. Sentences in which a scanner finds orders to a
model are left out, and what stands in them supports nothing; or they are only named.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from windlass.core.protocols import Scan
from windlass.core.values import Citation

Spotlight = Literal["delimit", "datamark", "encode"]
Injections = Literal["withhold", "flag", "ignore"]

LEFT_OUT = "[left out: words that are no information]"
_PRIVATE, _PRIVATE_SIZE = 0xE000, 0x1900
"""Unicode's private use area: characters that no document has a reason to hold."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A sentence that reads as if it were told to a language model."""

    place: Citation
    kind: str


def suspects(passages: Sequence[Citation], scan: Scan) -> list[Suspect]:
    """What the scanner finds in the passages, in their order."""
    return [
        Suspect(part(passage, finding.start, finding.end), finding.kind)
        for passage in passages
        for finding in scan(passage.quote)
    ]


def part(passage: Citation, start: int, end: int) -> Citation:
    """`passage.quote[start:end]` with its place in the document."""
    return replace(passage, start=passage.start + start, end=passage.start + end, quote=passage.quote[start:end])


def within(citation: Citation, found: Sequence[Suspect]) -> bool:
    """Whether any of its characters stand in a sentence that was found."""
    return any(
        citation.document == one.place.document and citation.start < one.place.end and one.place.start < citation.end
        for one in found
    )


def without(passage: Citation, found: Sequence[Suspect], instead: str = LEFT_OUT) -> str:
    """The passage's text with `instead` in place of what was found. One space keeps every other character's place."""
    kept, at = [], 0
    for start, end in _inside(passage, found):
        kept += [passage.quote[at:start], instead if instead.strip() else " " * (end - start)]
        at = end
    return "".join([*kept, passage.quote[at:]])


def warned(found: Sequence[Suspect], withheld: bool) -> list[str]:
    """A line for each document in which something was found."""
    by_document: dict[str, list[Suspect]] = defaultdict(list)
    for one in found:
        by_document[one.place.source or one.place.document].append(one)
    lines = []
    for name, some in by_document.items():
        kinds = ", ".join(dict.fromkeys(one.kind for one in some))
        count = "A sentence" if len(some) == 1 else f"{len(some)} sentences"
        done = "left out" if withheld else "kept as material"
        lines.append(f"{count} of {name} read like words to a language model ({kinds}): {done}.")
    return lines


@dataclass(frozen=True, slots=True)
class Lit:
    """Passages as a model is shown them."""

    texts: Sequence[str]
    code: str
    """What the marks around each passage hold."""
    mark: str = ""
    """What stands between the words, if anything."""

    def read_back(self, reply: str) -> str:
        """A reply with spaces where it repeats the mark: quotations are compared with the passages as they are."""
        return reply.replace(self.mark, " ") if self.mark else reply


def spotlit(passages: Sequence[Citation], spotlight: Spotlight, left_out: Sequence[Suspect] = ()) -> Lit:
    """The same passages are shown the same way, to the byte: providers' caches want that."""
    joined = "\0".join(passage.quote for passage in passages)
    code = hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:12]
    texts = [without(passage, left_out) for passage in passages]
    if spotlight == "encode":
        return Lit([base64.b64encode(text.encode("utf-8", "replace")).decode() for text in texts], code)
    if spotlight == "datamark":
        mark = next(m for n in range(_PRIVATE_SIZE) if (m := _private(int(code, 16) + n)) not in joined)
        return Lit([re.sub(r"[^\S\n]+", mark, text) for text in texts], code, mark)
    return Lit(texts, code)


def _private(number: int) -> str:
    return chr(_PRIVATE + number % _PRIVATE_SIZE)


def _inside(passage: Citation, found: Sequence[Suspect]) -> list[tuple[int, int]]:
    """Spans of the passage's text, in order; those that overlap are one."""
    spans = sorted(
        (max(0, one.place.start - passage.start), min(len(passage.quote), one.place.end - passage.start))
        for one in found
        if within(passage, [one])
    )
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
