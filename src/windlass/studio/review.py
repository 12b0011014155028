"""Review: the queues, one queue with how far people agree, the page where they label, and where they disagree.

Who labels says their name; the address carries it, so that several people may use one studio at once. Every form names
the word that it stores, so that one which is sent twice is stored once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import RedirectResponse, Response

from windlass.core.errors import InputError
from windlass.core.records import ArtifactRecord
from windlass.evaluate.judges.items import Item
from windlass.evaluate.review.agreement import agreement, disagreements, outcome
from windlass.evaluate.review.queue import Queue
from windlass.loop import reviewing
from windlass.loop.reviewing import MAX_COMMENT, Open, open_queue
from windlass.studio.web import Visit

MAX_SHOWN = 60_000
"""Characters of one text on the page."""
DIFFERENT, EXCERPT = 40, 1_500
"""Disagreements on one page, and characters of each text there; their links lead to the whole."""
FORMS = {"csv": ("text/csv", reviewing.as_csv), "jsonl": ("application/x-ndjson", reviewing.as_jsonl)}


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    labelled: int
    skipped: int
    left: int


def listing(visit: Visit) -> Response:
    rows = [(record, open_queue(visit.ws, record.digest)) for record in reviewing.queues(visit.ws)]
    return visit.page("reviews.html", "review", rows=[(record, one, people(one)) for record, one in rows])


def show(visit: Visit) -> Response:
    one = open_queue(visit.ws, visit.path("ref"))
    rubric, labels = one.queue.rubric, one.labels
    # What is blind is told when nobody who began can be led by it any more.
    told = not rubric.pairwise or labels.finished
    return visit.page(
        "review.html",
        "review",
        **_about(one),
        people=people(one),
        agreements=[agreement(labels, criterion) for criterion in rubric.criteria],
        results=[(criterion, outcome(labels, criterion)) for criterion in rubric.criteria] if told else [],
        told=told,
        different=len(disagreements(labels)),
        left=sum(not labels.people(item) for item in one.queue.items),
    )


def labelling(visit: Visit) -> Response:
    """The next item of this person, or the one that the address names."""
    one, author = open_queue(visit.ws, visit.path("ref")), reviewing.check_author(visit.query("by"))
    wanted = visit.query("item")
    item = one.queue.item(wanted) if wanted else one.labels.next(author)
    return _page(visit, one, author, item)


def store(visit: Visit) -> Response:
    """Stores what the form says of its item: levels, that it is skipped, or that the last word is withdrawn."""
    one, author = open_queue(visit.ws, visit.path("ref")), reviewing.check_author(visit.form.get("by", ""))
    token, comment = visit.form.get("token", ""), visit.form.get("comment", "").replace("\r\n", "\n").strip()
    if len(token) != 24 or not token.isalnum():
        raise InputError("The form does not name its word.", "Open the page again, and label there.")
    if visit.form.get("do") == "undo":
        undone = reviewing.undo(visit.ws, one, author, token=token)
        return _again(one, author, undone)
    item = one.queue.item(visit.form.get("item", ""))
    try:
        if visit.form.get("do") == "skip":
            reviewing.skip(visit.ws, one, item, author, comment=comment, token=token)
        else:
            reviewing.label(visit.ws, one, item, author, _values(visit, one.queue), comment=comment, token=token)
    except InputError as error:
        chosen = {name.removeprefix("level."): level for name, level in visit.form.items()}
        return _page(visit, one, author, item, chosen=chosen, comment=comment, problem=error)
    return _again(one, author)


def differing(visit: Visit) -> Response:
    one = open_queue(visit.ws, visit.path("ref"))
    found = disagreements(one.labels)
    shown = [
        (
            different,
            [
                (author, _called(one.queue, different.item, different.criterion.name, value),
                 one.labels.of(different.item, author).comment)
                for author, value in sorted(different.values.items())
            ],
        )
        for different in found[:DIFFERENT]
    ]  # fmt: skip
    # Side by side as they were labelled: which system made which stays untold.
    return visit.page("review_different.html", "review", **_about(one), shown=shown, count=len(found), limit=EXCERPT)


def export(visit: Visit) -> Response:
    one, form = open_queue(visit.ws, visit.path("ref")), visit.path("form")
    if form not in FORMS:
        raise InputError(f"Labels are not written as '{form[:20]}'.", f"Known: {', '.join(FORMS)}.")
    media_type, written = FORMS[form]
    name = f"{one.queue.name}-labels.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(written(one), media_type=media_type, headers=headers)


def address(record: ArtifactRecord, page: str = "", **values: str) -> str:
    query = "?" + urlencode(values) if values else ""
    return f"/review/{quote(record.ref, safe='@')}{page}{query}"


def people(one: Open) -> list[Person]:
    found = []
    for name in one.labels.authors:
        progress = one.labels.progress(name)
        found.append(Person(name, progress["labelled"], progress["skipped"], one.labels.left(name)))
    return found


def _page(
    visit: Visit,
    one: Open,
    author: str,
    item: Item | None,
    *,
    chosen: dict[str, str] | None = None,
    comment: str = "",
    problem: InputError | None = None,
) -> Response:
    said = one.labels.of(item, author) if item is not None else None
    if item is not None and said is not None and chosen is None:
        chosen = {name: _level(one.queue, name, value) for name, value in said.values.items()}
        comment = said.comment
    last = one.labels.last(author)
    response = visit.page(
        "review_label.html",
        "review",
        **_about(one),
        author=author,
        item=item,
        token=secrets.token_hex(12),
        criteria=[(c, one.queue.choices(item, c.name)) for c in one.queue.rubric.criteria] if item else [],
        chosen=chosen or {},
        comment=comment,
        problem=problem,
        progress=one.labels.progress(author),
        left=one.labels.left(author),
        state=None if item is None else one.labels.state(item, author),
        last=last,
        limit=MAX_SHOWN,
        longest=MAX_COMMENT,
    )
    response.status_code = 400 if problem else 200
    return response


def _about(one: Open) -> dict[str, Any]:
    return {"queue": one.queue, "rubric": one.queue.rubric, "a": one.artifact.record, "address": address}


def _again(one: Open, author: str, item: Item | None = None) -> Response:
    asked = {"by": author} | ({"item": item.id} if item else {})
    return RedirectResponse(address(one.artifact.record, "/label", **asked), status_code=303)


def _values(visit: Visit, queue: Queue) -> dict[str, float]:
    values = {}
    for criterion in queue.rubric.criteria:
        said = visit.form.get(f"level.{criterion.name}")
        known: Sequence[str] = [level.name for level in criterion.levels]
        if said is None:
            raise InputError(f"No level of '{criterion.name}' is chosen.", "Press its number, or click it.")
        if said not in known:
            raise InputError(f"'{said[:80]}' is no level of '{criterion.name}'.", f"Known: {', '.join(known)}.")
        values[criterion.name] = criterion.value(said)
    return values


def _level(queue: Queue, criterion: str, value: float) -> str:
    return next(level.name for level in queue.rubric.criterion(criterion).levels if level.value == value)


def _called(queue: Queue, item: Item, criterion: str, value: float) -> str:
    """What a person said, as it was called when they said it."""
    level = _level(queue, criterion, value)
    return next(called for name, called, _ in queue.choices(item, criterion) if name == level)
