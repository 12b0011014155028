"""Makes a corpus: reads documents, drops what is poor or repeated, splits the rest into train and held-out.

Reads a folder of Markdown, text, reST, HTML and Python files, or the documentation that this Python carries.
Nothing is left out in silence: the report names every file and document with the reason.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, help="the documents")
    what.add_argument("--python", action="store_true", help="the documentation and source of this Python")
    what.add_argument("--show", metavar="CORPUS", help="print the report of a corpus made earlier (name or digest)")
    parser.add_argument("--name", default="corpus", help="name of the artifact (default: corpus)")
    parser.add_argument(
        "--heldout", type=float, default=0.1, help="share of files held out from training (default: 0.1)"
    )
    parser.add_argument("--near", type=float, default=0.8, help="similarity of near duplicates (default: 0.8)")
    parser.add_argument("--max-mb", type=float, default=20.0, help="skip larger files (default: 20)")
    parser.add_argument("--examples", type=int, default=3, help="names to print for each reason (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    from windlass.build.corpus import build_corpus, corpus_report, corpus_summary
    from windlass.core.progress import Progress
    from windlass.core.readers import Folder, PythonDocs
    from windlass.core.workspace import find_workspace

    with find_workspace() as workspace:
        if args.show:
            corpus = workspace.artifacts.get(args.show)
        else:
            source = PythonDocs() if args.python else Folder(args.folder, int(args.max_mb * 1e6))
            with Progress("corpus", None, "documents") as progress:
                corpus = build_corpus(
                    workspace, source, name=args.name, heldout=args.heldout, near=args.near, progress=progress
                )
        report = corpus_report(corpus)
        if args.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
            return 0
        print(f"{corpus.ref} · {corpus.digest[:12]} · {report['source']}\n")
        print(corpus_summary(report, examples=args.examples))
        print(f"\n{corpus.path / 'report.json'} names everything that was left out.")
    return 0
