"""Lists recorded calls, newest first; with an id, shows one as a waterfall of its spans."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError, NotFound
from windlass.core.tables import table
from windlass.loop.lineage.spans import asked, find_spans
from windlass.loop.text import ago, shortened
from windlass.loop.waterfall import waterfall


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help="a trace (or its first digits) or a response; default: list them")
    parser.add_argument("--name", help="only calls of this name, such as assistant")
    parser.add_argument("--evaluations", action="store_true", help="items that were evaluated, which are no traffic")
    parser.add_argument("--limit", type=int, default=20, help="how many to list; default: 20")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise InputError(f"--limit {args.limit} lists nothing.", "Give 1 or more.")
    with opened(args) as ws:
        if args.id:
            spans = find_spans(ws, args.id)
            if not spans:
                raise NotFound(f"There is no trace '{args.id}' in this workspace.", "`windlass traces` lists them.")
            print(waterfall(spans))
            return 0
        rows = []
        for one in ws.store.traces(name=args.name, evaluations=args.evaluations, limit=args.limit):
            tokens = [one.input_tokens, one.output_tokens]
            rows.append(
                [
                    one.root.trace_id[:12],
                    one.root.name,
                    ago(one.root.start_ns / 1e9),
                    f"{one.root.duration_ms:,.1f}",
                    str(one.spans),
                    str(one.errors) if one.errors else "",
                    " + ".join("?" if count is None else f"{count:,}" for count in tokens) if any(tokens) else "",
                    "?" if one.cost_usd is None else f"{one.cost_usd:.6f}",
                    " ".join(f"{name}={value:g}" for name, value in one.scores.items()),
                    shortened(asked(one.root) or _inputs(one.root.input), 50),
                ]
            )
        evaluated = not rows and bool(ws.store.traces(evaluations=True, limit=1))
    if not rows:
        print("No traces yet. Every call of `windlass ask` and of the server leaves one.")
        if evaluated and not args.evaluations:
            print("Those of evaluations are shown by `windlass traces --evaluations`.")
        return 0
    header = ["trace", "name", "when", "ms", "spans", "errors", "tokens", "USD", "scores", "asked"]
    print(table(header, rows, right=(3, 4, 5, 7)))
    return 0


def _inputs(held: Any) -> str:
    """What a task was given."""
    if isinstance(held, Mapping):
        return ", ".join(map(str, held.values()))
    return "" if held is None else str(held)
