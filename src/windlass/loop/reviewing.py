"""Queues in a workspace: made of files, traces, pairs and judges' doubts; labelled by people; exported and imported.

A queue is an artifact, so its items never change under those who label them. Each label is a score, on the disk before
it is acknowledged.
"""

from __future__ import annotations

import csv
import io
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.core.artifacts import Artifact, check_name
from windlass.core.errors import InputError
from windlass.core.files import sha256_json, write_json
from windlass.core.records import ArtifactRecord, ScoreRecord, TraceSummary
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.judges.items import ANYBODY, Item, Label, read_items, read_labelled
from windlass.evaluate.judges.judge import SIDES, Judge
from windlass.evaluate.judges.metric import item_of
from windlass.evaluate.review.labels import CRITERION, ITEM, QUEUE, SKIPPED, WITHDRAWN, Labels
from windlass.evaluate.review.queue import Queue, plain
from windlass.loop.judging.storing import read_judgements
from windlass.loop.lineage.spans import answered, asked
from windlass.loop.scores import add_once

KIND, FILE, ITEMS = "queue", "queue.json", "items.jsonl"
DISAGREEMENTS = "disagreements"
MAX_COMMENT = 4_000
MAX_AUTHOR = 60
"""Characters."""


# queues -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """A queue of the workspace with its labels as they stand."""

    artifact: Artifact
    queue: Queue
    labels: Labels


def add_queue(ws: Workspace, queue: Queue, *, parents: Sequence[tuple[str, Artifact]] = ()) -> Artifact:
    """Stores a queue as the next version of its name. Raises `InputError` for a name that other artifacts bear."""
    check_name(queue.name)
    for record in ws.store.artifacts(name=queue.name, limit=1):
        if record.kind != KIND:
            raise InputError(
                f"'{queue.name}' is the name of a {record.kind} ({record.ref}).", "Give the queue another name."
            )
    with ws.artifacts.build(KIND, queue.name) as draft:
        write_json(draft.path / FILE, queue.to_json())
        with (draft.path / ITEMS).open("w", encoding="utf-8") as file:
            for item in queue.items:
                file.write(json.dumps(plain(item), ensure_ascii=False) + "\n")
        for role, parent in parents:
            draft.add_parent(role, parent)
        draft.card = {"items": len(queue.items), "kind": queue.rubric.kind, "from": queue.source}
    return draft.done


def read_queue(artifact: Artifact) -> Queue:
    if artifact.kind != KIND:
        raise InputError(f"{artifact.ref} is a {artifact.kind}, not a queue.", "`windlass review list` lists queues.")
    items = [json.loads(line) for line in (artifact.path / ITEMS).read_text(encoding="utf-8").split("\n") if line]
    return Queue.from_json(json.loads((artifact.path / FILE).read_text(encoding="utf-8")), items, artifact.ref)


def open_queue(ws: Workspace, ref: str) -> Open:
    """Raises `NotFound`."""
    artifact = ws.artifacts.get(ref)
    queue = read_queue(artifact)
    return Open(artifact, queue, labels_of(ws, artifact, queue))


def labels_of(ws: Workspace, artifact: Artifact, queue: Queue) -> Labels:
    scores = [
        score
        for criterion in queue.rubric.criteria
        for score in ws.store.scores(name=queue.rubric.score_name(criterion.name), limit=10_000_000)
    ]
    return Labels(queue, artifact.digest, sorted(scores, key=lambda score: score.at))  # stable: as they came


def queues(ws: Workspace) -> list[ArtifactRecord]:
    """Newest first."""
    return ws.store.artifacts(kind=KIND)


# where items come from ----------------------------------------------------------------------------------------------


def from_pair(first: Path, second: Path, rubric: Judge) -> list[Item]:
    """The outputs of two systems on the same items, joined by id. Raises `InputError` where an item is in one only."""
    if not rubric.pairwise:
        raise InputError(f"'{rubric.name}' judges one output, not two.", 'Write kind = "pairwise" into the rubric.')
    single = replace(rubric, kind="rubric")
    one, other = ({item.id: item for item in read_items(path, single)} for path in (first, second))
    if one.keys() != other.keys():
        missing = sorted(one.keys() ^ other.keys())[0]
        raise InputError(
            f"The item '{missing}' is in one of {first} and {second} only.",
            "Give both the same items, each with its id.",
        )
    judged = rubric.judged
    items = []
    for id, item in one.items():
        for name in rubric.context:
            if item.inputs[name] != other[id].inputs[name]:
                raise InputError(f"The two have another '{name}' in the item '{id}'.", "Compare outputs to one input.")
        texts = {f"{judged}{side}": each.inputs[judged] for side, each in zip(SIDES, (item, other[id]))}
        context = {name: item.inputs[name] for name in rubric.context}
        items.append(replace(item, inputs={**context, **texts}, trace=None))
    return items


def from_traces(
    ws: Workspace,
    rubric: Judge,
    *,
    name: str | None = None,
    since: float | None = None,
    errors: bool | None = None,
    score: tuple[str, float, float] | None = None,
    limit: int = 1000,
) -> list[Item]:
    """The newest calls that fit: what was asked and what was answered. Those without an answer are left out."""
    if rubric.pairwise or len(rubric.context) > 1:
        raise InputError(
            f"'{rubric.name}' reads {', '.join(rubric.fields)}; a trace has a question and an answer.",
            "Use a rubric with one or two inputs.",
        )
    found = ws.store.traces(name=name, since=since, errors=errors, score=score, limit=limit)
    chosen = "" if errors is None and score is None else "traces by their scores or errors"
    return [item for trace in found if (item := _of_trace(trace, rubric, chosen)) is not None]


def _of_trace(trace: TraceSummary, rubric: Judge, chosen: str) -> Item | None:
    root = trace.root
    said, question = answered(root) or _text(root.output), asked(root) or _text(root.input)
    if not said or (rubric.context and not question):
        return None
    inputs = {**dict.fromkeys(rubric.context, question), rubric.judged: said}
    return Item(root.trace_id, inputs, root.trace_id, None, chosen)


def _text(payload: Any) -> str:
    """What a span holds, to be read: the one input of a task is a text, all else is JSON."""
    if payload is None or isinstance(payload, str):
        return payload or ""
    if isinstance(payload, Mapping) and len(payload) == 1 and isinstance(only := next(iter(payload.values())), str):
        return only
    return json.dumps(payload, ensure_ascii=False, indent=1)


def from_doubts(judgements: Artifact) -> list[Item]:
    """What a judge is not sure of: pairs it calls otherwise when they change places, items over which its panel is
    split, items it has no judgement of."""
    return [
        replace(item, chosen=DISAGREEMENTS)
        for item, judgement in read_judgements(judgements)
        if judgement.error is not None or judgement.consistent is False or not judgement.unanimous
    ]


def from_judgements(judgements: Artifact) -> list[Item]:
    return [item for item, _ in read_judgements(judgements)]


def from_experiment(artifact: Artifact, rubric: Judge) -> tuple[list[Item], tuple[str, str] | None]:
    """The outputs of an experiment, and for a pairwise rubric who made them: incumbent and candidate. A rubric that
    looks at one output is given the candidate's. Items without an output are left out."""
    experiment = read_experiment(artifact)
    pairs = [(before, after) for before, after in experiment.pairs if before.failed is None and after.failed is None]
    if not rubric.pairwise:
        return [item_of(after, rubric) for _, after in pairs], None
    # A trace is of one of the two: what people say of a pair stands at neither.
    items = [replace(item_of(before, rubric, after), trace=None) for before, after in pairs]
    return items, (experiment.incumbent.variant, experiment.candidate.variant)


def sampled(items: Sequence[Item], count: int | None, seed: int) -> list[Item]:
    """`count` of the items, drawn at random by the seed, in their order."""
    if count is None or count >= len(items):
        return list(items)
    drawn = sorted(items, key=lambda item: sha256_json([seed, item.id]))[:count]
    kept = {item.id for item in drawn}
    return [item for item in items if item.id in kept]


# labels -------------------------------------------------------------------------------------------------------------


def label(
    ws: Workspace,
    opened: Open,
    item: Item,
    author: str,
    values: Mapping[str, float],
    *,
    comment: str = "",
    token: str | None = None,
) -> None:
    """Stores what a person says of an item; on the disk when this returns.

    token: names this very word, so that a form which is sent twice is stored once.
    """
    if set(values) != {criterion.name for criterion in opened.queue.rubric.criteria}:
        raise InputError("Not every criterion has a level.", "Choose one for each.")
    _add(ws, opened, item, author, values, None, comment, token)


def skip(ws: Workspace, opened: Open, item: Item, author: str, *, comment: str = "", token: str | None = None) -> None:
    """Notes that a person cannot tell; the item comes again when all others are done."""
    _add(ws, opened, item, author, {}, SKIPPED, comment, token)


def undo(ws: Workspace, opened: Open, author: str, *, token: str | None = None) -> Item | None:
    """Withdraws what a person said last, and returns the item; None when there is nothing."""
    item = opened.labels.last(author)
    if item is not None:
        _add(ws, opened, item, author, {}, WITHDRAWN, "", token)
    return item


def check_author(text: str) -> str:
    name = " ".join(text.split())
    if not name or len(name) > MAX_AUTHOR or not name.isprintable():
        raise InputError("Labels need a name of who gives them.", f"Write yours, in at most {MAX_AUTHOR} characters.")
    return name


def _add(
    ws: Workspace,
    opened: Open,
    item: Item,
    author: str,
    values: Mapping[str, float],
    error: str | None,
    comment: str,
    token: str | None,
) -> None:
    if len(comment) > MAX_COMMENT:
        raise InputError(f"The comment has {len(comment):,} characters.", f"At most {MAX_COMMENT:,} are taken.")
    rubric, subject = opened.queue.rubric, opened.queue.subject(item)
    word = token or secrets.token_hex(12)
    for number, criterion in enumerate(rubric.criteria):
        score = ScoreRecord(
            # Of this queue: a word of another one cannot stand in its way.
            id=f"{opened.artifact.digest[:12]}-{word}-{number}",
            subject=subject,
            name=rubric.score_name(criterion.name),
            value=values.get(criterion.name),
            source="human",
            author=author,
            at=time.time(),
            comment=comment,
            error=error,
            metadata={QUEUE: opened.artifact.digest, CRITERION: criterion.name, ITEM: item.id},
        )
        add_once(ws, score)


# files --------------------------------------------------------------------------------------------------------------


def exported(opened: Open) -> Iterator[dict[str, Any]]:
    """A row for each person and item, as `windlass judge calibrate` and `import_labels` read them."""
    rubric = opened.queue.rubric
    for item in opened.queue.items:
        for author in opened.labels.people(item):
            said = opened.labels.of(item, author)
            names = {
                name: next(level.name for level in rubric.criterion(name).levels if level.value == value)
                for name, value in said.values.items()
            }
            yield {
                "id": item.id,
                **{name: value for name in ("trace", "cluster", "chosen") if (value := getattr(item, name))},
                "inputs": dict(item.inputs),
                "labels": names,
                "author": author,
                "comment": said.comment,
                "at": said.at,
            }


def as_jsonl(opened: Open) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in exported(opened))


def as_csv(opened: Open) -> str:
    """Flat columns, a criterion's as `labels.NAME`."""
    rubric = opened.queue.rubric
    columns = ["id", "trace", "cluster", "chosen", *rubric.fields]
    columns += [f"labels.{criterion.name}" for criterion in rubric.criteria]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*columns, "author", "comment", "at"], restval="")
    writer.writeheader()
    for row in exported(opened):
        flat = {**row.pop("inputs"), **{f"labels.{name}": level for name, level in row.pop("labels").items()}}
        writer.writerow({**flat, **row})
    return out.getvalue()


def import_labels(ws: Workspace, opened: Open, path: Path, author: str | None = None) -> int:
    """Labels of a file, by the ids of their items; returns how many are new. The same file again adds nothing.

    author: of rows that name none. Raises `InputError` for an item that the queue does not have, or has with another
    text, before any is stored.
    """
    items, labels = read_labelled(path, opened.queue.rubric)
    known = [opened.queue.item(item.id) for item in items]
    for item, there in zip(items, known, strict=True):
        if there.content != item.content:
            raise InputError(
                f"{path}: the item '{item.id}' is another one in the queue '{opened.queue.name}'.",
                "What people say of one text is not said of another: import into the queue that they labelled.",
            )
    by_word: dict[tuple[str, str], list[Label]] = {}
    for one in labels:
        who = author if one.author == ANYBODY and author else one.author
        by_word.setdefault((one.item, check_author(who)), []).append(one)
    new = 0
    for (id, who), said in by_word.items():
        values = {one.criterion: one.value for one in said}
        item = opened.queue.item(id)
        if opened.labels.of(item, who).values == values:
            continue
        label(ws, opened, item, who, values)
        new += 1
    return new
