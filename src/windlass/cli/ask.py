"""Asks the documents: prints an answer with citations, or that they do not hold one.

The released assistant answers; where nothing is released, or with --name, the living index that `windlass ingest` made.

  windlass ask "How much water does the red pump move?"
  windlass ask "What is the miller paid?" --as staff --where team=mills
  windlass ask "…" --name handbook --json                  another living index; answer and citations as JSON

The exit status is 0 either way: an abstention is an answer.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from windlass.cli.filters import add_options, where
from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    parser.add_argument("-k", "--k", type=int, help="passages to consider; default: the variant's own")
    parser.add_argument("--name", metavar="INDEX", help="ask this living index; default: the one ingested into last")
    parser.add_argument("--variant", help="ask this variant instead of the released one")
    parser.add_argument(
        "--reader",
        metavar="MODEL",
        help="answer with the words that a model of `windlass tune reader` finds: a folder, or one of the workspace",
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print answer, citations and trace id as JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.core.values import ChatRequest, Message
    from windlass.loop.assistants.assemble import load_asked, load_reader

    with opened(args) as ws:
        reader = None if args.reader is None else load_reader(ws, args.reader)
        assistant, said = load_asked(ws, args.variant, args.name, reader=reader)
        asked = {"k": args.k, "where": where(args), "access": args.access or None}
        extra = {name: value for name, value in asked.items() if value is not None}
        response = assistant.complete(ChatRequest([Message("user", args.question)], extra=extra))
        ws.recorder.flush()
    if args.json:
        value = {
            "answer": response.message.text,
            "abstained": response.abstained,
            "citations": [asdict(citation) for citation in response.citations],
            "warnings": list(response.warnings),
            "model": response.model,
            "from": said,
            "usage": asdict(response.usage),
            "cost_usd": response.cost_usd,
            "trace": response.trace_id,
        }
        print(json.dumps(value, ensure_ascii=False, indent=2))
        return 0
    if response.abstained:
        print("I abstain. ", end="")
    print(response.message.text)
    for warning in response.warnings:
        if warning not in response.message.text:
            print(f"\nWarning: {warning}")
    print(f"\nfrom {said} · trace {response.trace_id}")
    return 0
