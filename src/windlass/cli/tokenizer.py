"""Trains a tokenizer on a corpus, measures several on the same text, or imports one from a Hugging Face folder.

  windlass tokenizer train corpus --vocab 8192
  windlass tokenizer eval TOKENIZER CORPUS --against FOLDER
  windlass tokenizer import FOLDER

The tables show bytes per token (more is shorter) and fertility (tokens per word) on text that was held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="train|eval|import")
    train = verbs.add_parser("train", help="train a tokenizer on a corpus' training text")
    train.add_argument("corpus", help="name or digest of a corpus")
    train.add_argument(
        "--kind",
        choices=("bpe", "unigram", "wordpiece"),
        default="bpe",
        help="byte-level BPE or Unigram with byte fallback, both lossless; or WordPiece, BERT's (default: bpe)",
    )
    train.add_argument("--vocab", type=int, default=4096, help="number of tokens (default: 4096)")
    train.add_argument("--allow-smaller", action="store_true", help="take fewer where the text does not hold as many")
    train.add_argument(
        "--special",
        nargs="+",
        default=[],
        metavar="[ROLE=]TOKEN",
        help="more special tokens; ROLE is bos, eos, unk, sep, cls, pad or mask",
    )
    train.add_argument("--sentinels", type=int, default=0, metavar="N", help="<extra_id_0>… for span corruption")
    train.add_argument("--chat", action="store_true", help="add the tokens and the template of ChatML")
    train.add_argument("--chat-template", type=Path, metavar="FILE", help="another template (Jinja)")
    train.add_argument("--cased", action="store_true", help="WordPiece: keep upper case and accents")
    train.add_argument("--kinds", nargs="+", metavar="KIND", help="kinds of documents (default: all but docstring)")
    train.add_argument("--name", default="tokenizer", help="name of the artifact (default: tokenizer)")
    measure = verbs.add_parser("eval", help="measure tokenizers on the held-out text of a corpus")
    measure.add_argument("tokenizer", help="name or digest of a tokenizer, or a model's folder")
    measure.add_argument("corpus", help="name or digest of a corpus")
    measure.add_argument("--against", nargs="+", default=[], metavar="OTHER", help="tokenizers to compare with")
    measure.add_argument(
        "--languages", action="store_true", help="tell languages apart where the corpus does not (windlass[corpus])"
    )
    imported = verbs.add_parser("import", help="make an artifact of a Hugging Face tokenizer")
    imported.add_argument("source", type=Path, help="a folder with a tokenizer.json, or that file")
    imported.add_argument("--name", help="name of the artifact (default: that of the folder)")


def run(args: argparse.Namespace) -> int:
    from windlass.core.workspace import find_workspace

    with find_workspace() as workspace:
        return {"train": _train, "eval": _evaluate, "import": _import}[args.verb](workspace, args)


def _train(workspace: Workspace, args: argparse.Namespace) -> int:
    from windlass.build.tokenizer import tokenizer_report, tokenizer_summary, train_tokenizer
    from windlass.build.tokenizer.chat import chosen_template
    from windlass.core.progress import Progress

    corpus = workspace.artifacts.get(args.corpus)
    template = chosen_template(args.chat, args.chat_template)
    with Progress("tokenizer", None, "bytes") as progress:
        tokenizer = train_tokenizer(
            workspace,
            corpus,
            args.vocab,
            kind=args.kind,
            special=args.special,
            sentinels=args.sentinels,
            chat_template=template,
            cased=args.cased,
            allow_smaller=args.allow_smaller,
            name=args.name,
            kinds=args.kinds,
            progress=progress,
        )
    report = tokenizer_report(tokenizer)
    words = report["words"]
    print(
        f"{tokenizer.ref} · {tokenizer.digest[:12]} · {report['vocab_size']:,} of {report['vocab_size_asked']:,} "
        f"tokens from {report['trained_on_bytes'] / 1e6:.2f} MB, {words['occurrences']:,} words"
        + (f" ({words['thinned_share']:.1%} stood for by a sample)" if words["thinned"] else "")
    )
    print("\n" + tokenizer_summary(report))
    return 0


def _evaluate(workspace: Workspace, args: argparse.Namespace) -> int:
    from windlass.build.tokenizer import (
        compare_tokenizers,
        comparison_reports,
        tokenizer_comparison,
        tokenizer_summary,
    )

    names = (args.tokenizer, *args.against)
    tokenizers = [Path(n) if Path(n).is_dir() else workspace.artifacts.get(n) for n in names]
    corpus = workspace.artifacts.get(args.corpus)
    report = compare_tokenizers(workspace, tokenizers, corpus, by_language=args.languages)
    reports = comparison_reports(report)
    for name, measured in reports.items():
        print(f"{name}\n\n{tokenizer_summary(measured)}\n")
    if len(reports) > 1:
        print(tokenizer_comparison(reports) + "\n")
    print(f"{report.ref} · {report.path / 'report.json'}")
    return 0


def _import(workspace: Workspace, args: argparse.Namespace) -> int:
    from windlass.build.tokenizer import import_tokenizer, tokenizer_report

    tokenizer = import_tokenizer(workspace, args.source, name=args.name)
    report = tokenizer_report(tokenizer)
    print(
        f"{tokenizer.ref} · {tokenizer.digest[:12]} · {report['vocab_size']:,} tokens, {report['special_tokens']} of "
        f"them special, chat template: {'yes' if report['chat_template'] else 'no'}; "
        f"{report['round_trip']['random']:.1%} of {report['round_trip']['random_texts']} random Unicode texts come back"
    )
    return 0
