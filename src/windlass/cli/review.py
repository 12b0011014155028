"""Lets people judge: queues of items, labelled in the studio, whose labels calibrate judges.

windlass review new answers --rubric correct.md --items answers.jsonl        items of a file
windlass review new answers --rubric correct.md --traces --name assistant    the newest calls; --sample draws from them
windlass review new ab --rubric better.md --pair old.jsonl new.jsonl         two systems, blind and side by side
windlass review new ab --rubric better.md --experiment support@3             the two variants of an experiment, blind
windlass review new doubts --rubric better.md --doubts better-judgements@1   what a judge is not sure of
windlass review list                        queues, and how far each person is
windlass review export answers > labels.jsonl      as `windlass judge calibrate` reads them; --csv for a spreadsheet
windlass review import answers labels.jsonl        labels that were given elsewhere

The rubric is a judge's file (docs/judges.md): people answer the question that the model is asked. They label in the
studio, under Review, with the keyboard; `windlass serve` opens it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.core.artifacts import Artifact
    from windlass.core.workspace import Workspace
    from windlass.evaluate.judges.items import Item
    from windlass.evaluate.judges.judge import Judge


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="new|list|export|import")
    new = verbs.add_parser("new", help="make a queue")
    new.add_argument("queue", help="its name")
    new.add_argument("--rubric", required=True, metavar="JUDGE.md", help="what people are asked: a judge's file")
    source = new.add_mutually_exclusive_group(required=True)
    source.add_argument("--items", type=Path, metavar="FILE", help="rows with the fields that the rubric reads")
    source.add_argument("--pair", type=Path, nargs=2, metavar="FILE", help="the same items by two systems, blind")
    source.add_argument("--traces", action="store_true", help="recorded calls of this workspace")
    source.add_argument("--experiment", metavar="REF", help="its outputs: both, blind, or the candidate's")
    source.add_argument("--judged", metavar="REF", help="all items of the judgements of that name")
    source.add_argument("--doubts", metavar="REF", help="of judgements, the items over which the judge is not sure")
    traces = new.add_argument_group("traces", "which calls")
    traces.add_argument("--name", help="only calls of this name, such as assistant")
    traces.add_argument("--days", type=float, help="only those of so many days")
    traces.add_argument("--errors", action="store_true", help="only those with an error")
    traces.add_argument("--score", metavar="NAME", help="only those whose score of this name is within --between")
    traces.add_argument("--between", type=float, nargs=2, metavar=("LOW", "HIGH"), default=(0.0, 0.4999))
    new.add_argument("--sample", type=int, metavar="N", help="draw so many of the items at random")
    new.add_argument("--seed", type=int, default=0, help="of the drawing, the order and the sides; default: 0")
    new.add_argument("--per-item", type=int, metavar="N", help="people an item; default: everybody labels all")
    listing = verbs.add_parser("list", help="queues, and how far each person is")
    export = verbs.add_parser("export", help="labels as JSON lines, or --csv")
    export.add_argument("queue", help="name, name@version or digest")
    export.add_argument("--csv", action="store_true")
    import_ = verbs.add_parser("import", help="labels of a file")
    import_.add_argument("queue", help="name, name@version or digest")
    import_.add_argument("labels", type=Path, metavar="LABELS", help="rows with the item's fields, `label`, `author`")
    import_.add_argument("--author", help="of rows that name none")
    for verb in (new, listing, export, import_):
        add_option(verb)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        return {"new": _new, "list": _list, "export": _export, "import": _import}[args.verb](ws, args)


def _new(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.evaluate.review.queue import Queue
    from windlass.loop.judging.running import named
    from windlass.loop.reviewing import add_queue, sampled

    rubric = replace(named(ws, args.rubric), name=args.queue)
    items, parents, source, systems = _items(ws, args, rubric)
    kept = sampled(items, args.sample, args.seed)
    queue = Queue(rubric, kept, args.seed, args.per_item, systems, source)
    artifact = add_queue(ws, queue, parents=parents)
    drawn = f" of {len(items):,}, drawn at random" if len(kept) < len(items) else ""
    print(f"{artifact.ref}: {len(kept):,} items{drawn}, from {source}")
    print(f"label them in the studio: windlass serve, then /review/{artifact.ref}")
    return 0


Source: TypeAlias = "tuple[list[Item], list[tuple[str, Artifact]], str, tuple[str, str] | None]"
"""Items, what they were made from, the same in words, and of pairs who made either output."""


def _items(ws: Workspace, args: argparse.Namespace, rubric: Judge) -> Source:
    from windlass.evaluate.judges.items import read_items
    from windlass.loop import reviewing

    if args.items:
        return read_items(args.items, rubric), [], args.items.name, None
    if args.pair:
        first, second = args.pair
        items = reviewing.from_pair(first, second, rubric)
        return items, [], f"{first.name} and {second.name}", (first.stem, second.stem)
    if args.traces:
        low, high = args.between
        items = reviewing.from_traces(
            ws,
            rubric,
            name=args.name,
            since=None if args.days is None else time.time() - args.days * 86_400,
            errors=True if args.errors else None,
            score=None if args.score is None else (args.score, low, high),
        )
        if not items:
            raise InputError("No trace with an answer fits.", "`windlass traces` lists what was recorded.")
        return items, [], f"traces of {args.name or 'any name'}", None
    if args.experiment:
        made = ws.artifacts.get(args.experiment)
        items, systems = reviewing.from_experiment(made, rubric)
        return items, [("experiment", made)], made.ref, systems
    judgements = ws.artifacts.get(args.judged or args.doubts)
    items = reviewing.from_judgements(judgements) if args.judged else reviewing.from_doubts(judgements)
    if not items:
        raise InputError(f"The judge is sure of all items of {judgements.ref}.", "Take them all: --judged.")
    what = "all of" if args.judged else "doubts in"
    return items, [("judgements", judgements)], f"{what} {judgements.ref}", None


def _list(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.core.tables import table
    from windlass.loop.reviewing import open_queue, queues

    rows = []
    for record in queues(ws):
        one = open_queue(ws, record.digest)
        people = [f"{author} {one.labels.progress(author)['labelled']}" for author in one.labels.authors]
        rows.append((record.ref, one.queue.rubric.kind, len(one.queue.items), ", ".join(people) or "nobody yet"))
    if not rows:
        print("No queues yet. `windlass review new --help` says how to make one.")
        return 0
    print(table(("queue", "kind", "items", "labelled by"), rows))
    return 0


def _export(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.loop.reviewing import as_csv, as_jsonl, open_queue

    one = open_queue(ws, args.queue)
    if not one.labels.labels():
        raise InputError(f"Nobody has labelled anything of {one.artifact.ref}.", "Label in the studio, or import.")
    print(as_csv(one) if args.csv else as_jsonl(one), end="")
    return 0


def _import(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.loop.reviewing import import_labels, open_queue

    one = open_queue(ws, args.queue)
    new = import_labels(ws, one, args.labels, args.author)
    print(f"{one.artifact.ref}: {new:,} items newly labelled")
    return 0
