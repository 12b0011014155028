"""Scores an answer: up, or down, and which document or answer would have been right.

  windlass feedback TRACE up
  windlass feedback TRACE down --document manual/pump.md       of the assistant
  windlass feedback TRACE down --answer refund                 of a task

`windlass ask` and `windlass traces` name the trace.
What is scored is learned from by `windlass turn`, and by `windlass tune --from traces`.
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened
from windlass.loop.harvesting.feedback import give_feedback


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", help="the trace of the answer (or its first digits), or the id of the response")
    parser.add_argument("verdict", choices=("up", "down"))
    parser.add_argument("--document", metavar="ID", help="id of the document that answers the question")
    parser.add_argument("--answer", metavar="TEXT", help="what should have been answered")
    parser.add_argument("--comment", default="")
    parser.add_argument("--author", default="", help="default: the name of the user who is logged in")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as ws:
        score = give_feedback(
            ws,
            args.trace,
            good=args.verdict == "up",
            correct_document=args.document,
            correct_answer=args.answer,
            comment=args.comment,
            author=args.author,
        )
        print(f"Scored trace {score.subject[:12]}: {args.verdict}, by {score.author}.")
    return 0
