"""Trains a byte-level BPE tokenizer on a corpus, or measures one on another corpus.

The table shows bytes per token (more is shorter) and fertility (tokens per word) on text that was held out.
"""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="train|eval")
    train = verbs.add_parser("train", help="train a tokenizer on a corpus' training text")
    train.add_argument("corpus", help="name or digest of a corpus")
    train.add_argument("--vocab", type=int, default=4096, help="number of tokens (default: 4096)")
    train.add_argument("--kinds", nargs="+", metavar="KIND", help="kinds of documents (default: all but docstring)")
    train.add_argument("--name", default="tokenizer", help="name of the artifact (default: tokenizer)")
    measure = verbs.add_parser("eval", help="measure a tokenizer on the held-out text of a corpus")
    measure.add_argument("tokenizer", help="name or digest of a tokenizer")
    measure.add_argument("corpus", help="name or digest of a corpus")


def run(args: argparse.Namespace) -> int:
    from windlass.build.tokenizer import (
        evaluate_tokenizer,
        load_tokenizer,
        tokenizer_report,
        tokenizer_summary,
        train_tokenizer,
    )
    from windlass.core.errors import InputError
    from windlass.core.progress import Progress
    from windlass.core.workspace import find_workspace

    with find_workspace() as workspace:
        corpus = workspace.artifacts.get(args.corpus)
        if args.verb == "eval":
            tokenizer = workspace.artifacts.get(args.tokenizer)
            measures = evaluate_tokenizer(load_tokenizer(tokenizer), corpus)
            if not measures:
                raise InputError(f"{corpus.ref} holds nothing out.", "Make a corpus of two files or more.")
            print(f"{tokenizer.ref} on held-out text of {corpus.ref}; every text came back unchanged\n")
            print(tokenizer_summary(measures))
            return 0
        with Progress("tokenizer", None, "bytes") as progress:
            tokenizer = train_tokenizer(
                workspace, corpus, args.vocab, name=args.name, kinds=args.kinds, progress=progress
            )
        report = tokenizer_report(tokenizer)
        print(
            f"{tokenizer.ref} · {tokenizer.digest[:12]} · {report['vocab_size']:,} of {report['vocab_size_asked']:,} "
            f"tokens from {report['trained_on_bytes'] / 1e6:.2f} MB"
            + ("" if report["trained_on_all"] else " (the rest was over the limit)")
        )
        print("\n" + tokenizer_summary({"train": report["train"], **report["heldout"]}))
    return 0
