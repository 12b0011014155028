"""The exam: questions derived from the documents themselves, with the answers known by construction.

A question is the first sentence of a docstring or of a section. Its own text is masked from the index, so it must be
answered from the rest of its passage. Some clusters (a cluster is one file: what is written together is alike) are
withheld from the index whole; their questions have no answer there, and a good system says so.

Three splits, disjoint by cluster: `harvest` is what users ask and systems learn from, `dev` sets thresholds, `test`
compares systems and is seen by neither. Where a cluster goes depends on its name and the seed only, so a corpus that
grows moves no file from one split to another.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.workspace import Workspace
from windlass.evaluate.sentences import first_sentence, normal, plain, sentences, why_no_question

Split = Literal["harvest", "dev", "test"]
SPLITS: tuple[Split, ...] = ("harvest", "dev", "test")
SHARES: Mapping[Split, float] = {"harvest": 0.40, "dev": 0.15, "test": 0.45}

_FEW_CLUSTERS = 100
"""With fewer clusters than this, hashes alone would leave a split short: they are dealt out in turn instead."""
_FEW_FILES = 12
"""With fewer files than this, sections stand in as clusters."""
_TELLING = 40
"""A sentence this long that stands in two documents tells the same in both."""
_WITHHELD_CLUSTERS = 20
"""From about so many clusters of a split, or more, its unanswerable questions come where the files allow it."""
_SHARED = "same sentence in another document"
_ENOUGH = 200
"""Fewer test questions than this get a warning: the gate will hardly decide on them."""


@dataclass(frozen=True, slots=True)
class ExamItem:
    id: str
    question: str
    document: str | None
    """The document that answers; None when nothing in the index does."""
    split: Split
    cluster: str
    source: str
    """The document the question was taken from; equal to `document` where there is one."""
    start: int
    end: int
    """Span of `source` that the index must not hold."""
    heading: str
    kind: str

    @property
    def answerable(self) -> bool:
        return self.document is not None


@dataclass(frozen=True, slots=True)
class Exam:
    items: Sequence[ExamItem]
    withheld: Sequence[str]
    """Documents that the index must not hold at all."""
    documents: int
    dropped: Mapping[str, int]
    """Reason -> how many first sentences did not become questions."""
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Candidate:
    document: Document
    cluster: str
    question: str
    span: tuple[int, int]
    section: tuple[int, int]
    heading: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.document.id}\n{self.question}".encode()).hexdigest()[:16]


@dataclass(slots=True)
class _Pool:
    candidates: list[_Candidate] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def derive_exam(
    ws: Workspace,
    corpus: Artifact,
    *,
    seed: int = 0,
    per_cluster: int = 40,
    unanswerable: float = 0.12,
    keep: Collection[str] = (),
    name: str = "exam",
) -> Artifact:
    """The exam of a corpus as an artifact of kind `dataset`. The card holds counts and `warnings` to be shown.

    per_cluster: at most so many questions of one cluster. unanswerable: share of questions without an answer.
    keep: clusters that are never withheld. Raises `InputError` when the corpus yields no answerable question.
    """
    documents = list(read_documents(corpus.path / "documents.jsonl"))
    exam = derive(documents, seed=seed, per_cluster=per_cluster, unanswerable=unanswerable, keep=keep)
    counts = count(exam.items)
    with ws.artifacts.build("dataset", name) as draft:
        draft.add_parent("corpus", corpus)
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in exam.items)
        settings = {"seed": seed, "per_cluster": per_cluster, "unanswerable": unanswerable, "keep": sorted(keep)}
        write_json(draft.path / "exam.json", {"settings": settings, "withheld": list(exam.withheld)})
        draft.card = {
            "items": len(exam.items),
            "counts": counts,
            "withheld_documents": len(exam.withheld),
            "dropped": dict(exam.dropped),
            "warnings": list(exam.warnings),
            **settings,
        }
        (draft.path / "README.md").write_text(_data_card(exam, counts, settings), encoding="utf-8")
    return draft.done


def load_items(exam: Artifact, split: Split | None = None) -> list[ExamItem]:
    """The items, of one split or all. Raises `InputError` naming the row that is broken."""
    path = exam.path / "items.jsonl"
    items: list[ExamItem] = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                items.append(ExamItem(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not an exam item ({error}).", "Derive it again.") from error
    return [item for item in items if split is None or item.split == split]


def masked_spans(items: Iterable[ExamItem]) -> dict[str, list[tuple[int, int]]]:
    """Document id -> spans that the index must leave out, in order. Pass the items of all splits."""
    spans: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for item in items:
        spans[item.source].add((item.start, item.end))
    return {document: sorted(found) for document, found in spans.items()}


def withheld_documents(exam: Artifact) -> frozenset[str]:
    """Ids of the documents that the index must leave out entirely."""
    return frozenset(json.loads((exam.path / "exam.json").read_text(encoding="utf-8"))["withheld"])


def derive(
    documents: Sequence[Document],
    *,
    seed: int = 0,
    per_cluster: int = 40,
    unanswerable: float = 0.12,
    keep: Collection[str] = (),
) -> Exam:
    """The exam of these documents; a pure function of its arguments."""
    if not 0 <= unanswerable < 0.5 or per_cluster < 1:
        raise InputError("An exam needs per_cluster >= 1 and a share of unanswerable questions from 0 to below 0.5.")
    pages = [document for document in documents if not _is_source(document)]
    by_section = len({_file_of(page) for page in pages}) < _FEW_FILES
    pool = _candidates(pages, by_section)
    _drop_shared(pool, pages)
    _thin(pool, per_cluster, seed)
    if not pool.candidates:
        reasons = ", ".join(f"{n} {reason}" for reason, n in pool.dropped.most_common()) or "no prose at all"
        raise InputError(
            f"None of {len(pages)} documents yields a question ({reasons}).",
            "The exam is made from first sentences of sections; add documents with headings and prose.",
        )
    sizes = Counter(candidate.cluster for candidate in pool.candidates)
    splits = _assign(sizes, seed)
    withheld = _withhold(sizes, splits, unanswerable, keep, seed)
    if not by_section:
        _drop_told_elsewhere(pool, pages, withheld)
    items = sorted(
        (_item(c, splits[c.cluster], c.cluster in withheld, by_section) for c in pool.candidates),
        key=lambda item: (SPLITS.index(item.split), item.cluster, item.source, item.start),
    )
    hidden = [] if by_section else _hidden(documents, withheld, {candidate.cluster for candidate in pool.candidates})
    return Exam(items, hidden, len(pages), dict(pool.dropped.most_common()), _warnings(items, by_section, pool.dropped))


def count(items: Iterable[ExamItem]) -> dict[str, dict[str, int]]:
    """split -> {answerable, unanswerable, clusters}."""
    found: dict[str, dict[str, int]] = {}
    clusters: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        found[split] = {"answerable": 0, "unanswerable": 0, "clusters": 0}
    for item in items:
        found[item.split]["answerable" if item.answerable else "unanswerable"] += 1
        clusters[item.split].add(item.cluster)
        found[item.split]["clusters"] = len(clusters[item.split])
    return found


# candidates ----------------------------------------------------------------------------------------------------------


def _file_of(document: Document) -> str:
    return str(document.metadata.get("cluster") or document.source)


def _is_source(document: Document) -> bool:
    return bool(document.metadata.get("kind") == "source")


def _candidates(pages: Sequence[Document], by_section: bool) -> _Pool:
    pool = _Pool()
    for page in pages:
        for start, end, heading in _parts(page):
            span = first_sentence(page.text, start, end)
            if span is None:
                pool.dropped["no prose below the heading"] += 1
                continue
            question = plain(page.text[slice(*span)])
            rest = page.text[start : span[0]] + page.text[span[1] : end]
            if reason := why_no_question(question, rest):
                pool.dropped[reason] += 1
                continue
            file = _file_of(page)
            cluster = f"{file}#{start}" if by_section else file
            pool.candidates.append(_Candidate(page, cluster, question, span, (start, end), heading))
    return pool


def _parts(page: Document) -> list[tuple[int, int, str]]:
    """(start, end, heading) of each text that has a first sentence of its own, without its heading's line.

    A docstring is one part, which begins below the signature; a page has one part per section.
    """
    body = page.metadata.get("body")
    if isinstance(body, int):
        return [(body, len(page.text), page.title)]
    starts = sorted({section.start: section.heading for section in page.sections}.items())
    parts: list[tuple[int, int, str]] = []
    if not starts or page.text[: starts[0][0]].strip():
        parts.append((0, starts[0][0] if starts else len(page.text), page.title))
    for (start, heading), following in zip(starts, [*(at for at, _ in starts[1:]), len(page.text)]):
        line = page.text.find("\n", start, following)
        parts.append((following if line < 0 else line + 1, following, heading))
    return [part for part in parts if page.text[part[0] : part[1]].strip()]


def _drop_shared(pool: _Pool, pages: Sequence[Document]) -> None:
    """A sentence that stands in two documents asks for neither in particular."""
    owners: dict[str, set[str]] = defaultdict(set)
    for page in pages:
        for sentence in sentences(page.text):
            owners[sentence].add(page.id)
    asked = Counter(normal(candidate.question) for candidate in pool.candidates)
    kept = []
    for candidate in pool.candidates:
        raw = normal(candidate.document.text[slice(*candidate.span)])
        if asked[normal(candidate.question)] > 1 or len(owners[raw]) > 1:
            pool.dropped[_SHARED] += 1
        else:
            kept.append(candidate)
    pool.candidates = kept


def _thin(pool: _Pool, per_cluster: int, seed: int) -> None:
    """Keeps a random `per_cluster` of every cluster: more questions of one file add little that is independent."""
    taken: Counter[str] = Counter()
    kept = []
    for candidate in sorted(pool.candidates, key=lambda c: _chance(c.id, seed)):
        taken[candidate.cluster] += 1
        if taken[candidate.cluster] <= per_cluster:
            kept.append(candidate)
        else:
            pool.dropped["enough questions of this file"] += 1
    pool.candidates = kept


def _drop_told_elsewhere(pool: _Pool, pages: Sequence[Document], withheld: frozenset[str]) -> None:
    """A question of a withheld document is unanswerable only if no document that stays repeats what it says."""
    staying = {
        sentence
        for page in pages
        if _file_of(page) not in withheld
        for sentence in sentences(page.text)
        if len(sentence) >= _TELLING
    }
    kept = []
    for candidate in pool.candidates:
        own = sentences(candidate.document.text[slice(*candidate.section)])
        if candidate.cluster in withheld and not staying.isdisjoint(own):
            pool.dropped["withheld, but told elsewhere too"] += 1
        else:
            kept.append(candidate)
    pool.candidates = kept


# splits --------------------------------------------------------------------------------------------------------------


def _chance(name: str, seed: int, purpose: str = "") -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _assign(sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    order = sorted(sizes, key=lambda cluster: _chance(cluster, seed, "split"))
    if len(order) >= _FEW_CLUSTERS:
        places = {cluster: _chance(cluster, seed, "split") for cluster in order}
    else:
        # The golden ratio's multiples spread evenly over [0, 1) however few they are; 0.7 begins with the test split.
        places = {cluster: (0.7 + i * 0.6180339887) % 1.0 for i, cluster in enumerate(order)}
    bounds: list[tuple[float, Split]] = []
    for split in SPLITS:
        bounds.append((SHARES[split] + (bounds[-1][0] if bounds else 0.0), split))
    return {
        cluster: next((split for bound, split in bounds if place < bound), "test") for cluster, place in places.items()
    }


def _withhold(
    sizes: Mapping[str, int], splits: Mapping[str, Split], share: float, keep: Collection[str], seed: int
) -> frozenset[str]:
    """Clusters to withhold: in every split about `share` of its questions.

    Small clusters come first: the same number of questions from more files says more about abstention, and fewer
    documents go missing from the index. A cluster that would overshoot the share by as much again is left alone.
    """
    chosen: set[str] = set()
    for split in SPLITS:
        wanted = share * sum(size for cluster, size in sizes.items() if splits[cluster] == split)
        small = max(1.0, wanted / _WITHHELD_CLUSTERS)
        inside = sorted(
            (cluster for cluster in sizes if splits[cluster] == split),
            key=lambda cluster: (sizes[cluster] > small, _chance(cluster, seed, "withhold")),
        )
        have = 0
        for cluster in inside:
            if cluster not in keep and have < wanted and have + sizes[cluster] <= 2 * wanted:
                chosen.add(cluster)
                have += sizes[cluster]
    return frozenset(chosen)


def _hidden(documents: Sequence[Document], withheld: frozenset[str], examined: set[str]) -> list[str]:
    """Documents of withheld clusters; and sources of examined files, which hold the masked docstrings once more."""
    return sorted(
        document.id
        for document in documents
        if _file_of(document) in withheld or (_is_source(document) and _file_of(document) in examined)
    )


def _item(candidate: _Candidate, split: Split, withheld: bool, by_section: bool) -> ExamItem:
    # Where sections are the clusters, a withheld one is masked whole, as its document has to stay.
    start, end = candidate.section if withheld and by_section else candidate.span
    return ExamItem(
        id=candidate.id,
        question=candidate.question,
        document=None if withheld else candidate.document.id,
        split=split,
        cluster=candidate.cluster,
        source=candidate.document.id,
        start=start,
        end=end,
        heading=candidate.heading,
        kind=str(candidate.document.metadata.get("kind", "")),
    )


# report --------------------------------------------------------------------------------------------------------------


def _warnings(items: Sequence[ExamItem], by_section: bool, dropped: Mapping[str, int]) -> list[str]:
    counts = count(items)
    found = []
    if by_section:
        found.append(
            f"Fewer than {_FEW_FILES} files: sections stand in as clusters, so the splits are less independent."
        )
    if dropped.get(_SHARED, 0) > len(items):
        found.append(
            f"{dropped[_SHARED]} first sentences stand in more than one document and ask for none: the documents seem "
            "to hold copies of pages, for example as Markdown and as HTML."
        )
    test = counts["test"]
    if test["answerable"] < _ENOUGH:
        found.append(
            f"Only {test['answerable']} answerable test questions in {test['clusters']} clusters: "
            "intervals will be wide and the gate will often be INCONCLUSIVE. More documents help."
        )
    found += [f"The {split} split has no answerable question." for split in SPLITS if not counts[split]["answerable"]]
    found += [
        f"The {split} split has no unanswerable question: abstention cannot be judged on it."
        for split in SPLITS
        if counts[split]["answerable"] and not counts[split]["unanswerable"]
    ]
    return found


def _data_card(exam: Exam, counts: Mapping[str, Mapping[str, int]], settings: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"| {split} | {c['answerable']:,} | {c['unanswerable']:,} | {c['clusters']:,} |" for split, c in counts.items()
    )
    dropped = "\n".join(f"- {number:,}: {reason}" for reason, number in exam.dropped.items()) or "- none"
    warnings = "\n".join(f"- {warning}" for warning in exam.warnings) or "- none"
    return f"""# Exam

{len(exam.items):,} questions derived from {exam.documents:,} documents. A question is the first sentence of a docstring
or section; that span is to be masked from the index. {len(exam.withheld):,} documents are to be left out of the index:
those whose questions are to have no answer, and source files that repeat masked docstrings.

| split | answerable | unanswerable | clusters |
|---|---|---|---|
{rows}

The splits share no cluster (file). Settings: `{json.dumps(settings, sort_keys=True)}`.

First sentences that did not become questions:

{dropped}

Warnings:

{warnings}

Limits: the questions are statements in their authors' words, not what users type; one document counts as right per
question although another may also help.
"""
