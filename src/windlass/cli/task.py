"""Looks at tasks. `windlass eval` says how often they are right.

windlass task list crm.py shop.py              the tasks that files hold
windlass task show crm.py:record               what it says to the model, and the form of its answer
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from windlass.core.errors import NotFound, WindlassError
from windlass.core.tables import table

if TYPE_CHECKING:
    from windlass.apply.tasks.loading import AnyTask


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show")
    listing = verbs.add_parser("list", help="the tasks that files hold")
    listing.add_argument("files", nargs="+", metavar="FILE.py")
    show = verbs.add_parser("show", help="what a task says, and the form of its answer")
    show.add_argument("task", metavar="FILE.py[:NAME]")


def run(args: argparse.Namespace) -> int:
    if args.verb == "list":
        return _list(args.files)
    return _show(args.task)


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
