"""The exam: questions derived from the documents themselves, with the answers known by construction.

A question is the first sentence of a docstring or of a section. Its own text is masked from the index, so it must be
answered from the rest of its passage. Some clusters (a cluster is one file: what is written together is alike) are
withheld from the index whole; their questions have no answer there, and a good system says so.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field

from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, read_documents
from windlass.core.errors import InputError
from windlass.core.files import write_json
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.card import FEW_FILES, SHARED, data_card, warnings_of
from windlass.evaluate.exam.items import SPLITS, Exam, ExamItem, Split, count
from windlass.evaluate.exam.sentences import first_sentence, normal, plain, sentences, why_no_question
from windlass.evaluate.exam.splits import assign, chance, withhold

_TELLING = 40
"""A sentence this long that stands in two documents tells the same in both."""


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
        (draft.path / "README.md").write_text(data_card(exam, counts, settings), encoding="utf-8")
    return draft.done


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
    by_section = len({_file_of(page) for page in pages}) < FEW_FILES
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
    splits = assign(sizes, seed)
    withheld = withhold(sizes, splits, unanswerable, keep, seed)
    if not by_section:
        _drop_told_elsewhere(pool, pages, withheld)
    items = sorted(
        (_item(c, splits[c.cluster], c.cluster in withheld, by_section) for c in pool.candidates),
        key=lambda item: (SPLITS.index(item.split), item.cluster, item.source, item.start),
    )
    hidden = [] if by_section else _hidden(documents, withheld, {candidate.cluster for candidate in pool.candidates})
    return Exam(
        items, hidden, len(pages), dict(pool.dropped.most_common()), warnings_of(items, by_section, pool.dropped)
    )


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
            pool.dropped[SHARED] += 1
        else:
            kept.append(candidate)
    pool.candidates = kept


def _thin(pool: _Pool, per_cluster: int, seed: int) -> None:
    """Keeps a random `per_cluster` of every cluster: more questions of one file add little that is independent."""
    taken: Counter[str] = Counter()
    kept = []
    for candidate in sorted(pool.candidates, key=lambda c: chance(c.id, seed)):
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
