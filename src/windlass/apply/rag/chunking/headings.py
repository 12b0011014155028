"""What stands above a passage: the title of its document and the path of headings that holds where it stands."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from windlass.apply.rag.chunking.masks import Secrets, Span
from windlass.core.documents import Document


class Outline:
    """The sections of one document. A heading that tells what is masked is left out, and such a title replaced."""

    def __init__(self, document: Document, masked: Sequence[Span]) -> None:
        secrets = Secrets([document.text[start:end] for start, end in masked])
        self.title = document.source if secrets.told_by(document.title) else document.title
        self.starts = [0]
        """Where sections start, ascending."""
        self._paths = [""]
        """The path of headings that holds from there on."""
        open_sections: list[tuple[int, str]] = []
        for section in sorted(document.sections, key=lambda s: s.start):
            hidden = any(start <= section.start < end for start, end in masked) or secrets.told_by(section.heading)
            open_sections = [s for s in open_sections if s[0] < section.level]
            heading = section.heading.strip()
            open_sections.append((section.level, "" if hidden or heading == self.title.strip() else heading))
            self.starts.append(min(section.start, len(document.text)))
            self._paths.append(" > ".join(h for _, h in open_sections if h))

    @property
    def longest(self) -> str:
        return max(self._paths, key=len)

    def path(self, start: int, end: int) -> str:
        """Of the section that holds most of `start:end`."""
        first = max(bisect_left(self.starts, start + 1) - 1, 0)
        best, most = "", -1
        for i in range(first, len(self.starts)):
            if self.starts[i] >= end:
                break
            until = min(end, self.starts[i + 1] if i + 1 < len(self.starts) else end)
            if until - max(start, self.starts[i]) > most:
                best, most = self._paths[i], until - max(start, self.starts[i])
        return best
