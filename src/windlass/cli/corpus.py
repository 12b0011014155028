"""Makes a corpus: reads documents, cleans them, drops what is poor or repeated, splits the rest, mixes the sources.

Reads folders and files of documents, the documentation that this Python carries, or the sources that a recipe
(*.toml) names. Options take the place of what the recipe says:

    heldout = 0.1
    repair = true
    languages = ["en"]
    quality = "gopher"
    pii = "mask"
    decontaminate = ["eval/questions.jsonl"]
    [rules]
    max_words = 500_000
    [[sources]]
    path = "novels"
    weight = 0.3
    [[sources]]
    path = "manuals"
    weight = 0.7

Nothing is left out or changed in silence: files beside the corpus name every document with the reason.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli.workspace import add_option, opened, opened_or_made
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.build.corpus import Part
    from windlass.core.artifacts import Artifact
    from windlass.core.readers import Source
    from windlass.core.workspace import Workspace

_SETTINGS = (
    "repair", "languages", "decontaminate", "evaluation_fields", "contaminated", "quality", "pii", "pii_kinds", "near",
    "heldout", "seed",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("source", nargs="*", default=[], type=Path, help="folders and files, or a recipe (*.toml)")
    what.add_argument("--python", action="store_true", help="the documentation and source of this Python")
    what.add_argument("--show", metavar="CORPUS", help="print the report of a corpus made earlier (name or digest)")
    parser.add_argument("--name", default="corpus", help="name of the artifact (default: corpus)")
    parser.add_argument("--text", default="text", help="field of a row that holds its text (default: text)")
    parser.add_argument("--id", help="field of a row that names it (default: rows are numbered)")
    how = parser.add_argument_group("what becomes of the documents")
    how.add_argument("--repair", action="store_const", const=True, help="mend wrongly decoded characters")
    how.add_argument("--languages", nargs="+", metavar="CODE", help="keep these only, as in: en de (default: all)")
    how.add_argument("--quality", metavar="RULES", help="none, light, gopher or fineweb (default: light)")
    how.add_argument("--pii", metavar="WHAT", help="keep, mask or drop personal data (default: keep)")
    how.add_argument("--pii-kinds", nargs="+", metavar="KIND", help="kinds of personal data to look for")
    how.add_argument("--decontaminate", nargs="+", type=Path, metavar="FILE", help="evaluation sets to keep out")
    how.add_argument("--evaluation-fields", nargs="+", metavar="FIELD", help="of their rows (default: all with text)")
    how.add_argument("--contaminated", metavar="WHAT", help="cut their text out or drop the document (default: cut)")
    how.add_argument("--near", type=float, help="similarity of near duplicates (default: 0.8)")
    how.add_argument("--heldout", type=float, help="share of files held out from training (default: 0.1)")
    how.add_argument("--seed", type=int, help="another one holds out other files (default: 0)")
    where = parser.add_argument_group("how the work is done; the corpus is the same whichever way")
    where.add_argument("--max-mb", type=float, default=20.0, help="skip larger files and rows (default: 20)")
    where.add_argument("--workers", type=int, default=1, help="processes that judge documents (default: this one)")
    where.add_argument("--engine", choices=("local", "ray"), default="local", help="on this machine or on Ray")
    add_option(parser)
    shown = parser.add_argument_group("what is printed")
    shown.add_argument("--examples", type=int, default=3, help="names to print for each reason (default: 3)")
    shown.add_argument("--json", action="store_true", help="the whole report as JSON")


def run(args: argparse.Namespace) -> int:
    from windlass.build.corpus import corpus_report, corpus_summary

    for path in args.source:
        if not path.exists():  # before a workspace is made
            raise InputError(f"{path} does not exist.", "Name a file or a folder of documents.")
    with opened(args) if args.show else opened_or_made(args) as workspace:
        corpus = workspace.artifacts.get(args.show) if args.show else _built(args, workspace)
        report = corpus_report(corpus)
        if args.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
            return 0
        print(f"{corpus.ref} · {corpus.digest[:12]} · {report['source']}\n")
        print(corpus_summary(report, examples=args.examples))
        print(f"\ndropped.jsonl and changed.jsonl in {corpus.path} name everything that was left out or changed.")
        if not args.show:
            print(f"Next: windlass tokenizer train {corpus.record.name}")
    return 0


def _built(args: argparse.Namespace, workspace: Workspace) -> Artifact:
    from windlass.build.corpus import build_corpus, corpus_settings, engine, parts_of
    from windlass.core.progress import Progress
    from windlass.core.readers import Folder, PythonDocs, RowFields

    changes = {key: getattr(args, key) for key in _SETTINGS if getattr(args, key) is not None}
    max_bytes = int(args.max_mb * 1e6)
    recipe = args.source[0] if len(args.source) == 1 and args.source[0].suffix == ".toml" else None
    if len(args.source) > 1:
        changes["sources"] = [{"path": str(path), "text": args.text, "id": args.id} for path in args.source]
    settings = corpus_settings(recipe, changes)
    sources: Source | list[Part]
    if args.python:
        sources = PythonDocs()
    elif recipe or len(args.source) > 1:
        sources = parts_of(settings, max_bytes)
    else:
        sources = Folder(args.source[0], max_bytes, RowFields(args.text, args.id))
    with Progress("corpus", None, "documents") as progress:
        return build_corpus(
            workspace,
            sources,
            settings,
            name=args.name,
            engine=engine(args.engine, args.workers),
            progress=progress,
        )
