"""Lists what was made, newest first; with a reference, shows one: card, files, parents and children.

A reference is a name, name@version, or a digest (8 digits or more suffice).
"""

from __future__ import annotations

import argparse
import json

from windlass.cli.workspace import add_option, opened
from windlass.core.tables import table
from windlass.loop.text import ago, size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", nargs="?", help="default: list them")
    parser.add_argument("--kind", help="only this kind: corpus, model, index, adapter, variant, experiment, ...")
    parser.add_argument("--limit", type=int, default=50, help="how many to list; default: 50")
    parser.add_argument("--verify", action="store_true", help="read every file again and compare its digest")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        if args.ref is None:
            found = ws.store.artifacts(args.kind, limit=args.limit)
            if not found:
                print("No artifacts yet. `windlass demo` makes some.")
                return 0
            rows = [[r.ref, r.kind, r.digest[:12], size(r.size), ago(r.created), r.run or ""] for r in found]
            print(table(["artifact", "kind", "digest", "size", "when", "run"], rows, right=(3,)))
            return 0
        artifact = ws.artifacts.get(args.ref)
        if args.verify:
            ws.artifacts.verify(artifact)
        record = artifact.record
        checked = ", files as they were stored" if args.verify else ""
        print(f"{record.ref}  {record.kind}  {record.digest}\n{artifact.path}  {size(record.size)}{checked}\n")
        print(json.dumps(dict(record.card), indent=2, ensure_ascii=False))
        for role, digest in record.parents:
            parent = ws.store.artifact(digest)
            print(f"made from  {role:<12} {parent.ref if parent else 'missing'}  {digest[:12]}")
        for role, child in ws.store.children(record.digest):
            print(f"used for   {role:<12} {child.ref}  {child.digest[:12]}")
    return 0
