"""Prompts of tasks: immutable versions, labels that move, what changed between two, and a search for a better one.

windlass prompt add tone.md --label staging        the file, with tone.examples.jsonl beside it, as the next version
windlass prompt list                               the newest of each; with a name, all its versions
windlass prompt show tone@2 [--out tone.md]        print it, or write it back into its files
windlass prompt diff tone@1 tone:staging           either may be a file too
windlass prompt label tone@2 live                  make a label point at a version; `windlass rollback tone` undoes it
windlass prompt search shop.py:tone items.jsonl --dollars 2     try others on items with known answers, and promote
                                                   what is better on items that the search has not seen

A search that was stopped goes on with the same command and pays for nothing twice. It exits with 0 when a prompt was
promoted and with 3 when none was.

A prompt is named by `name@version`, `name:label`, a name (its newest version) or a digest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts import diff, read_prompt, write_prompt
from windlass.apply.prompts.file import EXAMPLES, PROMPT, parts_of
from windlass.apply.prompts.value import Prompt
from windlass.cli.workspace import add_option, opened
from windlass.core.artifacts import Artifact
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.loop.text import ago

REFUSED = 3


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|show|diff|label|search")
    add = actions.add_parser("add", help="store a file as the next version of a prompt")
    add.add_argument("file", type=Path, help="Markdown; its examples stand in NAME.examples.jsonl beside it")
    add.add_argument("--name", help="of the prompt; default: the file's")
    add.add_argument("--label", help="point this label at it")
    lists = actions.add_parser("list", help="the newest version of each prompt, or all of one")
    lists.add_argument("name", nargs="?")
    show = actions.add_parser("show", help="print a prompt, or write it into files")
    show.add_argument("prompt")
    show.add_argument("--out", type=Path, metavar="FILE.md", help="write it there")
    compare = actions.add_parser("diff", help="what changed between two prompts")
    compare.add_argument("before")
    compare.add_argument("after")
    label = actions.add_parser("label", help="point a label at a version")
    label.add_argument("prompt")
    label.add_argument("label")
    label.add_argument("--reason", default="labelled by hand", help="kept with the change")
    _configure_search(search := actions.add_parser("search", help="search for a better prompt, and compare it"))
    for action in (add, lists, show, compare, label, search):
        add_option(action)


def _configure_search(search: argparse.ArgumentParser) -> None:
    search.add_argument("task", metavar="FILE.py[:NAME]", help="whose prompt it is")
    search.add_argument("items", type=Path, metavar="ITEMS.jsonl", help='lines of {"inputs": {...}, "expected": ...}')
    search.add_argument("--dollars", type=float, metavar="N", help="what all of it may cost")
    search.add_argument("--tokens", type=int, metavar="N", help="what all of it may take; one of the two is needed")
    search.add_argument(
        "--metric", metavar="NAME", help="as rouge-l, or FILE.py:NAME of (wanted, given); default: equal or not"
    )
    search.add_argument("--reflector", metavar="PROVIDER:NAME", help="the model that writes instructions")
    search.add_argument("--teacher", metavar="PROVIDER:NAME", help="the model whose runs become demonstrations")
    search.add_argument("--at-once", type=int, default=8, metavar="N", help="items asked at the same time; default: 8")
    for name, what in (
        ("sets", "sets of demonstrations that are tried"),
        ("shots", "demonstrations in a set, at most"),
        ("proposals", "how often instructions are written anew"),
        ("rounds", "how often instructions are rewritten after failures"),
        ("read", "items that are read for one of these"),
        ("seed", "of all that is drawn"),
    ):
        search.add_argument(f"--{name}", type=int, metavar="N", help=what)
    search.add_argument("--good", type=float, metavar="SCORE", help="from which on a run is a demonstration")


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        if args.action == "search":
            return _search(ws, args)
        print({"add": _add, "list": _list, "show": _show, "diff": _diff, "label": _label}[args.action](ws, args))
    return 0


def _add(ws: Workspace, args: argparse.Namespace) -> str:
    prompt = read_prompt(args.file)
    made = prompts.add(ws, args.name or args.file.stem, prompt)
    if args.label:
        prompts.label(ws, made, made.record.name, args.label)
    shown = "" if prompt.examples is None else f", {len(prompt.examples):,} examples"
    return f"{made.ref} {made.digest[:12]}: {len(prompt.instructions):,} characters{shown}{_labels(ws, made)}"


def _list(ws: Workspace, args: argparse.Namespace) -> str:
    found = prompts.versions(ws, args.name)
    if not found:
        return "No prompts yet. `windlass prompt add FILE.md` stores one."
    rows = []
    for name in dict.fromkeys(record.name for record in found):
        own = [record for record in found if record.name == name]
        borne = prompts.labels(ws, name)
        for record in own if args.name else own[:1]:
            labels = ", ".join(label for label, digest in borne.items() if digest == record.digest)
            facts = [record.card.get("characters"), record.card.get("examples"), ago(record.created)]
            rows.append([record.ref, record.digest[:12], labels, *facts])
    return table(["prompt", "digest", "labels", "characters", "examples", "when"], rows)


def _show(ws: Workspace, args: argparse.Namespace) -> str:
    artifact = prompts.find(ws, args.prompt)
    prompt = prompts.read(artifact)
    if args.out is not None:
        write_prompt(args.out, prompt)
        return f"{artifact.ref} written to {args.out}"
    files = parts_of(prompt)
    text = f"{artifact.ref} {artifact.digest}{_labels(ws, artifact)}\n\n{files[PROMPT].decode()}"
    return text + (f"\n{EXAMPLES}:\n{files[EXAMPLES].decode()}" if EXAMPLES in files else "")


def _diff(ws: Workspace, args: argparse.Namespace) -> str:
    before, after = (_either(ws, name) for name in (args.before, args.after))
    return diff(before, after, (args.before, args.after)) or "No difference."


def _either(ws: Workspace, name: str) -> Prompt:
    return read_prompt(Path(name)) if name.endswith(".md") else prompts.read(prompts.find(ws, name))


def _label(ws: Workspace, args: argparse.Namespace) -> str:
    artifact = prompts.find(ws, args.prompt)
    prompts.label(ws, artifact, artifact.record.name, args.label, args.reason)
    return f"{artifact.record.name}:{args.label} is {artifact.ref} now."


def _labels(ws: Workspace, artifact: Artifact) -> str:
    borne = [label for label, digest in prompts.labels(ws, artifact.record.name).items() if digest == artifact.digest]
    return f" ({', '.join(borne)})" if borne else ""


def _search(ws: Workspace, args: argparse.Namespace) -> int:
    from windlass.apply.tasks.loading import load_task
    from windlass.apply.wrappers.budget import Budget
    from windlass.core.progress import Progress
    from windlass.loop.evaluating.items import read_items
    from windlass.loop.evaluating.scorers import equal
    from windlass.loop.prompting.optimising import optimise
    from windlass.loop.prompting.scored import scored_by
    from windlass.loop.prompting.searching import Search
    from windlass.loop.tasks import surroundings

    task = load_task(args.task)
    named = ("sets", "shots", "proposals", "rounds", "read", "seed", "good")
    settings = Search(**{name: value for name in named if (value := getattr(args, name)) is not None})
    with Progress("search", None, "calls") as progress:
        found = optimise(
            ws,
            task,
            read_items(args.items),
            Budget(dollars=args.dollars, tokens=args.tokens, per="ever"),
            metric=scored_by(args.metric) if args.metric else equal,
            settings=settings,
            reflector=args.reflector,
            teacher=args.teacher,
            at_once=args.at_once,
            around=surroundings(ws),
            tell=lambda line: progress.say(line),
            watch=lambda meter: progress.update(meter.calls, f"{meter.share:.0%} of the budget"),
        )
    rows = [(candidate.origin, f"{candidate.mean:.3f}") for candidate in found.pool]
    print(table(("candidate", "on the items to choose by"), rows, right={1}))
    cost = f"${found.usd:.4f}, {found.tokens:,} tokens in {found.calls:,} calls"
    print(f"\n{cost}" + (f", of which {found.repeated:,} were made and paid by earlier runs" if found.repeated else ""))
    print(f"{found.verdict.decision}: {found.verdict.reason}")
    if found.release is None or found.candidate is None:
        return REFUSED
    print(f"{task.__name__}:live is {found.candidate.ref} now; `windlass rollback {task.__name__}` undoes it.")
    return 0
