"""Derives an exam from a corpus: questions whose answers are known because the documents hold them.

windlass exam CORPUS             derive one; prints how many questions each split got, and what was left out
windlass exam EXAM --show 10     print some of its questions

Build the index with `windlass index build CORPUS --exam EXAM`, so that the questions' own sentences are not in it.
"""

from __future__ import annotations

import argparse

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", help="name, name@version or digest of a corpus, or of an exam to show")
    parser.add_argument("--seed", type=int, default=0, help="decides which file belongs to which split; default: 0")
    parser.add_argument("--name", default="exam", help="name of the artifact; default: exam")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N questions of the test split")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.core.errors import InputError
    from windlass.evaluate.exam.deriving import derive_exam
    from windlass.evaluate.exam.items import load_items
    from windlass.evaluate.exam.tables import render_exam

    with opened(args) as ws:
        exam = ws.artifacts.get(args.artifact)
        if exam.kind == "corpus":
            exam = derive_exam(ws, exam, seed=args.seed, name=args.name)
        elif exam.kind != "dataset" or "withheld_documents" not in exam.card:
            raise InputError(
                f"{exam.ref} is neither a corpus nor an exam.", "`windlass artifacts` lists what there is."
            )
        print(render_exam(exam))
        for item in load_items(exam, "test")[: args.show]:
            print(f"\n{item.question}\n  {item.document or 'no answer in the index'}")
    return 0
