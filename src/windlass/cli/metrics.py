"""Measures texts beside their references, and lists the metrics there are.

    windlass metrics                                        all of them: which direction is better, and what they are
    windlass metrics new.jsonl rouge-l bleu                 each with its interval
    windlass metrics new.jsonl bleu --against old.jsonl     and what became better, on the same items

Files have lines of {"found": "...", "right": ["...", ...], "cluster": "..."}; the cluster may be left out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.core.errors import InputError
from windlass.core.tables import table

if TYPE_CHECKING:
    from windlass.evaluate.metrics.catalogue import Metric
    from windlass.evaluate.statistics.intervals import Interval


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE.jsonl", help="what was said, and what is right")
    parser.add_argument("names", nargs="*", metavar="METRIC", help="as exact, f1, rouge-l, bleu, chrf, wer")
    parser.add_argument("--against", type=Path, metavar="FILE.jsonl", help="what another said to the same items")
    parser.add_argument(
        "--synonyms",
        type=Path,
        metavar="PLACE",
        help="for meteor: a file, `begin, start` a line, or a WordNet's folder",
    )
    parser.add_argument("--level", type=float, default=0.95, help="confidence of the intervals; default: 0.95")
    parser.add_argument("--seed", type=int, default=0, help="of what is resampled; default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON")


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
    from windlass.evaluate.metrics.catalogue import METRICS, metric
    from windlass.evaluate.metrics.measure import difference, measured
    from windlass.evaluate.metrics.pairs import read_pairs

    if not args.names:
        raise InputError(
            "No metric is named.", "As in: windlass metrics FILE.jsonl rouge-l. `windlass metrics` lists them."
        )
    if not args.file.exists() and args.file.name in METRICS:
        raise InputError(f"There is no file {args.file}.", f"The file comes first: windlass metrics FILE {args.file}")
    metrics = [_with_synonyms(metric(name), args.synonyms) for name in args.names]
    if args.synonyms is not None and not any(one.name == "meteor" for one in metrics):
        raise InputError("--synonyms belongs to meteor.", "Name that metric, or leave the option out.")
    pairs = read_pairs(args.file)
    options = {"level": args.level, "seed": args.seed}
    scores = {one.name: measured(one, pairs.found, pairs.right, pairs.clusters, **options) for one in metrics}
    gains = {}
    if args.against is not None:
        other = read_pairs(args.against)
        pairs.same_items(other)
        gains = {
            one.name: difference(one, other.found, pairs.found, pairs.right, pairs.clusters, **options)
            for one in metrics
        }
    if args.json:
        told = {name: {"score": one.to_json()} for name, one in scores.items()}
        for name, gain in gains.items():
            told[name]["difference"] = gain.to_json()
        print(json.dumps(told, indent=2))
        return 0
    groups = f" in {len(set(pairs.clusters)):,} clusters" if pairs.clusters else ""
    print(f"{len(pairs.found):,} {'item' if len(pairs.found) == 1 else 'items'}{groups}, {args.level:.0%} intervals\n")
    rows = [(one.name, one.better, str(scores[one.name]), *_gained(one, gains.get(one.name))) for one in metrics]
    more = (f"less that of {args.against}", "which is") if gains else ()
    print(table(("metric", "better", "score", *more), rows))
    return 0


def _with_synonyms(metric: Metric, place: Path | None) -> Metric:
    from windlass.evaluate.metrics.text.meteor import meteor
    from windlass.evaluate.metrics.text.synonyms import read_synonyms

    if place is None or metric.name != "meteor":
        return metric
    return replace(metric, values=partial(meteor, synonyms=read_synonyms(place)))


def _gained(metric: Metric, gain: Interval | None) -> tuple[str, ...]:
    if gain is None:
        return ()
    if gain.low <= 0 <= gain.high:
        return str(gain), "not told apart"
    return str(gain), "better" if (gain.low > 0) == (metric.better == "higher") else "worse"
