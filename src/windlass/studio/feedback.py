"""Feedback of the person who reads an answer: a score of 1 or 0 on its trace."""

from __future__ import annotations

from starlette.responses import JSONResponse, RedirectResponse, Response

from windlass.core.errors import InputError
from windlass.loop.harvesting.feedback import give_feedback
from windlass.studio.traces import spans_of
from windlass.studio.web import Visit

MAX_COMMENT = 4_000
"""Characters."""


def store(visit: Visit) -> Response:
    """Stores a new score; a later one of the same answer counts instead of the earlier, which stays on record."""
    trace = spans_of(visit, visit.form.get("subject", ""))[0].trace_id
    value = visit.form.get("value")
    if value not in ("0", "1"):
        raise InputError("Feedback needs a value of 1 (good) or 0 (bad).", "Press one of the two thumbs.")
    comment = visit.form.get("comment", "").strip()
    if len(comment) > MAX_COMMENT:
        raise InputError(f"The comment has {len(comment):,} characters.", f"At most {MAX_COMMENT:,} are taken.")
    document = visit.form.get("correct_document", "").strip() or None
    score = give_feedback(
        visit.ws, trace, good=value == "1", correct_document=document, comment=comment, author="studio"
    )
    if visit.accepts("application/json"):
        return JSONResponse({"score": score.id, "trace": trace, "value": score.value})
    return RedirectResponse(f"/traces/{trace}#scores", status_code=303)
