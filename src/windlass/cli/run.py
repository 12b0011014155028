"""Runs a task: a typed AI function that stands in a Python file.

windlass run crm.py --input "Met Ana of Acme, wants 20 seats"    the one task of a file, which takes one text
windlass run shop.py:price --input item=tea --input year=2026    a task by name, inputs by name
cat notes.txt | windlass run crm.py                              the text from a pipe
windlass run crm.py --model ollama:qwen3 --set temperature=0     another variant of it
windlass run photo.py --input photo=cat.png --stream             shows the answer while it is written

Prints the answer as JSON, or as text where it is one; what it cost goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from windlass.cli.workspace import add_option, opened_if_any
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.apply.tasks.loading import AnyTask
    from windlass.apply.tasks.outcome import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="FILE.py[:NAME]", help="where the task stands; module:NAME works too")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]VALUE", help="may be given repeatedly")
    parser.add_argument("--model", metavar="PROVIDER:NAME", help="instead of the task's own; local:NAME is one of ours")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, as @task takes it")
    parser.add_argument("--stream", action="store_true", help="show the answer while it is written")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.apply.tasks import surrounded
    from windlass.apply.tasks.loading import inputs_of, load_task
    from windlass.loop.tasks import surroundings

    task = load_task(args.task).using(**_settings(args))
    given = list(args.input)
    if not given and not sys.stdin.isatty() and (text := sys.stdin.read()).strip():
        given = [text]
    inputs = inputs_of(task, given)
    with opened_if_any(args) as workspace, surrounded(surroundings(workspace)):
        _shown(task, _streamed(task, inputs) if args.stream else task.run(**inputs))
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    settings: dict[str, Any] = {"model": args.model} if args.model else {}
    for one in args.set:
        name, equals, text = one.partition("=")
        if not equals:
            raise InputError(f"--set {one} has no value.", f"Write --set {one}=VALUE.")
        try:
            settings[name] = json.loads(text)
        except ValueError:
            settings[name] = text
    return settings


def _streamed(task: AnyTask, inputs: dict[str, Any]) -> Outcome[Any]:
    stream = task.stream(**inputs)
    before = ""
    try:
        for value in stream:
            line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if isinstance(value, str) and value.startswith(before):
                print(value[len(before) :], end="", file=sys.stderr, flush=True)
                before = value
            else:
                print(line, file=sys.stderr)
    finally:
        if before:
            print(file=sys.stderr)
    return stream.outcome


def _shown(task: AnyTask, outcome: Outcome[Any]) -> None:
    from windlass.apply.tasks.forms.schema import Shape

    plain = Shape[Any](task.signature.output).plain(outcome.value)
    print(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, indent=2))
    tries = "" if len(outcome.attempts) == 1 else f"{len(outcome.attempts)} attempts, "
    tokens = "tokens not reported" if outcome.usage.total is None else f"{outcome.usage.total:,} tokens"
    cost = "cost not known" if outcome.cost_usd is None else f"${outcome.cost_usd:.6f}"
    print(f"{tries}{tokens}, {cost}", file=sys.stderr)
