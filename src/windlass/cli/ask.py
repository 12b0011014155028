"""Asks the assistant: prints its answer from the documents with citations, or that they do not hold one.

Exit status 0 either way; an abstention is an answer.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question")
    parser.add_argument("-k", "--k", type=int, help="passages to consider; default: the variant's own")
    parser.add_argument("--variant", help="ask this variant instead of the released one")
    parser.add_argument(
        "--reader",
        metavar="MODEL",
        help="answer with the words that a model of `windlass tune extract` finds: a folder, or one of the workspace",
    )
    parser.add_argument("--json", action="store_true", help="print answer, citations and trace id as JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.core.values import ChatRequest, Message
    from windlass.loop.assemble import load_assistant, load_reader

    with opened(args) as ws:
        reader = None if args.reader is None else load_reader(ws, args.reader)
        assistant = load_assistant(ws, ws.artifacts.get(args.variant) if args.variant else None, reader=reader)
        extra = {} if args.k is None else {"k": args.k}
        response = assistant.complete(ChatRequest([Message("user", args.question)], extra=extra))
        ws.recorder.flush()
    if args.json:
        value = {
            "answer": response.message.text,
            "abstained": response.abstained,
            "citations": [asdict(citation) for citation in response.citations],
            "model": response.model,
            "usage": asdict(response.usage),
            "cost_usd": response.cost_usd,
            "trace": response.trace_id,
        }
        print(json.dumps(value, ensure_ascii=False, indent=2))
        return 0
    if response.abstained:
        print("I abstain. ", end="")
    print(response.message.text)
    print(f"\ntrace {response.trace_id}")
    return 0
