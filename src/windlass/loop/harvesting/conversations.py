"""Conversations of the traces, with what was said about them, become examples to tune a model on.

| form            | a row                                                                                      |
|-----------------|--------------------------------------------------------------------------------------------|
| `conversations` | `messages`: a question with the answer that was approved, or that a person put in its place |
| `pairs`         | `prompt`, `chosen`, `rejected`: a good and a bad answer to the same question                |
| `labels`        | `prompt`, `completion`, `label`: an answer, and whether it was good                         |

A teacher's answers need no score: they are taken unless somebody rejected them. Nothing that touches the exam's `dev`
or `test` questions gets in, and whatever is left out is counted under its reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from windlass.build.corpus.decontamination import SHORTEST, Contamination, EvaluationText
from windlass.build.corpus.shingles import words
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError, NotFound
from windlass.core.records import ScoreRecord, SpanRecord
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.data_card import data_card
from windlass.loop.harvesting.harvest import CORRECTION, FEEDBACK, Guarded, clusters_of, question_key
from windlass.loop.harvesting.spoken import NotSpoken, Spoken, Turn, answered_by, answers_in, spoken
from windlass.loop.lineage.spans import citations_of

Form = Literal["conversations", "pairs", "labels", "exercises", "texts"]
_PAGE = 500
_FORMS: Mapping[str, Form] = {
    **dict.fromkeys(("sft", "distil"), "conversations"),
    **dict.fromkeys(("dpo", "orpo", "simpo", "reward"), "pairs"),
    "kto": "labels",
    **dict.fromkeys(("grpo", "ppo"), "exercises"),
    **dict.fromkeys(("classify", "regress"), "texts"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which traces are learned from."""

    task: str = "assistant"
    """Name of their root spans."""
    form: Form = "conversations"
    score: str = FEEDBACK
    minimum: float = 0.5
    """Score from which an answer is good; below it, it is bad."""
    teacher: str | None = None
    """Only what this model answered, wherever in a trace; its answers need no score."""


@dataclass(slots=True)
class _Voices:
    """What was said about one answer."""

    answer: Turn
    good: int = 0
    bad: int = 0
    corrected: int = 0
    """How often a person wrote it in the place of another one."""
    taught: int = 0
    traces: set[str] = field(default_factory=set)

    @property
    def balance(self) -> int:
        """Above 0: good. A teacher's answer that nobody scored counts as a half-hearted approval."""
        return 2 * (self.good + self.corrected - self.bad) + (1 if self.taught else 0)

    @property
    def how(self) -> str:
        return "corrected" if self.corrected else "approved" if self.good else "taught"


@dataclass(slots=True)
class _Question:
    prompt: Sequence[Turn]
    answers: dict[str, _Voices] = field(default_factory=dict)

    def about(self, answer: Turn) -> _Voices:
        return self.answers.setdefault(json.dumps(answer, sort_keys=True), _Voices(answer))

    @property
    def best(self) -> _Voices | None:
        """What a person wrote goes before what was approved, and that before what a teacher said."""
        good = [one for one in self.answers.values() if one.balance > 0]
        rank = {"corrected": 0, "approved": 1, "taught": 2}
        return min(good, key=lambda one: (rank[one.how], -one.balance, json.dumps(one.answer)), default=None)


def form_of(objective: str) -> Form:
    """What an objective learns from. Raises `InputError` for one that needs what no trace holds."""
    if objective not in _FORMS:
        raise InputError(
            f"objective.kind is '{objective}', whose examples cannot be drawn from questions and their answers.",
            f"Give --data. From traces learn: {', '.join(_FORMS)}.",
        )
    return _FORMS[objective]


def harvest_conversations(
    ws: Workspace, wanted: Wanted, exam: Artifact | None, *, name: str = "conversations"
) -> Artifact:
    """The dataset of all that can be learned from the traces; its card counts what was used and what was left out.

    The same traces and scores give the same digest. Raises `InputError` when nothing can be learned from.
    """
    skipped: Counter[str] = Counter()
    questions = _listen(ws, wanted, _Guard(ws, exam), skipped)
    compose = {
        "conversations": _conversations,
        "pairs": _pairs,
        "labels": _labels,
        "exercises": _exercises,
        "texts": _texts,
    }[wanted.form]
    rows = sorted(compose(questions.values(), skipped), key=lambda row: str(row["id"]))
    if not rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common()) or "there are none"
        raise InputError(
            f"No trace of '{wanted.task}' can be learned from as {wanted.form} ({reasons}).",
            f"Score answers with `windlass feedback TRACE up` or `down --answer TEXT` (scores '{wanted.score}'), or "
            "name a teacher whose answers need no score.",
        )
    with ws.artifacts.build("dataset", name) as draft:
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if exam is not None:
            draft.add_parent("exam", exam)
        draft.card = {
            "description": f"What was asked of '{wanted.task}' and answered, from traces and scores, as {wanted.form}.",
            "items": len(rows),
            "how": dict(Counter(str(row["how"]) for row in rows).most_common()),
            "skipped": dict(skipped.most_common()),
            "minimum": wanted.minimum,
            "teacher": wanted.teacher,
            "licence": None,
        }
        (draft.path / "README.md").write_text(_readme(draft.card), encoding="utf-8")
    return draft.done


def described(dataset: Artifact) -> list[str]:
    """What a harvest took and left, for the person who watches."""
    card = dataset.card
    how = ", ".join(f"{count:,} {what}" for what, count in card["how"].items())
    left = [f"  left out: {count:,} {reason}" for reason, count in card["skipped"].items()]
    return [f"{dataset.ref}: {card['items']:,} examples from traces ({how})", *left]


class _Guard:
    """Keeps out what belongs to the exam: its questions, files that it asks about, and texts that hold a question."""

    def __init__(self, ws: Workspace, exam: Artifact | None) -> None:
        self._known = Guarded.of(exam)
        corpus = None if exam is None else next((one for role, one in exam.record.parents if role == "corpus"), None)
        self._clusters = {} if corpus is None else clusters_of(ws.artifacts.get(corpus))
        texts = [EvaluationText("exam", key, key) for key in sorted(self._known.questions)]
        long = [text for text in texts if len(words(text.text)) >= SHORTEST]
        self._texts = Contamination(long) if long else None

    def check(self, said: Spoken, root: SpanRecord) -> None:
        """Raises `NotSpoken` for what must not be learned from."""
        cited = [str(one["document"]) for one in citations_of(root)] or [""]
        for turn in said.prompt:
            for document in cited if turn["role"] == "user" else ():
                why = self._known.why(turn["content"], document, self._clusters.get(document, ""))
                if why is not None:
                    raise NotSpoken(why)
        if self._texts is not None and any(self._texts.find(text) for text in said.texts):
            raise NotSpoken("that hold a question of the exam")


def _listen(ws: Workspace, wanted: Wanted, guard: _Guard, skipped: Counter[str]) -> dict[str, _Question]:
    scores: dict[str, ScoreRecord] = {}
    for score in ws.store.scores(name=wanted.score, limit=1 << 40):  # oldest first: a later one replaces an earlier
        scores[score.subject.partition("/")[0]] = score
    questions: dict[str, _Question] = {}
    for trace in _traces(ws, wanted.task) if wanted.teacher is not None else list(scores):
        spans = ws.store.trace(trace)
        root = next((span for span in spans if span.parent_id is None), None)
        if root is None:
            skipped["whose trace is not stored"] += 1
            continue
        if root.name != wanted.task:
            continue
        chosen = answers_in(spans, root) if wanted.teacher is None else answered_by(spans, wanted.teacher)
        if not chosen:
            skipped["without an answer" if wanted.teacher is None else f"without an answer of {wanted.teacher}"] += 1
        for span in chosen:
            try:
                said = spoken(span)
                guard.check(said, root)
                _hear(questions, said, scores.get(trace), wanted, trace)
            except NotSpoken as why:
                skipped[str(why)] += 1
    return questions


def _traces(ws: Workspace, task: str) -> Iterator[str]:
    """All of a task, the oldest first."""
    found: list[str] = []
    while page := ws.store.traces(name=task, limit=_PAGE, offset=len(found)):
        found += [one.root.trace_id for one in page]
    return reversed(found)


def _hear(questions: dict[str, _Question], said: Spoken, score: ScoreRecord | None, wanted: Wanted, trace: str) -> None:
    if score is not None and score.value is None:
        raise NotSpoken("whose score is an error")
    key = "\n".join(f"{turn['role']} {question_key(turn['content'])}" for turn in said.prompt)
    question = questions.setdefault(key, _Question(said.prompt))
    voices = question.about(said.answer)
    voices.traces.add(trace)
    better = score.metadata.get(CORRECTION) if score is not None else None
    if isinstance(better, str) and better.strip():
        voices.bad += 1
        right = question.about({"role": "assistant", "content": better})
        right.corrected += 1
        right.traces.add(trace)
    elif score is not None and score.value is not None:
        if score.value >= wanted.minimum:
            voices.good += 1
        else:
            voices.bad += 1
    else:
        voices.taught += 1


# rows ---------------------------------------------------------------------------------------------------------------


def _conversations(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    for question, best in _settled(questions, skipped):
        yield _row(question, best, best.how, messages=[*question.prompt, best.answer])


def _exercises(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """Prompts with what a reward compares answers with."""
    for question, best in _settled(questions, skipped):
        yield _row(question, best, best.how, prompt=question.prompt, answer=str(best.answer["content"]))


def _texts(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    """What was asked last, with what was said of it: one word, or the one value of an object."""
    for question, best in _settled(questions, skipped):
        label = _value(best.answer)
        if label is None:
            skipped["whose answer is not one value"] += len(best.traces)
        else:
            yield _row(question, best, best.how, text=question.prompt[-1]["content"], label=label)


def _value(answer: Turn) -> Any:
    """The label that an answer is, or the one that it holds as JSON or as the arguments of its one call; None where it
    holds several things or none."""
    said, calls = str(answer["content"]), answer.get("tool_calls") or []
    try:
        found = calls[0]["function"]["arguments"] if len(calls) == 1 and not said.strip() else json.loads(said)
    except ValueError:
        return said.strip() or None
    if isinstance(found, dict):
        found = next(iter(found.values())) if len(found) == 1 else None
    return found if isinstance(found, str | int | float) else None


def _settled(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[tuple[_Question, _Voices]]:
    """The questions that have a best answer, with it; all else is counted."""
    for question in questions:
        best = question.best
        if best is None:
            skipped[_no_best(question)] += len(_all_traces(question))
            continue
        others = _all_traces(question) - best.traces
        if others:
            skipped["with another answer to a question that has a better one"] += len(others)
        if len(best.traces) > 1:
            skipped["that repeat a question and its answer"] += len(best.traces) - 1
        yield question, best


def _pairs(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    for question in questions:
        best = question.best
        worse = [one for one in question.answers.values() if one.balance < 0]
        if best is None:
            skipped[_no_best(question)] += len(_all_traces(question))
        elif not worse:
            skipped["without a bad answer to the same question"] += len(_all_traces(question))
        else:
            for one in worse:
                pair = {"prompt": question.prompt, "chosen": [best.answer], "rejected": [one.answer]}
                yield _row(question, best, best.how, one, **pair)


def _labels(questions: Iterable[_Question], skipped: Counter[str]) -> Iterator[dict[str, Any]]:
    for question in questions:
        for one in question.answers.values():
            if not one.balance:
                skipped["on which users disagree"] += len(one.traces)
                continue
            how = one.how if one.balance > 0 else "rejected"
            yield _row(question, one, how, prompt=question.prompt, completion=[one.answer], label=one.balance > 0)


def _no_best(question: _Question) -> str:
    disagreed = any(one.balance == 0 for one in question.answers.values())
    return "on which users disagree" if disagreed else "rejected without a better answer"


def _all_traces(question: _Question) -> set[str]:
    return set().union(*(one.traces for one in question.answers.values()))


def _row(question: _Question, one: _Voices, how: str, other: _Voices | None = None, **values: Any) -> dict[str, Any]:
    told = json.dumps([question.prompt, one.answer, other.answer if other else None], sort_keys=True)
    traces = one.traces | (other.traces if other else set())
    identifier = hashlib.sha256(told.encode()).hexdigest()[:16]
    return {"id": identifier, **values, "how": how, "traces": sorted(traces)}


def find_exam(ws: Workspace, name: str | None) -> Artifact | None:
    """The exam of that name, or the one called `exam`, if there is one. Raises `NotFound` for a name nobody has."""
    exam = ws.artifacts.find(name or "exam")
    if exam is None and name is not None:
        raise NotFound(f"There is no exam '{name}' in this workspace.", "`windlass artifacts` lists what there is.")
    return exam


def _readme(card: Mapping[str, Any]) -> str:
    counted = {f"{card['items']:,} examples:": card["how"], "Traces that were left out:": card["skipped"]}
    use = "tuning a model on this task. The rows hold what users wrote, word for word, after secrets were struck out."
    return data_card("Conversations from traces", card, counted, use)
