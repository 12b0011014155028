"""What is done to one document: each stage gives back the document, changed or not, or drops it for a stated reason.

Order matters. Broken characters are mended before anybody reads words; what stands in an evaluation set is cut before
the quality of the rest is judged; personal data is masked last, so that no placeholder counts as a word.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from windlass.build.corpus import pii
from windlass.build.corpus.decontamination import Contamination, without
from windlass.build.corpus.language import identify
from windlass.build.corpus.lines import trimmed, trims
from windlass.build.corpus.quality import refusal
from windlass.build.corpus.repair import repaired
from windlass.build.corpus.rewriting import rewritten
from windlass.build.corpus.settings import CorpusSettings
from windlass.core.documents import Document
from windlass.core.readers import canonical


class Reason(NamedTuple):
    """Why a document was dropped or changed: one of a few phrases that can be counted, and a detail."""

    reason: str
    detail: str = ""


class Outcome(NamedTuple):
    """What a stage made of a document."""

    document: Document | None
    """None: dropped, for the only reason given."""
    reasons: Sequence[Reason] = ()


Stage = Callable[[Document], Outcome]


class Cleaning:
    """The stages that the settings ask for, by name, in their order."""

    def __init__(self, settings: CorpusSettings, contamination: Contamination | None = None) -> None:
        self._settings = settings
        self._rules = settings.quality_rules()
        self._contamination = contamination
        self.stages: dict[str, Stage] = {"text": self._check}
        if settings.repair:
            self.stages["repair"] = self._repair
        if settings.languages:
            self.stages["language"] = self._identify
        if contamination is not None:
            self.stages["decontamination"] = self._decontaminate
        if trims(self._rules):
            self.stages["lines"] = self._trim
        self.stages["quality"] = self._judge
        if settings.pii != "keep":
            self.stages["personal data"] = self._protect

    def _check(self, document: Document) -> Outcome:
        if canonical(document.text) != document.text:
            return _dropped("not canonical", "its reader must apply windlass.core.readers.canonical")
        return Outcome(document)

    def _repair(self, document: Document) -> Outcome:
        if not self._is_prose(document):
            return Outcome(document)
        notes: list[str] = []

        def mend(start: int, piece: str) -> str:
            better, note = repaired(piece)
            notes.extend([note] if note else [])
            return better

        mended = rewritten(document, mend)
        if mended is document:
            return Outcome(document)
        mended = _with_names(mended, lambda name: repaired(name)[0])
        return Outcome(mended, [Reason("characters mended", "; ".join(notes))])

    def _identify(self, document: Document) -> Outcome:
        if not self._is_prose(document):
            return Outcome(document)
        found = identify(document.text)
        if found.code not in self._settings.languages:
            return _dropped("another language", f"{found.code}, probability {found.probability:.2f}")
        return Outcome(_noted(document, language=found.code))

    def _decontaminate(self, document: Document) -> Outcome:
        assert self._contamination is not None
        overlaps = self._contamination.find(document.text)
        if not overlaps:
            return Outcome(document)
        sets = Counter(overlap.set for overlap in overlaps)
        first = overlaps[0]
        detail = f"{first.words} words of {first.item}" + (f" and {len(overlaps) - 1} more" if overlaps[1:] else "")
        if self._settings.contaminated == "drop":
            return _dropped(f"holds text of {first.set}", detail)

        def cut(start: int, piece: str) -> str:
            end = start + len(piece)
            inside = [
                dataclasses.replace(one, start=max(one.start, start) - start, end=min(one.end, end) - start)
                for one in overlaps
                if one.start < end and start < one.end
            ]
            return canonical(without(piece, inside)) if inside else piece

        return Outcome(rewritten(document, cut), [Reason(f"text of {name} cut out", detail) for name in sorted(sets)])

    def _trim(self, document: Document) -> Outcome:
        if not self._is_prose(document):
            return Outcome(document)
        headings = {section.start for section in document.sections}
        removed: Counter[str] = Counter()

        def trim(start: int, piece: str) -> str:
            heading, rest = (piece.partition("\n")[0], piece.partition("\n")[2]) if start in headings else ("", piece)
            left, found = trimmed(rest, self._rules)
            removed.update(found)
            return f"{heading}\n{left}".strip("\n") if found else piece

        left = rewritten(document, trim)
        return Outcome(left, [Reason(reason, f"{count} cut out") for reason, count in sorted(removed.items())])

    def _judge(self, document: Document) -> Outcome:
        language = document.metadata.get("language", "en")
        refused = refusal(document.text, self._rules, kind=document.metadata["kind"], language=language)
        return _dropped(*refused) if refused else Outcome(document)

    def _protect(self, document: Document) -> Outcome:
        kinds = self._settings.pii_kinds
        found: Counter[str] = Counter()

        def mask(start: int, piece: str) -> str:
            findings = pii.find(piece, kinds)
            found.update(finding.kind for finding in findings)
            return pii.mask(piece, findings) if findings else piece

        masked = rewritten(document, mask)
        named = _with_names(masked, lambda name: pii.mask(name, pii.find(name, kinds)))
        if named is document:
            return Outcome(document)
        found = found or Counter(title=1)  # what stands in a heading stands in the text, and is counted there
        if self._settings.pii == "drop":
            return _dropped("personal data", ", ".join(f"{count} {kind}" for kind, count in sorted(found.items())))
        reasons = [Reason(f"{kind} masked", f"{count} times") for kind, count in sorted(found.items())]
        return Outcome(_noted(named, masked=dict(sorted(found.items()))), reasons)

    def _is_prose(self, document: Document) -> bool:
        return document.metadata["kind"] in self._rules.prose_kinds


def _dropped(reason: str, detail: str) -> Outcome:
    return Outcome(None, [Reason(reason, detail)])


def _noted(document: Document, **facts: object) -> Document:
    return dataclasses.replace(document, metadata={**document.metadata, **facts})


def _with_names(document: Document, change: Callable[[str], str]) -> Document:
    """The document with its title and headings changed as its text was."""
    sections = tuple(dataclasses.replace(section, heading=change(section.heading)) for section in document.sections)
    title = change(document.title)
    if title == document.title and sections == tuple(document.sections):
        return document
    return dataclasses.replace(document, title=title, sections=sections)
