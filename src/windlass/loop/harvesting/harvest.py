"""Harvest: what users said about answers becomes a dataset to learn from.

A trace with feedback yields an item when it tells which document answers its question: the one that was cited when
the user approved, the one the user named when not. What was cited and rejected is kept as a negative. Everything else
is counted under the reason why it was left out.

Nothing that touches the exam's `dev` or `test` questions gets in: neither such a question nor a document of their
clusters. `check_leak` makes sure again before anything is trained.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from windlass.core.artifacts import Artifact
from windlass.core.documents import read_documents
from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.loop.harvesting.data_card import data_card
from windlass.loop.lineage.spans import asked, citations_of

FEEDBACK = "feedback"
"""Name of the scores that are harvested: 1 approves, 0 rejects; `metadata.correct_document` may name the right one."""
CORRECTION = "correct_answer"
"""Key of such a score's metadata: what should have been answered."""


@dataclass(frozen=True, slots=True)
class HarvestItem:
    id: str
    question: str
    document: str
    """Id of the document that answers."""
    negatives: Sequence[str]
    """Documents that were cited for it and rejected."""
    how: Literal["approved", "corrected", "synthetic"]
    cluster: str
    """What is written together is alike: the file that the document comes from."""
    traces: Sequence[str]
    split: str = "harvest"


@dataclass(slots=True)
class _Heard:
    """What is known about one question, from all its traces."""

    question: str
    approved: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)


def harvest(
    ws: Workspace, corpus: Artifact, exam: Artifact | None, *, task: str = "assistant", name: str = "harvest"
) -> Artifact:
    """The dataset of everything learnable in the scored traces of `task`; the card counts what was used and left out.

    The same traces and scores give the same digest. Raises `InputError` when nothing can be learned from.
    """
    skipped: Counter[str] = Counter()
    heard, scored = _listen(ws, task, skipped)
    clusters = clusters_of(corpus)
    guarded = Guarded.of(exam)
    items = sorted(_items(heard, clusters, guarded, skipped), key=lambda item: item.id)
    if not items:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in skipped.most_common()) or "no trace has any"
        raise InputError(
            f"No feedback on '{task}' can be learned from: {scored:,} scored traces ({reasons}).",
            f"Ask questions and score the answers: `windlass feedback TRACE up`. Scores must be called '{FEEDBACK}'.",
        )
    with ws.artifacts.build("dataset", name) as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
        draft.add_parent("corpus", corpus)
        if exam is not None:
            draft.add_parent("exam", exam)
        draft.card = {
            "description": f"Questions to '{task}' with the documents that answer them, from users' feedback.",
            "items": len(items),
            "how": dict(Counter(item.how for item in items)),
            "scored_traces": scored,
            "skipped": dict(skipped.most_common()),
            "authors": _authors(ws),
        }
        (draft.path / "README.md").write_text(_readme(draft.card), encoding="utf-8")
    return draft.done


def load_harvest(dataset: Artifact) -> list[HarvestItem]:
    """The items of a harvested dataset. Raises `InputError` naming the row that is broken."""
    path = dataset.path / "items.jsonl"
    items = []
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                items.append(HarvestItem(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise InputError(f"{path}, line {number}: not a harvested item ({error}).", "Harvest again.") from error
    return items


_SECTION = re.compile(r"#\d+$")
"""Ends the clusters of an exam over so few files that its splits share them, section by section."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What belongs to the exam's `dev` and `test` questions and must not be learned from.

    Where the exam's splits share files, only the questions can be kept apart, not the files.
    """

    questions: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()

    @classmethod
    def of(cls, exam: Artifact | None) -> Guarded:
        if exam is None:
            return cls()
        kept = [item for item in load_items(exam) if item.split != "harvest"]
        whole = [item for item in kept if not _SECTION.search(item.cluster)]
        return cls(
            frozenset(question_key(item.question) for item in kept),
            frozenset(item.source for item in whole),
            frozenset(item.cluster for item in whole),
        )

    def why(self, question: str, document: str, cluster: str) -> str | None:
        """Why this must not be learned from, or None."""
        if question_key(question) in self.questions:
            return "asked in the exam"
        if document in self.documents or cluster in self.clusters:
            return "about a file that the exam asks about"
        return None


def check_leak(dataset: Artifact, exam: Artifact) -> None:
    """Raises `InputError` if any item of `dataset` touches the exam's dev or test questions."""
    guarded = Guarded.of(exam)
    for item in load_harvest(dataset):
        why = guarded.why(item.question, item.document, item.cluster)
        if why:
            raise InputError(
                f"{dataset.ref}: item {item.id} ('{item.question[:60]}') is {why}; a comparison would be worthless.",
                "Harvest again with this exam.",
            )


def question_key(question: str) -> str:
    """What makes two questions the same: their words, whatever case and punctuation."""
    return " ".join(re.findall(r"\w+", question.casefold()))


# from scores to items -----------------------------------------------------------------------------------------------


def _listen(ws: Workspace, task: str, skipped: Counter[str]) -> tuple[dict[str, _Heard], int]:
    latest: dict[str, ScoreRecord] = {}
    for score in ws.store.scores(name=FEEDBACK):  # oldest first: a later score replaces an earlier one
        latest[score.subject.partition("/")[0]] = score
    heard: dict[str, _Heard] = {}
    scored = 0
    for trace, score in latest.items():
        spans = ws.store.trace(trace)
        root = next((span for span in spans if span.parent_id is None), None)
        if root is None:
            skipped["whose trace is not stored"] += 1
            continue
        if root.name != task:
            continue
        scored += 1
        question = asked(root).strip()
        if score.value is None:
            skipped["whose score is an error"] += 1
        elif root.status == "error":
            skipped["whose call failed"] += 1
        elif not question_key(question):
            skipped["without a question"] += 1
        else:
            cited = [str(citation["document"]) for citation in citations_of(root)]
            _hear(heard.setdefault(question_key(question), _Heard(question)), trace, score, cited)
    return heard, scored


def _hear(heard: _Heard, trace: str, score: ScoreRecord, cited: Sequence[str]) -> None:
    right = score.metadata.get("correct_document")
    heard.traces.append(trace)
    if isinstance(right, str):
        heard.corrected.append(right)
        heard.rejected.extend(document for document in cited if document != right)
    elif score.value is not None and score.value >= 0.5:
        heard.approved.extend(cited[:1])  # approval of an answer is approval of what it leads with
    else:
        heard.rejected.extend(cited[:1])


def _items(
    heard: Mapping[str, _Heard], clusters: Mapping[str, str], guarded: Guarded, skipped: Counter[str]
) -> Iterable[HarvestItem]:
    for key, one in heard.items():
        known = one.corrected or one.approved  # a named document says more than an approval
        count = len(one.traces)
        if not known:
            reason = "rejected without naming a better document" if one.rejected else "approved without a citation"
            skipped[reason] += count
            continue
        document, votes = Counter(known).most_common(1)[0]
        if document not in clusters:
            skipped["about a document that is not in the corpus"] += count
            continue
        if votes * 2 <= len(known) and len(set(known)) > 1:
            skipped["on which users disagree"] += count
            continue
        why = guarded.why(one.question, document, clusters[document])
        if why:
            skipped[why] += count
            continue
        skipped["that repeat a question"] += count - 1
        negatives = [other for other in dict.fromkeys(one.rejected) if other != document and other in clusters]
        yield HarvestItem(
            id=_identifier(key),
            question=one.question,
            document=document,
            negatives=negatives,
            how="corrected" if one.corrected else "approved",
            cluster=clusters[document],
            traces=sorted(one.traces),
        )
    if not skipped["that repeat a question"]:
        del skipped["that repeat a question"]


def _identifier(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def clusters_of(corpus: Artifact) -> dict[str, str]:
    """Document id -> the file it belongs to, as the exam sees it."""
    return {
        document.id: str(document.metadata.get("cluster") or document.source)
        for document in read_documents(corpus.path / "documents.jsonl")
    }


def _authors(ws: Workspace) -> dict[str, int]:
    return dict(Counter(score.author for score in ws.store.scores(name=FEEDBACK)).most_common())


def _readme(card: Mapping[str, Any]) -> str:
    counted = {
        f"{card['items']:,} questions from {card['scored_traces']:,} scored traces. Left out:": card["skipped"],
        "Scores that were given:": {f"by {author}": count for author, count in card["authors"].items()},
    }
    use = "training retrieval on these documents. The items hold users' questions word for word."
    return data_card("Harvested feedback", card, counted, use)
