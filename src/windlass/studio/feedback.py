"""Feedback of the person who reads an answer: a score of 1 or 0 on its trace."""

from __future__ import annotations

import secrets
import time

from starlette.responses import JSONResponse, RedirectResponse, Response

from windlass.core.errors import InputError
from windlass.core.records import ScoreRecord
from windlass.studio.traces import spans_of
from windlass.studio.web import Visit

MAX_COMMENT = 4_000
"""Characters."""


def store(visit: Visit) -> Response:
    """Stores a new score; a later one of the same reader counts instead of the earlier, which stays on record."""
    trace = spans_of(visit, visit.form.get("subject", ""))[0].trace_id
    value = visit.form.get("value")
    if value not in ("0", "1"):
        raise InputError("Feedback needs a value of 1 (good) or 0 (bad).", "Press one of the two thumbs.")
    comment = visit.form.get("comment", "").strip()
    if len(comment) > MAX_COMMENT:
        raise InputError(f"The comment has {len(comment):,} characters.", f"At most {MAX_COMMENT:,} are taken.")
    document = visit.form.get("correct_document", "").strip()
    score = ScoreRecord(
        id=secrets.token_hex(12),
        subject=trace,
        name="feedback",
        value=float(value),
        source="user",
        author="studio",
        at=time.time(),
        comment=comment,
        metadata={"correct_document": document} if document else {},
    )
    visit.ws.store.add_score(score)
    if visit.accepts("application/json"):
        return JSONResponse({"score": score.id, "trace": trace, "value": score.value})
    return RedirectResponse(f"/traces/{trace}#scores", status_code=303)
