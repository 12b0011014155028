"""Prints the chain from an answer, a generated token or an artifact back to the documents it rests on.

windlass lineage 4bf92f35                an answer, by the id of its trace (or its first digits)
windlass lineage chatcmpl-5f1c           the same, by the id of the response
windlass lineage 4bf92f35 --token 12     token 12 of what a model of this workspace wrote: model, run, corpus, and
                                         where its longest known context stands in the training text
windlass lineage adapter                 an artifact, by name, name@version or digest
"""

from __future__ import annotations

import argparse
import json

from windlass.cli.workspace import add_option, opened
from windlass.loop.lineage.following import lineage
from windlass.loop.lineage.tree import render_tree


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="a trace, a response or an artifact")
    parser.add_argument("--token", type=int, metavar="N", help="one generated token, counted from 0")
    parser.add_argument("--json", action="store_true", help="nodes and edges as JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        graph = lineage(ws, args.id, token=args.token)
        print(json.dumps(graph.to_json(), indent=2, ensure_ascii=False) if args.json else render_tree(graph))
    return 0
