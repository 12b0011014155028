"""The ledger of a corpus: everything that was left out or changed is named in a file, and counted with a few examples.

Names go to disk at once, so that a million removals cost no more memory than ten.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from windlass.build.corpus.judging import Judged
from windlass.core.readers import ReadReport

DROPPED = "dropped.jsonl"
CHANGED = "changed.jsonl"
_EXAMPLES = 5


class Ledger:
    """Writes DROPPED and CHANGED in `folder`; `as_json` is what the report tells of them."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, IO[str]] = {
            name: (folder / name).open("w", encoding="utf-8", newline="\n") for name in (DROPPED, CHANGED)
        }
        self._stages: dict[str, Counter[str]] = {}
        self._reasons: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}

    def drop(self, stage: str, id: str, reason: str, detail: str, size: int = 0) -> None:
        """A document (or, in stage `read`, a file) that is left out. `size`: UTF-8 bytes of its text."""
        self._note(DROPPED, stage, id, reason, detail, size)

    def change(self, stage: str, id: str, reason: str, detail: str) -> None:
        """A document that is kept, but not as it was found."""
        self._note(CHANGED, stage, id, reason, detail, 0)

    def enter(self, judged: Judged) -> None:
        """All that a batch of judged documents tells."""
        for stage, counts in judged.stages.items():
            self.passed(stage, counts)
        for drop in judged.drops:
            self.drop(**drop)
        for change in judged.changes:
            self.change(**change)

    def passed(self, stage: str, counts: Mapping[str, int]) -> None:
        """Adds to `documents_in`, `bytes_in`, `documents_out` and `bytes_out` of a stage."""
        self._stages.setdefault(stage, Counter()).update(counts)

    def dropped(self, *, reading: bool = False) -> dict[str, int]:
        """Documents dropped by reason, or (`reading`) files not read by reason."""
        counts: Counter[str] = Counter()
        for stage, found in self._reasons.items():
            if (stage == "read") == reading:
                counts.update({reason: entry["count"] for reason, entry in found.get(DROPPED, {}).items()})
        return dict(sorted(counts.items()))

    def as_json(self) -> dict[str, Any]:
        """By stage, in their order: what went in and came out, and what was dropped and changed, by reason."""
        names = dict.fromkeys((*self._stages, *self._reasons))
        return {
            stage: {
                **self._stages.get(stage, {}),
                **{
                    what.removesuffix(".jsonl"): dict(sorted(self._reasons.get(stage, {}).get(what, {}).items()))
                    for what in (DROPPED, CHANGED)
                },
            }
            for stage in names
        }

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _note(self, what: str, stage: str, id: str, reason: str, detail: str, size: int) -> None:
        row = {"stage": stage, "id": id, "reason": reason, "detail": detail} | ({"bytes": size} if size else {})
        self._files[what].write(json.dumps(row, ensure_ascii=False) + "\n")
        found = self._reasons.setdefault(stage, {}).setdefault(what, {})
        entry = found.setdefault(reason, {"count": 0, "bytes": 0, "examples": []})
        entry["count"] += 1
        entry["bytes"] += size
        if len(entry["examples"]) < _EXAMPLES:
            entry["examples"].append(f"{id} ({detail})" if detail else id)


class LedgerReport(ReadReport):
    """A `ReadReport` whose notes go into the ledger; of the files skipped it remembers the first few."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def skip(self, source: str, reason: str, detail: str = "") -> None:
        self._ledger.drop("read", source, reason, detail)
        if len(self.skipped) < _EXAMPLES:
            super().skip(source, reason, detail)

    def mend(self, source: str, reason: str, detail: str = "") -> None:
        self._ledger.change("read", source, reason, detail)

    def reasons(self) -> dict[str, int]:
        return self._ledger.dropped(reading=True)
