"""Measures answers beside what is right, and lists the metrics there are.

    windlass metrics                                        all of them: which direction is better, and what they are
    windlass metrics new.jsonl rouge-l bleu                 each with its interval
    windlass metrics new.jsonl bleu --against old.jsonl     and what became better, on the same items
    windlass metrics new.jsonl mine.py:polite               a function of yours, of what is right and what was said
    windlass metrics run.txt ndcg@10 map --qrels qrels.txt  a run of trec_eval's form

Lines of a file, each with a "cluster" where items hang together:
    {"found": "the cat sat", "right": ["the cat sat down"]}         texts: f1, contains, rouge-l, bleu, similarity
    {"found": "yes", "right": "no"}                                 labels: accuracy, f1-macro, kappa
    {"found": {"yes": 0.8, "no": 0.2}, "right": "yes"}              probabilities: log-loss, brier, ece, auroc
    {"found": 0.8, "right": true}                                   scores: auroc, auprc, ece
    {"found": 3.1, "right": 3}                                      numbers: pearson, spearman, kendall
    {"found": ["d3", "d1"], "right": {"d1": 2, "d7": 1}}            rankings: recall@5, ndcg@10, mrr, map

The exit status is 4 where a function of yours has no value on some of the lines.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.cli.workspace import add_option, opened_if_any
from windlass.core.errors import InputError
from windlass.core.tables import table

if TYPE_CHECKING:
    from windlass.loop.evaluating.measuring import Figure

_INCONCLUSIVE = 4


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="what was said, and what is right")
    parser.add_argument("names", nargs="*", metavar="METRIC", help="as exact, f1, rouge-l, bleu, or FILE.py:NAME")
    parser.add_argument("--against", type=Path, metavar="FILE", help="what another said to the same items")
    parser.add_argument(
        "--qrels", type=Path, metavar="FILE", help="where the file is a run of trec_eval's form: its judgements"
    )
    parser.add_argument("--positive", metavar="LABEL", help="of two labels, the one that an AUROC is of")
    parser.add_argument(
        "--synonyms",
        type=Path,
        metavar="PLACE",
        help="for meteor: a file, `begin, start` a line, or a WordNet's folder",
    )
    parser.add_argument(
        "--encoder", default="minilm", metavar="NAME", help="for bertscore and similarity: minilm, or a folder"
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence of the intervals; default: 0.95")
    parser.add_argument("--seed", type=int, default=0, help="of what is resampled; default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    return _listed(args) if args.file is None else _measured(args)


def _listed(args: argparse.Namespace) -> int:
    from windlass.evaluate.metrics.catalogue import METRICS

    rows = [
        (one.name, one.better, "{:g} to {:g}".format(*one.bounds), _of(one.values is not None, one.corpus), one.what)
        for one in METRICS.values()
    ]
    if args.json:
        print(json.dumps([dict(zip(("name", "better", "bounds", "of", "what"), row)) for row in rows], indent=2))
    else:
        print(table(("metric", "better", "between", "of", "what"), rows))
    return 0


def _of(values: bool, corpus: bool) -> str:
    return "items" if values or not corpus else "a corpus"


def _measured(args: argparse.Namespace) -> int:
    from windlass.evaluate.metrics.catalogue import METRICS
    from windlass.loop.evaluating.measuring import Answers, Options, measure

    if not args.names:
        raise InputError(
            "No metric is named.", "As in: windlass metrics FILE.jsonl rouge-l. `windlass metrics` lists them."
        )
    if not args.file.exists() and args.file.name in METRICS:
        raise InputError(f"There is no file {args.file}.", f"The file comes first: windlass metrics FILE {args.file}")
    how = Options(args.level, args.seed, args.positive, args.synonyms, args.encoder)
    file = Answers(args.file, args.qrels)
    with opened_if_any(args) as ws:
        found = measure(ws, args.names, file, args.against and Answers(args.against, args.qrels), how)
    if args.json:
        print(json.dumps({one.name: _told(one) for one in found}, indent=2))
    else:
        most = max((one.score for one in found), key=lambda score: score.n)
        groups = f" in {most.clusters:,} clusters" if most.clusters < most.n else ""
        print(f"{most.n:,} {'item' if most.n == 1 else 'items'}{groups}, {args.level:.0%} intervals\n")
        rows = [(one.name, one.better, str(one.score), *_gained(one)) for one in found]
        more = (f"less that of {args.against}", "which is") if args.against else ()
        print(table(("metric", "better", "score", *more), rows))
        for one in found:
            for line in _failed(one):
                print(line)
    return _INCONCLUSIVE if any(one.errors for one in found) else 0


def _told(one: Figure) -> dict[str, Any]:
    told: dict[str, Any] = {"score": one.score.to_json()}
    if one.gain is not None:
        told["difference"] = one.gain.to_json()
    if one.errors:
        told["errors"] = dict(one.errors)
    return told


def _gained(one: Figure) -> tuple[str, ...]:
    if one.gain is None:
        return ()
    if one.gain.low <= 0 <= one.gain.high:
        return str(one.gain), "not told apart"
    return str(one.gain), "better" if (one.gain.low > 0) == (one.better == "higher") else "worse"


def _failed(one: Figure) -> list[str]:
    if not one.errors:
        return []
    where, why = next(iter(one.errors.items()))
    return [f"\n{one.name}: {len(one.errors):,} lines have no value and are in no figure; the first, {where}: {why}"]
