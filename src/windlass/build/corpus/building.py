"""`build_corpus`: one pass over a source, each document kept or dropped for a stated reason, then the split.

Memory does not grow with the text: kept documents go to disk at once and are read back only to verify a near duplicate.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from windlass.build.corpus.card import data_card
from windlass.build.corpus.duplicates import Duplicates
from windlass.build.corpus.quality import preset, refusal
from windlass.build.corpus.split import split_clusters
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.readers import ReadReport, Source, canonical
from windlass.core.workspace import Workspace

DOCUMENTS = "documents.jsonl"
REPORT = "report.json"


def build_corpus(
    ws: Workspace,
    source: Source,
    *,
    name: str = "corpus",
    heldout: float = 0.1,
    near: float = 0.8,
    min_chars: int = 30,
    progress: Progress | None = None,
) -> Artifact:
    """Reads `source`, drops what is poor or repeated, splits the rest, and stores it as an artifact of kind `corpus`.

    `heldout`: expected share of clusters that training never sees. `near`: Jaccard similarity from which a document
    repeats an earlier one of its kind. `min_chars`: least number of characters other than white space. The same input
    gives the same digest. Raises `InputError` when no document is left.
    """
    if not 0 <= heldout < 1:
        raise InputError(
            f"The held-out share is {heldout}, but must be at least 0 and below 1.", "0.1 holds back a tenth."
        )
    settings = {"heldout": heldout, "near": near, "min_chars": min_chars}
    with (
        ws.runs.start("corpus", name, config={"source": source.name, **settings}) as run,
        ws.artifacts.build("corpus", name, run=run.id) as draft,
    ):
        started, cpu = time.perf_counter(), time.process_time()
        staged = draft.path / "staged.jsonl"
        reading = ReadReport()
        drops: list[dict[str, str]] = []
        with closing(_Stage(staged)) as stage:
            duplicates = Duplicates(stage.text, near)
            for done, document in enumerate(source.documents(reading), start=1):
                drop = _judge(document, stage, duplicates, min_chars)
                if drop:
                    drops.append(drop)
                if progress is not None:
                    progress.update(done, f"{len(drops):,} dropped")
        if not stage.count:
            reasons = Counter(drop["reason"] for drop in drops).most_common(3)
            raise InputError(
                f"No document of {source.name} was worth keeping: "
                + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
                + ".",
                "Add documents with text, or lower min_chars.",
            )
        kept = _write(draft.path / DOCUMENTS, staged, split_clusters(stage.clusters, heldout))
        staged.unlink()
        report = {
            "source": source.name,
            "licence": source.licence,
            "settings": settings,
            "kept": kept,
            "dropped_by_reason": dict(sorted(Counter(drop["reason"] for drop in drops).items())),
            "dropped": drops,
            "read": reading.as_json(),
        }
        write_json(draft.path / REPORT, report)
        (draft.path / "README.md").write_text(data_card(name, report), encoding="utf-8")
        total = kept["all"]
        draft.card.update(
            {
                "description": f"Text of {source.name}",
                "licence": source.licence,
                "documents": total["documents"],
                "bytes": total["bytes"],
                "train_bytes": total["train_bytes"],
                "heldout_bytes": total["heldout_bytes"],
                "dropped": len(drops),
                "skipped_files": len(reading.skipped),
            }
        )
        run.log(
            0,
            documents_read=reading.documents,
            documents=total["documents"],
            bytes=total["bytes"],
            heldout_bytes=total["heldout_bytes"],
            dropped=len(drops),
            skipped_files=len(reading.skipped),
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu,
        )
    return draft.done


class _Stage:
    """The documents kept so far, on disk, each found again by its offset."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("w+b")
        self._end = 0
        self.ids: set[str] = set()
        self.clusters: set[str] = set()

    @property
    def count(self) -> int:
        return len(self.ids)

    def append(self, document: Document) -> int:
        line = json.dumps(_row(document), ensure_ascii=False).encode() + b"\n"
        self._file.seek(offset := self._end)
        self._file.write(line)
        self._end += len(line)
        self.ids.add(document.id)
        self.clusters.add(document.metadata["cluster"])
        return offset

    def row(self, offset: int) -> dict[str, Any]:
        self._file.seek(offset)
        return dict(json.loads(self._file.readline()))

    def text(self, offset: int) -> str:
        return str(self.row(offset)["text"])

    def close(self) -> None:
        self._file.close()


def _row(document: Document) -> dict[str, Any]:
    """As `dataclasses.asdict`, without its deep copies."""
    sections = [asdict(section) for section in document.sections]
    return {
        "id": document.id,
        "source": document.source,
        "title": document.title,
        "text": document.text,
        "format": document.format,
        "sections": sections,
        "metadata": dict(document.metadata),
    }


def _judge(document: Document, stage: _Stage, duplicates: Duplicates, min_chars: int) -> dict[str, str] | None:
    """Keeps the document, or says why not."""
    kind = document.metadata["kind"]
    drop = {"id": document.id, "kind": kind}
    if document.id in stage.ids:
        return drop | {"reason": "repeated id", "detail": "an earlier document has the same id"}
    if canonical(document.text) != document.text:
        return drop | {"reason": "not canonical", "detail": "its reader must apply windlass.core.readers.canonical"}
    if refused := refusal(document.text, preset("light", min_chars=min_chars), kind=kind):
        return drop | {"reason": refused[0], "detail": refused[1]}
    twin, keep = duplicates.find(document.text, kind)
    if twin is None:
        keep(stage.append(document))
        return None
    reason = "exact duplicate" if twin.exact else "near duplicate"
    return drop | {
        "reason": reason,
        "detail": f"of {stage.row(twin.key)['id']}" + ("" if twin.exact else f", similarity {twin.similarity:.3f}"),
    }


def _write(path: Path, staged: Path, split: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Writes the final rows, each with its split; returns counts and bytes by kind and of all."""
    counts: dict[str, Counter[str]] = {}
    with path.open("w", encoding="utf-8", newline="\n") as out:
        for row in _rows(staged):
            part = split[row["metadata"]["cluster"]]
            row["metadata"]["split"] = part
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            size = len(row["text"].encode())
            for kind in (row["metadata"]["kind"], "all"):
                counts.setdefault(kind, Counter()).update(
                    {"documents": 1, "bytes": size, f"{part}_documents": 1, f"{part}_bytes": size}
                )
    columns = ("documents", "bytes", "train_documents", "train_bytes", "heldout_documents", "heldout_bytes")
    return {kind: {column: counts[kind][column] for column in columns} for kind in sorted(counts)}


def _rows(staged: Path) -> Iterator[dict[str, Any]]:
    with staged.open("rb") as file:
        for line in file:
            yield json.loads(line)
