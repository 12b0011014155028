"""Feedback of end users: a score on the trace of an answer."""

from __future__ import annotations

import getpass
import secrets
import time
from typing import Any

from windlass.core.errors import InputError, NotFound
from windlass.core.records import ScoreRecord
from windlass.core.workspace import Workspace
from windlass.loop.harvesting.harvest import CORRECTION, FEEDBACK
from windlass.loop.lineage.spans import find_spans


def give_feedback(
    ws: Workspace,
    trace: str,
    *,
    good: bool,
    correct_document: str | None = None,
    correct_answer: str | None = None,
    comment: str = "",
    author: str = "",
    metadata: dict[str, Any] | None = None,
) -> ScoreRecord:
    """Stores a user's judgement of the answer in `trace` (a trace's id or first digits, or a response's id).

    A later judgement of the same answer replaces an earlier one when feedback is harvested. Raises `NotFound` for an
    unknown trace and `InputError` for a correction of an answer that is called good.
    """
    spans = find_spans(ws, trace)
    if not spans:
        raise NotFound(f"There is no trace '{trace}' in this workspace.", "`windlass traces` lists them.")
    if good and correct_document is not None:
        raise InputError("A good answer needs no other document.", "Give feedback 'down' together with the document.")
    if good and correct_answer is not None:
        raise InputError("A good answer needs no other one.", "Give feedback 'down' together with the better answer.")
    corrected = {"correct_document": correct_document, CORRECTION: correct_answer}
    score = ScoreRecord(
        id=secrets.token_hex(8),
        subject=spans[0].trace_id,
        name=FEEDBACK,
        value=1.0 if good else 0.0,
        source="user",
        author=author or _user(),
        at=time.time(),
        comment=comment,
        metadata={**(metadata or {}), **{name: value for name, value in corrected.items() if value}},
    )
    ws.store.add_score(score)
    return score


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return "user"
