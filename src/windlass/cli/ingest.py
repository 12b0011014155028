"""Brings documents into a living index: reads what changed, removes what is gone, and says what became of every file.

  windlass ingest docs/ notes.csv              new, changed and deleted documents; all others cost nothing
  windlass ingest                              again what was ingested before
  windlass ingest docs/ --watch                go on, whenever something changes
  windlass ask "…"                             answers from it

Stopped in any way, the same command goes on where it was. What is said of a folder (labels, access) holds until it is
said otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli.filters import pairs
from windlass.cli.workspace import add_option, opened, opened_or_made, opened_or_passing
from windlass.core.errors import InputError, NotFound

if TYPE_CHECKING:
    from windlass.apply.rag.ingest.access import AccessRules
    from windlass.apply.rag.ingest.report import IngestReport
    from windlass.core.interrupt import Interrupt
    from windlass.core.workspace import Workspace
    from windlass.loop.ingesting import Open

STOPPED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="*", type=Path, metavar="PATH", help="folders and files; none: those of before")
    parser.add_argument("--name", default="docs", help="name of the index (default: docs)")
    parser.add_argument(
        "--index", metavar="WHERE", help="where a new index is to lie: a folder, postgres://…, qdrant+http://…"
    )
    parser.add_argument(
        "--urls", action="append", default=[], type=Path, metavar="FILE", help="a file of addresses, one a line"
    )
    parser.add_argument(
        "--private", action="store_true", default=None, help="addresses may be of this machine and of private networks"
    )
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C, whenever something changes")
    parser.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="how often to look (default: 2)")
    parser.add_argument(
        "--label", action="append", metavar="KEY=VALUE", help="metadata of these documents, for --where; repeatable"
    )
    parser.add_argument(
        "--access",
        action="append",
        metavar="FILE|LABEL",
        help="who may find these documents: a label (repeatable), or a TOML file of path patterns and their labels",
    )
    parser.add_argument("--public", action="store_true", help="anybody may, whatever was said before")
    parser.add_argument("--chunks", metavar="KIND[:SETTING=VALUE,…]", help="how documents are cut (default: structure)")
    parser.add_argument(
        "--quantised",
        choices=("int8", "binary", "none"),
        help="choose candidates by smaller vectors, which the vectors themselves then rank: for millions",
    )
    parser.add_argument(
        "--budget", type=int, metavar="TOKENS", help="with --chunks contextual: what its language model may take a day"
    )
    parser.add_argument(
        "--embedder",
        metavar="NAME",
        help="minilm, minilm:bfloat16 (the default where the processor has bfloat16), a folder of "
        "sentence-transformers, an encoder of the workspace, "
        "provider:model, https://host/v1#model, or hashing",
    )
    parser.add_argument("--reembed", action="store_true", help="read and embed all anew if the embedder is another one")
    parser.add_argument("--allow-empty", action="store_true", help="remove the documents of a folder that is empty now")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the report there as JSON, with every file")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.core.interrupt import deferred_interrupt
    from windlass.loop.ingesting import Wishes, opened_for_ingest

    if not args.every > 0:
        raise InputError(f"--every {args.every:g} is no time to wait.", "Give seconds above 0.")
    wishes = Wishes(
        args.path,
        args.urls,
        args.private,
        None if args.label is None else {key: values[-1] for key, values in pairs(args.label, "--label").items()},
        _access(args),
        args.index,
        args.embedder,
        args.reembed,
        args.chunks,
        None if args.quantised is None else args.quantised.replace("none", ""),
        args.budget,
        args.allow_empty,
    )
    with _workspace(args) as ws, opened_for_ingest(ws, args.name, wishes, dry=args.dry_run) as into:
        for line in into.said:
            print(line)
        with deferred_interrupt() as interrupt:
            if args.watch:
                return _watch(args, into, interrupt)
            return _show(args, _once(into, interrupt))


def _workspace(args: argparse.Namespace) -> contextlib.AbstractContextManager[Workspace]:
    """One is made only where there is something to ingest: a path that is misspelt leaves nothing behind. Nor does
    a dry run."""
    with contextlib.suppress(NotFound):
        return opened(args)
    if not args.path and not args.urls:
        raise InputError("Nothing to ingest was named.", "windlass ingest FOLDER")
    for path in [*args.path, *args.urls]:
        if not path.exists():
            raise InputError(f"{path} does not exist.", "Name a file or a folder of documents.")
    return opened_or_passing(args) if args.dry_run else opened_or_made(args)


def _access(args: argparse.Namespace) -> AccessRules | list[str] | None:
    from windlass.apply.rag.ingest.access import AccessRules

    if args.access is None:
        return [] if args.public else None
    files = [name for name in args.access if name.endswith(".toml")]
    if args.public or (files and len(args.access) > 1):
        raise InputError("--access takes labels, or one TOML file; --public takes neither.", "Say one of them.")
    return AccessRules.read(Path(files[0])) if files else list(args.access)


def _once(into: Open, interrupt: Interrupt, being_written: Collection[str] = ()) -> IngestReport:
    from windlass.core.progress import Progress

    with Progress("ingest", into.files(), "files", start=0) as progress:
        return into.ingest(being_written, interrupt=interrupt, progress=progress)


def _watch(args: argparse.Namespace, into: Open, interrupt: Interrupt) -> int:
    from windlass.apply.rag.ingest.watching import watch

    def again(being_written: Collection[str]) -> None:
        try:
            _show(args, _once(into, interrupt, being_written))
        except InputError as error:  # nothing to read any more, say: it may come back
            print(f"windlass: {error}", file=sys.stderr)
        names = ", ".join(root.name for root in into.roots)
        print(f"Watching {names}. Ctrl-C ends it.", file=sys.stderr, flush=True)

    watch(into.roots, again, interrupt, every=args.every)
    print("Not watching any more. What was done is kept.", file=sys.stderr)
    return STOPPED


def _show(args: argparse.Namespace, report: IngestReport) -> int:
    from windlass.core.files import write_json

    if args.report is not None:
        write_json(args.report, report.as_json())
    if args.json:
        value = report.as_json()
        del value["each"]
        print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)
    else:
        _table(report)
    if report.stopped:
        print("\nStopped after the batch that was under way. The same command goes on from here.", flush=True)
        return STOPPED
    return 0


def _table(report: IngestReport) -> None:
    from windlass.loop.text import counted

    print(f"{report.index}: {', '.join(report.roots)}, {report.seconds:,.1f} s\n")
    for name, count in report.rows():
        print(f"  {name:<46}{count:>12,}")
    if notes := report.notes():
        print("\n" + "\n".join(f"  {note}" for note in notes))
    if report.dry:
        print("\nNothing was done: this was a dry run.", flush=True)
        return
    holds = f"{counted(report.holds_documents, 'document')}, {counted(report.holds_passages, 'passage')}"
    print(f"\n{report.index} holds {holds}.", end=" ")
    print('Next: windlass ask "…"' + ("" if report.index == "docs" else f" --name {report.index}"), flush=True)
