"""The whole way from a question to its answer or to silence: searched, read, decided; nothing is told which passage.

The passages of two sets of questions stand in one index, but for a third of them, so that nothing answers their
questions. The rule that decides is fitted on the questions of the one set, and measured on those of the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from bench._answering_data import Ranked, Row
from bench.retrieval import corpus_of

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.answers.reading import ReadingRule, fit_reading
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.answers import answer_f1
from windlass.core.documents import Document
from windlass.core.protocols import Embedder, Extract, Extracting
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Set:
    name: str
    passages: Sequence[str]
    """Those that are in the index."""
    questions: Sequence[str]
    answers: Sequence[Sequence[str]]
    """Texts; none where the index does not hold the passage."""
    clusters: Sequence[str]
    """The passage each question was written for."""


def gathered(name: str, rows: Sequence[Row], every: int = 1) -> Set:
    """`every`: ask only every so many of the questions; all passages are there."""
    asked = [row for row in rows if row["answers"]][::every]  # what has an answer is decided here, by what is withheld
    passages = list(dict.fromkeys(row["context"] for row in rows))
    held = {passage for passage in passages if hashlib.sha256(passage.encode()).digest()[0] % 3}
    return Set(
        name,
        [passage for passage in passages if passage in held],
        [row["question"] for row in asked],
        [[one["text"] for one in row["answers"]] if row["context"] in held else [] for row in asked],
        [row["context"] for row in asked],
    )


def indexed(ws: Workspace, sets: Sequence[Set], embedder: Embedder) -> HybridIndex:
    passages = [passage for one in sets for passage in one.passages]
    documents = [Document(f"{n:04}", f"{n:04}", "", passage) for n, passage in enumerate(passages)]
    return HybridIndex.open(build_index(ws, corpus_of(ws, documents, "passages"), embedder), embedder)


def fitted(index: HybridIndex, one: Set, reader: Extracting) -> ReadingRule:
    """The rule that tells right readings from wrong ones on this set."""
    assistant = Assistant(index, reader=reader)
    readings = [assistant.readings(assistant.find(question)) for question in one.questions]
    right = [
        [bool(answers) and answer_f1(reading.answer.quote, answers) >= 0.5 for reading in some]
        for some, answers in zip(readings, one.answers, strict=True)
    ]
    return fit_reading(readings, right, only=("margin", "rank"))


def answering(
    index: HybridIndex, one: Set, reader: Extracting, rule: ReadingRule
) -> tuple[Mapping[str, list[str]], np.ndarray]:
    """What each contender says to each question, "" for nothing, and how sure the reader's best answer is."""
    asked = [ChatRequest([Message("user", question)]) for question in one.questions]
    once = Once(reader)
    ours = Assistant(index, AssistantSettings(reading=rule), reader=once)
    always = Assistant(index, AssistantSettings(reading=replace(rule, threshold=0.0)), reader=once)
    talking = Assistant(index, AssistantSettings(abstention=AbstentionRule(threshold=0.0)))
    found = [ours.find(question) for question in one.questions]
    readings = [ours.readings(some) for some in found]
    quoted = [_first(talking, request) for request in asked]
    fits = [some.probability >= AbstentionRule().threshold for some in found]
    said: dict[str, list[str]] = {
        "best sentence of all, by BM25": _sentences(index, one),
        "quoting, always": quoted,
        "quoting": [text if fit else "" for text, fit in zip(quoted, fits, strict=True)],
        "reader, always": [_first(always, request) for request in asked],
        "reader": [_first(ours, request) for request in asked],
    }
    return said, np.array([some[0].probability if some else 0.0 for some in readings])


class Once:
    """A reader that reads nothing twice."""

    def __init__(self, reader: Extracting) -> None:
        self.name, self.digest = reader.name, reader.digest
        self._reader = reader
        self._kept: dict[tuple[str, ...], Sequence[Extract | None]] = {}

    def find(self, question: str, texts: Sequence[str]) -> Sequence[Extract | None]:
        key = (question, *texts)
        if key not in self._kept:
            self._kept[key] = self._reader.find(question, texts)
        return self._kept[key]


def _sentences(index: HybridIndex, one: Set) -> list[str]:
    passages = [passage.quote for passage in index.passages()]
    sentences = [passage[a:b] for passage in passages for a, b in sentence_spans(passage)]
    ranked = Ranked(sentences)
    return [sentences[ranked.best(question)[0]] for question in one.questions]


def _first(assistant: Assistant, request: ChatRequest) -> str:
    citations = assistant.complete(request).citations
    return citations[0].quote if citations else ""
