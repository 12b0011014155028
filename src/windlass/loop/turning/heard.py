"""What users said of a typed task's answers becomes items: inputs with the right answer.

An answer that was approved is right, and so is the one that a person wrote in the place of a rejected one. Answers that
nobody judged are kept apart: a model that carries the task out well may teach a smaller one, but nothing is measured on
what no person looked at.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.apply.tasks.forms.schema import Shape, Unfit
from windlass.apply.tasks.functions import Task
from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord, SpanRecord
from windlass.core.redact import MARK
from windlass.core.workspace import Workspace
from windlass.loop.evaluating.items import Item
from windlass.loop.harvesting.harvest import CORRECTION, FEEDBACK
from windlass.loop.turning.curate import masked, sift

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Heard:
    """What the traces of a task hold, oldest first."""

    items: Sequence[Item]
    """With answers that people approved or wrote."""
    taught: Sequence[Item]
    """With the answers of whatever carried the task out, which nobody judged."""
    left_out: Mapping[str, int]
    masked: Mapping[str, int]

    @property
    def answers(self) -> dict[str, int]:
        """How often each answer is the right one, most often first."""
        return dict(Counter(json.dumps(item.answer, ensure_ascii=False) for item in self.items).most_common())


@dataclass(slots=True)
class _Voices:
    inputs: Mapping[str, Any]
    approved: list[Any]
    corrected: list[Any]
    taught: list[Any]
    rejected: int = 0
    void: int = 0
    """Corrections that are no answers, which were counted as such."""


def listen(ws: Workspace, task: Task[..., Any], *, score: str = FEEDBACK) -> Heard:
    """The curated items of all traces of the task. Raises `InputError` when people said nothing to learn from."""
    left: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    voices = _voices(ws, task, score, left)
    judged: list[Item] = []
    taught: list[Item] = []
    for one in voices.values():
        settled, by_people = _settled(one)
        if settled is None:
            if not one.void:
                left["rejected without a better answer" if one.rejected else "on which users disagree"] += 1
            continue
        inputs = _masked(one.inputs, hidden)
        (judged if by_people else taught).append(Item(inputs, settled[0]))
    both = [*judged, *taught]
    sifted = sift([_text(item) for item in both])
    left.update(sifted.left_out)
    kept = set(sifted.kept)
    heard = Heard(
        [item for at, item in enumerate(judged) if at in kept],
        [item for at, item in enumerate(taught, start=len(judged)) if at in kept],
        dict(left.most_common()),
        dict(hidden.most_common()),
    )
    if not heard.items:
        reasons = ", ".join(f"{count:,} {why}" for why, count in left.most_common()) or "it has no trace"
        raise InputError(
            f"Nobody said anything of '{task.__name__}' that can be learned from ({reasons}).",
            f"Score its answers: `windlass feedback TRACE up`, or `down --answer TEXT` (scores '{score}').",
        )
    return heard


def _voices(ws: Workspace, task: Task[..., Any], score: str, left: Counter[str]) -> dict[str, _Voices]:
    scores: dict[str, ScoreRecord] = {}
    for found in ws.store.scores(name=score, limit=1 << 40):  # oldest first: a later one replaces an earlier one
        scores[found.subject.partition("/")[0]] = found
    output: Shape[Any] = Shape(task.signature.output)
    voices: dict[str, _Voices] = {}
    for root in _roots(ws, task.__name__):
        if root.status == "error" or root.output is None:
            left["whose call failed"] += 1
        elif not isinstance(root.input, Mapping):
            left["without inputs"] += 1
        elif MARK in json.dumps([root.input, root.output], ensure_ascii=False, default=str):
            left["in which a secret was struck out"] += 1
        elif (answer := _value(output, root.output)) is None:
            left["whose answer is none of the task's any more"] += 1
        else:
            key = Item(root.input, None).key
            _hear(
                voices.setdefault(key, _Voices(root.input, [], [], [])), answer, scores.get(root.trace_id), output, left
            )
    return voices


def _hear(
    one: _Voices, answer: Sequence[Any], score: ScoreRecord | None, output: Shape[Any], left: Counter[str]
) -> None:
    if score is None:
        one.taught += answer
    elif score.value is None:
        left["whose score is an error"] += 1
    elif isinstance(better := score.metadata.get(CORRECTION), str):
        if (right := _value(output, better)) is None:
            left["whose correction is no answer of the task"] += 1
            one.void += 1
        else:
            one.corrected += right
    elif score.value >= 0.5:
        one.approved += answer
    else:
        one.rejected += 1


def _settled(one: _Voices) -> tuple[Sequence[Any] | None, bool]:
    """The right answer in a list of its own, and whether people said so. What was written goes before what was
    approved; a tie, or a rejection of what nobody mended, settles nothing."""
    for said in (one.corrected, one.approved):
        if said:
            counts = Counter(json.dumps(value, sort_keys=True) for value in said).most_common(2)
            if len(counts) > 1 and counts[0][1] == counts[1][1]:
                return None, True
            return [json.loads(counts[0][0])], True
    return (None, True) if one.rejected or one.void or not one.taught else ([one.taught[-1]], False)


def _value(output: Shape[Any], said: Any) -> list[Any] | None:
    """An answer as plain JSON, in a list of its own, from itself or from its text; None where it does not fit."""
    tries = [said]
    if isinstance(said, str):
        with contextlib.suppress(ValueError):
            tries.append(json.loads(said))
    for one in tries:
        try:
            return [output.plain(output.value(one))]
        except Unfit:
            continue
    return None


def _roots(ws: Workspace, task: str) -> Iterator[SpanRecord]:
    """Of all traces of a task, the oldest first."""
    found: list[SpanRecord] = []
    while page := ws.store.traces(name=task, limit=_PAGE, offset=len(found)):
        found += [one.root for one in page]
    return reversed(found)


def _text(item: Item) -> str:
    return "\n".join(value if isinstance(value, str) else json.dumps(value) for value in item.inputs.values())


def _masked(inputs: Mapping[str, Any], hidden: Counter[str]) -> dict[str, Any]:
    return {name: masked(value, hidden) if isinstance(value, str) else value for name, value in inputs.items()}
