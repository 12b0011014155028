"""The whole loop, measured, on real documents: corpus, tokenizer, language model, index, server, cited answers,
traces, exam, feedback, a candidate that is promoted and one that is refused, lineage.

The documents are the Python documentation and source of this machine, or those of --docs. It takes a few minutes on
two cores and no network. Ctrl-C stops it at any moment; the same command goes on from there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from windlass.core.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="Markdown, text, reST, HTML and Python files")
    parser.add_argument("--minutes", type=float, help="of training the language model (default: 2.9)")
    parser.add_argument("--workspace", type=Path, default=Path(), metavar="FOLDER", help="default: the current folder")
    parser.add_argument("question", nargs="*", help="questions to ask the assistant, each in quotes")


def run(args: argparse.Namespace) -> int:
    from windlass.loop.demo import DemoSettings, demo

    settings = DemoSettings(questions=args.question)
    if args.minutes is not None:
        settings = replace(settings, minutes=args.minutes)
    with Workspace(args.workspace) as workspace:
        demo(workspace, args.docs, settings=settings)
    return 0
