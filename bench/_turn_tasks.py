"""Typed tasks of `bench.turn` and `bench.takeover`: public labelled texts, weak and expensive ways to label them, and
traffic that is replayed with feedback."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from bench._data import data_folder
from numpy.typing import NDArray

from windlass import task
from windlass.apply.tasks import Surroundings, surrounded
from windlass.apply.tasks.functions import Task
from windlass.core.protocols import Embedder, Reranker
from windlass.core.trace import Recorder
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, Usage
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.tasks import surroundings

AUTHOR = "replayed"
_TOGETHER = 64
"""Calls between two flushes of the recorder."""


@task(prompt="topic:live")
def topic(text: str) -> Literal["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]:
    """Say what kind of answer the question asks for."""


@task(prompt="tone:live")
def tone(text: str) -> Literal["neg", "pos"]:
    """Say whether the sentence of a review speaks well of the film."""


@dataclass(frozen=True, slots=True)
class Labelled:
    text: str
    label: str


@dataclass(frozen=True, slots=True)
class Data:
    """Disjoint parts of a public set, drawn at random."""

    known: Sequence[Labelled]
    """What the incumbent starts from."""
    traffic: Sequence[Sequence[Labelled]]
    """What users send in, in portions, a turn after each."""
    unused: Sequence[Labelled]
    """For the measurements of the benchmark alone."""


def data(name: Literal["topic", "tone"], known: int, portions: Sequence[int], unused: int, seed: int = 0) -> Data:
    """Each text is there once, whatever case. Raises `SystemExit` where the public data is absent."""
    file, label = {
        "topic": ("classification/trec_qc/train.jsonl.gz", "coarse"),
        "tone": ("classification/sentence_polarity/sentence_polarity.jsonl.gz", "label"),
    }[name]
    path = data_folder() / file
    if not path.is_file():
        raise SystemExit(f"{path} is not here; set WINDLASS_DATA to the folder of public data.")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        rows = {row["text"].casefold(): Labelled(row["text"], row[label]) for row in map(json.loads, lines)}
    all_rows = list(rows.values())
    drawn = iter([all_rows[at] for at in np.random.default_rng(seed).permutation(len(all_rows))])
    parts = [[next(drawn) for _ in range(count)] for count in (known, unused, *portions)]
    return Data(parts[0], parts[2:], parts[1])


# ways to label a text -------------------------------------------------------------------------------------------------


class Labelling:
    """Implements `ChatModel`: a function from a text to a label, in the form of a task's answer."""

    structured = "schema"
    digest = None

    def __init__(self, name: str, label: Callable[[str], str]) -> None:
        self.name = name
        self._label = label

    def complete(self, request: ChatRequest) -> ChatResponse:
        said = Message("assistant", json.dumps({"value": self._label(request.messages[-1].text)}))
        return ChatResponse("labelled", self.name, said, "stop", Usage(0, output=0))

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        yield ChatDelta("", response=self.complete(request))


def nearest(known: Sequence[Labelled], embedder: Embedder) -> Labelling:
    """The label of the one known text that is most alike: what is built in an afternoon, from a few examples."""
    vectors = embedder.embed([one.text for one in known]).vectors

    def label(text: str) -> str:
        return known[int((vectors @ embedder.embed([text]).vectors[0]).argmax())].label

    return Labelling("nearest", label)


def comparing(known: Sequence[Labelled], embedder: Embedder, judge: Reranker, count: int) -> Labelling:
    """Reads the text beside each of the `count` known texts that are most alike, and lets these vote by how well a
    cross-encoder says that the two belong together. Nothing of it can be kept from call to call but the vectors."""
    vectors = embedder.embed([one.text for one in known]).vectors

    def label(text: str) -> str:
        alike = np.argsort(-(vectors @ embedder.embed([text]).vectors[0]), kind="stable")[:count]
        scores = judge.rank(text, [known[at].text for at in alike]).scores
        votes: Counter[str] = Counter()
        for at, score in zip(alike.tolist(), scores, strict=True):
            votes[known[at].label] += score  # type: ignore[assignment]
        return votes.most_common(1)[0][0]

    return Labelling("comparing", label)


# traffic and measurement ----------------------------------------------------------------------------------------------


def around(ws: Workspace, *, recorded: bool) -> Surroundings:
    return Surroundings(ws, recorder=ws.recorder if recorded else Recorder(None), resolve=surroundings(ws).model)


def replay(ws: Workspace, function: Task[..., Any], sent: Sequence[Labelled], share: float = 1.0) -> float:
    """Calls the task with each text, and has users judge the first `share` of the answers: approved, or corrected.
    Returns the share of right answers among all."""
    right = 0
    judged = round(share * len(sent))
    with surrounded(around(ws, recorded=True)) as here:
        for start in range(0, len(sent), _TOGETHER):
            batch = sent[start : start + _TOGETHER]
            outcomes = [function.run(text=one.text) for one in batch]
            here.recorder.flush()  # a score may only name a trace that is stored
            for number, (one, outcome) in enumerate(zip(batch, outcomes, strict=True), start=start):
                good = outcome.value == one.label
                right += good
                if number < judged:
                    better = None if good else one.label
                    give_feedback(ws, str(outcome.trace_id), good=good, correct_answer=better, author=AUTHOR)
    return right / len(sent)


def rights(ws: Workspace, function: Task[..., Any], items: Sequence[Labelled]) -> NDArray[np.float64]:
    """Which of the items what is live answers rightly; nothing is recorded."""
    with surrounded(around(ws, recorded=False)):
        return np.array([float(function(text=one.text) == one.label) for one in items])


def cpu_ms(ws: Workspace, function: Task[..., Any], items: Sequence[Labelled]) -> float:
    """Milliseconds of processor time a call, all threads of this process together, after a few calls to warm up."""
    with surrounded(around(ws, recorded=False)):
        for one in items[:5]:
            function(text=one.text)
        began = time.process_time()
        for one in items:
            function(text=one.text)
        return (time.process_time() - began) * 1000 / len(items)
