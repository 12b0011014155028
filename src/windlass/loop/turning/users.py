"""Simulated users, for the demo and for tests: they ask the exam's harvest questions and judge the answers.

They know which document each question was taken from. An answer that leads with it is approved; any other is rejected,
and the right document is named. Their scores say who they are: author `simulated-user`, `simulated: true`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass.core.protocols import ChatModel
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.harvesting.harvest import FEEDBACK

AUTHOR = "simulated-user"


@dataclass(frozen=True, slots=True)
class Asked:
    asked: int
    approved: int
    corrected: int
    already: int
    """Questions that an earlier, interrupted call had asked and judged."""


def simulate_users(
    ws: Workspace,
    assistant: ChatModel,
    items: Sequence[ExamItem],
    *,
    recorder: Recorder | None = None,
    limit: int | None = None,
    noise: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, str], object] | None = None,
) -> Asked:
    """Asks the answerable questions among `items` (at most `limit`) and scores the answers' traces.

    `noise`: share of judgements that are the wrong way round, as careless users' are. Traces are stored before they
    are judged, and what was judged by an earlier call is not asked again. Other splits than `harvest` are refused.
    """
    if any(item.split != "harvest" for item in items):
        raise ValueError("users ask harvest questions only; the others belong to the exam")
    recorder = recorder or ws.recorder
    judged = {s.metadata.get("item") for s in ws.store.scores(name=FEEDBACK) if s.author == AUTHOR}
    chosen = [item for item in items if item.answerable][:limit]
    waiting = [item for item in chosen if item.id not in judged]
    approved = corrected = 0
    careless = random.Random(seed)
    for start in range(0, len(waiting), _TOGETHER):
        batch = waiting[start : start + _TOGETHER]
        answers = [assistant.complete(ChatRequest([Message("user", item.question)])) for item in batch]
        recorder.flush()  # a score may only name a trace that is stored
        for item, answer in zip(batch, answers, strict=True):
            right = bool(answer.citations) and answer.citations[0].document == item.document
            good = right != (careless.random() < noise)
            if answer.trace_id is None:
                raise ValueError("the assistant does not record its traces")
            give_feedback(
                ws,
                answer.trace_id,
                good=good,
                correct_document=None if good or right else item.document,
                author=AUTHOR,
                metadata={"simulated": True, "item": item.id},
            )
            approved, corrected = approved + good, corrected + (not good)
        if progress is not None:
            progress(min(start + _TOGETHER, len(waiting)), f"{approved:,} approved, {corrected:,} corrected")
    return Asked(len(waiting), approved, corrected, len(chosen) - len(waiting))


_TOGETHER = 16
"""Questions between two flushes of the recorder."""
