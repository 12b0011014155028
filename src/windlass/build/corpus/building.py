"""`build_corpus`: from sources to an artifact in four steps, each of which says what it did to how many documents.

1. Each document is judged by itself (`judging.py`), by whichever engine (`engines.py`); what is kept waits on disk.
2. Duplicates among them are found (`duplicates.py`).
3. What remains is split by cluster (`split.py`) and written.
4. It is weighed for the mix (`mixing.py`), counted, and described (`card.py`).

Memory does not grow with the text: documents, keys and reasons wait on disk, and one byte or so per document in memory.
The same input and settings give the same digest, whichever engine and however many processes did the work.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.build.corpus.card import data_card
from windlass.build.corpus.decontamination import Contamination
from windlass.build.corpus.duplicates import Duplicates
from windlass.build.corpus.engines import here
from windlass.build.corpus.evaluation_sets import contamination
from windlass.build.corpus.judging import Engine, Judge, Label, finished
from windlass.build.corpus.ledger import Ledger, LedgerReport
from windlass.build.corpus.mixing import mixture
from windlass.build.corpus.reading import DOCUMENTS, REPORT, trained_on
from windlass.build.corpus.settings import CorpusSettings
from windlass.build.corpus.split import border
from windlass.build.corpus.staging import Stage
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.progress import Progress
from windlass.core.readers import Folder, ReadReport, RowFields, Source
from windlass.core.readers.reading import MAX_BYTES
from windlass.core.workspace import Workspace

_COLUMNS = ("documents", "bytes", "train_documents", "train_bytes", "heldout_documents", "heldout_bytes")
_BATCH = 256
_BATCH_CHARS = 250_000


@dataclass(frozen=True, slots=True)
class Part:
    """One source of a corpus of several, by the name and with the weight that it has in the mix."""

    name: str
    source: Source
    weight: float | None = None
    """Its share of the training text, relative to the others'. None: as much as there is."""
    licence: str = ""
    """As the source says, when empty."""


def parts_of(settings: CorpusSettings, max_bytes: int = MAX_BYTES) -> list[Part]:
    """The sources of a recipe, to be read from disk; files over `max_bytes` are skipped. Refuses those not there."""
    if not settings.sources:
        raise InputError("The recipe of the corpus names no source.", 'Write [[sources]] and below it path = "...".')
    parts = [
        Part(
            item.name or item.path.resolve().name,
            Folder(item.path, max_bytes, RowFields(item.text, item.id)),
            item.weight,
            item.licence,
        )
        for item in settings.sources
    ]
    for name, count in Counter(part.name for part in parts).items():
        if count > 1:
            raise InputError(f"{count} sources of the recipe are called '{name}'.", "Give each a name of its own.")
    for item in settings.sources:
        if not item.path.exists():
            raise InputError(
                f"{item.path} does not exist.", "Correct the path of this source; it is relative to the recipe."
            )
    return parts


def build_corpus(
    ws: Workspace,
    sources: Source | Sequence[Part],
    settings: CorpusSettings | None = None,
    *,
    name: str = "corpus",
    engine: Engine = here,
    progress: Progress | None = None,
) -> Artifact:
    """Reads the sources, drops what is poor or repeated, splits the rest, stores it as an artifact of kind `corpus`.

    A corpus of several parts has their names before its documents' ids, in `metadata.part`, and in the report's mix.
    Raises `InputError` when no document is left.
    """
    settings = settings or CorpusSettings()
    parts = list(sources) if isinstance(sources, Sequence) else [Part("", sources)]
    said = {"source": ", ".join(part.source.name for part in parts), **settings.as_json()}
    with (
        ws.runs.start("corpus", name, config=said, seed=settings.seed) as run,
        ws.artifacts.build("corpus", name, run=run.id) as draft,
    ):
        started, cpu = time.perf_counter(), time.process_time()
        work = draft.path / "work"
        work.mkdir()
        with closing(Ledger(draft.path)) as ledger, closing(Stage(work / "stage")) as stage:
            reading = LedgerReport(ledger)
            duplicates = Duplicates(work / "duplicates")
            evaluation = contamination(settings)
            with closing(engine(Judge(settings, evaluation), _batches(parts, reading, progress))) as batches:
                for judged in batches:
                    stage.append(judged)
                    duplicates.add(judged.keys)
                    ledger.enter(judged)
            stage.seal()
            if not stage.count:
                raise _nothing_left(said["source"], ledger)
            dropped = _drop_duplicates(stage, duplicates, settings.near, ledger)
            written = _write(draft.path / DOCUMENTS, stage, dropped, settings.heldout)
        shutil.rmtree(work)
        report = _report(parts, settings, written, ledger, reading, evaluation)
        write_json(draft.path / REPORT, report)
        (draft.path / "README.md").write_text(data_card(name, report), encoding="utf-8")
        total, lost = report["kept"]["all"], sum(report["dropped_by_reason"].values())
        draft.card.update(
            {
                "description": f"Text of {report['source']}",
                "licence": report["licence"],
                "documents": total["documents"],
                "bytes": total["bytes"],
                "train_bytes": total["train_bytes"],
                "heldout_bytes": total["heldout_bytes"],
                "dropped": lost,
                "skipped_files": sum(ledger.dropped(reading=True).values()),
            }
        )
        run.log(
            0,
            documents_read=reading.documents,
            documents=total["documents"],
            bytes=total["bytes"],
            heldout_bytes=total["heldout_bytes"],
            dropped=lost,
            skipped_files=draft.card["skipped_files"],
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - cpu,
        )
    return draft.done


def _batches(parts: Sequence[Part], reading: ReadReport, progress: Progress | None) -> Iterator[list[Document]]:
    """Documents a few at a time. In a corpus of several parts their names say which one they come from."""
    batch: list[Document] = []
    size = done = 0
    for part in parts:
        for document in part.source.documents(reading):
            batch.append(_named(document, part.name) if part.name else document)
            size += len(document.text)
            if len(batch) == _BATCH or size >= _BATCH_CHARS:
                yield batch
                done += len(batch)
                if progress is not None:
                    progress.update(done)
                batch, size = [], 0
    if batch:
        yield batch


def _named(document: Document, part: str) -> Document:
    metadata = {**document.metadata, "part": part, "cluster": f"{part}/{document.metadata['cluster']}"}
    return dataclasses.replace(
        document, id=f"{part}/{document.id}", source=f"{part}/{document.source}", metadata=metadata
    )


def _drop_duplicates(stage: Stage, duplicates: Duplicates, near: float, ledger: Ledger) -> NDArray[np.bool_]:
    """Says in the ledger which documents repeat others; returns a truth value per document."""
    dropped = np.zeros(stage.count, bool)
    entered = {"documents_in": stage.count, "bytes_in": sum(int(r["bytes"].sum()) for _, r in stage.chunks())}
    lost: Counter[str] = Counter()
    for twin in duplicates.find(stage, near):
        dropped[twin.number] = True
        size = int(stage.record(twin.number)["bytes"])
        lost.update(documents=1, bytes=size)
        detail = f"of {stage.row(twin.of)['id']}"
        if twin.reason == "near duplicate":
            detail += f", similarity {twin.similarity:.3f}"
        ledger.drop("duplicates", stage.row(twin.number)["id"], twin.reason, detail, size)
    left = {f"{what}_out": entered[f"{what}_in"] - lost[what] for what in ("documents", "bytes")}
    ledger.passed("duplicates", entered | left)
    return dropped


def _write(path: Path, stage: Stage, dropped: NDArray[np.bool_], heldout: float) -> dict[Label, NDArray[np.int64]]:
    """Writes the final rows, each with its split; returns what was written by label, as in _COLUMNS."""
    lowest, highest = 1.0, 0.0
    for first, records in stage.chunks():
        places = records["place"][~dropped[first : first + len(records)]]
        if len(places):
            lowest, highest = min(lowest, float(places.min())), max(highest, float(places.max()))
    below = border(heldout, lowest, highest)
    counts = np.zeros((len(stage.labels), len(_COLUMNS)), np.int64)
    rows = stage.rows()
    with path.open("wb") as out:
        for first, records in stage.chunks():
            kept = ~dropped[first : first + len(records)]
            held = records["place"] < below
            for wanted, apart, row in zip(kept.tolist(), held.tolist(), rows):  # `rows` last: it goes on
                if wanted:
                    out.write(finished(row, "heldout" if apart else "train") + b"\n")
            for column, some in ((0, kept), (2, kept & ~held), (4, kept & held)):
                np.add.at(counts[:, column], records["label"][some], 1)
                np.add.at(counts[:, column + 1], records["label"][some], records["bytes"][some].astype(np.int64))
    return dict(zip(stage.labels, counts, strict=True))


def _nothing_left(source: str, ledger: Ledger) -> InputError:
    reasons = sorted(ledger.dropped().items(), key=lambda item: -item[1])[:3]
    return InputError(
        f"No document of {source} was worth keeping: "
        + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        + ".",
        "Add documents with text, or ask less of them (quality, rules, languages).",
    )


def _report(
    parts: Sequence[Part],
    settings: CorpusSettings,
    counts: Mapping[Label, NDArray[np.int64]],
    ledger: Ledger,
    reading: ReadReport,
    evaluation: Contamination | None,
) -> dict[str, Any]:
    kept = _sums(counts, lambda label: label.kind)
    kinds = trained_on(kept)
    train = _sums({label: count for label, count in counts.items() if label.kind in kinds}, lambda label: label.part)
    several = bool(parts[0].name)
    licences = {part.name: part.licence or part.source.licence for part in parts}
    return {
        "source": ", ".join(part.source.name for part in parts),
        "licence": "; ".join(dict.fromkeys(licences.values())),
        "licences": licences if several else {},
        "settings": settings.as_json(),
        "kept": kept | _sums(counts, lambda label: "all"),
        "parts": _sums(counts, lambda label: label.part) if several else {},
        "languages": _sums(counts, lambda label: label.language) if settings.languages else {},
        "mix": mixture(
            {part.name: part.weight for part in parts}, {part: row["train_bytes"] for part, row in train.items()}
        )
        if several
        else {},
        "licences_of_rows": _sums(
            {label: row for label, row in counts.items() if label.licence}, lambda label: label.licence
        ),
        "evaluation_texts": {
            "looked_for": evaluation.texts - evaluation.too_short if evaluation else 0,
            "too_short": evaluation.too_short if evaluation else 0,
        },
        "dropped_by_reason": ledger.dropped(),
        "stages": ledger.as_json(),
        "read": {
            "files": reading.files,
            "bytes": reading.bytes,
            "documents": reading.documents,
            "skipped_by_reason": ledger.dropped(reading=True),
        },
    }


def _sums(counts: Mapping[Label, NDArray[np.int64]], group: Callable[[Label], str]) -> dict[str, dict[str, int]]:
    """Adds up what has the same name, and leaves out what holds nothing."""
    sums: dict[str, NDArray[np.int64]] = {}
    for label, count in counts.items():
        sums[group(label)] = sums.get(group(label), 0) + count
    return {name: dict(zip(_COLUMNS, sums[name].tolist())) for name in sorted(sums) if sums[name][0]}
