"""Makes a corpus: reads documents, drops what is poor or repeated, splits the rest into train and held-out.

Reads a folder of Markdown, text, reST, HTML and Python files, the documentation that this Python carries, or the
sources that a recipe (corpus.toml) names. Options take the place of what the recipe says.
Nothing is left out in silence: files beside the corpus name every file and document with the reason.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_SETTINGS = ("heldout", "near", "min_chars", "seed")


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, help="the documents, or a recipe (*.toml)")
    what.add_argument("--python", action="store_true", help="the documentation and source of this Python")
    what.add_argument("--show", metavar="CORPUS", help="print the report of a corpus made earlier (name or digest)")
    parser.add_argument("--name", default="corpus", help="name of the artifact (default: corpus)")
    parser.add_argument("--heldout", type=float, help="share of files held out from training (default: 0.1)")
    parser.add_argument("--near", type=float, help="similarity of near duplicates (default: 0.8)")
    parser.add_argument("--min-chars", type=int, help="least characters of a document (default: 30)")
    parser.add_argument("--seed", type=int, help="another one holds out other files (default: 0)")
    parser.add_argument("--max-mb", type=float, default=20.0, help="skip larger files (default: 20)")
    parser.add_argument("--workers", type=int, default=1, help="processes that judge documents (default: this one)")
    parser.add_argument("--examples", type=int, default=3, help="names to print for each reason (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    from windlass.build.corpus import CorpusSettings, build_corpus, corpus_report, corpus_summary, load_recipe, parts_of
    from windlass.build.corpus.engines import here, processes
    from windlass.core.progress import Progress
    from windlass.core.readers import Folder, PythonDocs
    from windlass.core.workspace import find_workspace

    with find_workspace() as workspace:
        if args.show:
            corpus = workspace.artifacts.get(args.show)
        else:
            changes: dict[str, Any] = {key: getattr(args, key) for key in _SETTINGS if getattr(args, key) is not None}
            max_bytes = int(args.max_mb * 1e6)
            recipe = args.folder is not None and args.folder.suffix == ".toml"
            settings = load_recipe(args.folder, changes) if recipe else CorpusSettings(**changes)
            folder = PythonDocs() if args.python else Folder(args.folder, max_bytes)
            with Progress("corpus", None, "documents") as progress:
                corpus = build_corpus(
                    workspace,
                    parts_of(settings, max_bytes) if recipe else folder,
                    settings,
                    name=args.name,
                    engine=here if args.workers == 1 else processes(args.workers),
                    progress=progress,
                )
        report = corpus_report(corpus)
        if args.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
            return 0
        print(f"{corpus.ref} · {corpus.digest[:12]} · {report['source']}\n")
        print(corpus_summary(report, examples=args.examples))
        print(f"\ndropped.jsonl and changed.jsonl in {corpus.path} name everything that was left out or changed.")
    return 0
