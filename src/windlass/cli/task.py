"""Looks at tasks, and measures them.

windlass task list crm.py shop.py              the tasks that files hold
windlass task show crm.py:record               what it says to the model, and the form of its answer
windlass task eval crm.py:record items.jsonl   how often it is right: lines of {"inputs": {...}, "expected": ...}
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli.workspace import add_option, opened_if_any
from windlass.core.errors import InputError, NotFound, WindlassError
from windlass.core.tables import table

if TYPE_CHECKING:
    from windlass.apply.tasks.loading import AnyTask


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="the tasks that files hold")
    listing.add_argument("files", nargs="+", metavar="FILE.py")
    show = verbs.add_parser("show", help="what a task says, and the form of its answer")
    show.add_argument("task", metavar="FILE.py[:NAME]")
    measure = verbs.add_parser("eval", help="how often a task is right")
    measure.add_argument("task", metavar="FILE.py[:NAME]")
    measure.add_argument("items", type=Path, metavar="ITEMS.jsonl")
    measure.add_argument("--model", metavar="PROVIDER:NAME", help="instead of the task's own")
    measure.add_argument("--misses", type=int, default=5, metavar="N", help="show so many of those it got wrong")
    add_option(measure)


def run(args: argparse.Namespace) -> int:
    if args.verb == "list":
        return _list(args.files)
    return _show(args.task) if args.verb == "show" else _eval(args)


def _list(files: list[str]) -> int:
    from windlass.apply.tasks.loading import tasks_in

    rows = [
        (f"{file}:{name}", str(task.signature), *_said(task)) for file in files for name, task in tasks_in(file).items()
    ]
    if not rows:
        raise NotFound(f"No tasks in {', '.join(files)}.", "Put @task above a function.")
    print(table(("task", "function", "does", "digest"), rows))
    return 0


def _said(task: AnyTask) -> tuple[str, str]:
    """What it does, and its digest; where its prompt cannot be read, why."""
    try:
        return task.instructions.splitlines()[0], task.digest[:12]
    except WindlassError as error:
        return f"({error.message})", ""


def _show(where: str) -> int:
    from windlass.apply.tasks.loading import load_task
    from windlass.testing import Scripted

    task = load_task(where)
    inputs = {name: f"<{name}>" for name in task.signature.inputs}
    asked = task.request(Scripted(), **inputs)
    print(f"{task!r}\ndigest {task.digest}\n")
    for message in asked.messages:
        print(f"[{message.role}]\n{message.text}\n")
    if asked.schema is not None:
        print("[the form of the answer]\n" + json.dumps(asked.schema, ensure_ascii=False, indent=2))
    return 0


def _eval(args: argparse.Namespace) -> int:
    from windlass.apply.tasks import surrounded
    from windlass.apply.tasks.loading import load_task
    from windlass.loop.tasks import marked, surroundings

    task = load_task(args.task)
    if args.model:
        task = task.using(model=args.model)
    items = _items(args.items)
    begun = False

    def say(done: int) -> None:
        nonlocal begun
        begun = True
        print(f"\r{done} of {len(items)}", end="", file=sys.stderr)

    try:
        with opened_if_any(args) as workspace, surrounded(surroundings(workspace)):
            marks = marked(task, items, say)
    finally:
        if begun:
            print(file=sys.stderr)
    cost = "cost not known" if marks.cost_usd is None else f"${marks.cost_usd:.4f}"
    print(f"right {marks.right} of {len(items)}, {marks.share}; wrong {marks.wrong}, no answer {marks.failed}; {cost}")
    for inputs, expected, said in marks.misses[: args.misses]:
        print(f"\n  {json.dumps(inputs, ensure_ascii=False, default=str)[:200]}")
        print(f"  expected {json.dumps(expected, ensure_ascii=False)}")
        print(f"  but      {json.dumps(said, ensure_ascii=False)}")
    return 0


def _items(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    items = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            items.append(json.loads(line))
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}.") from error
    return items
