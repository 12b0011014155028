"""Scores a variant of the assistant on its exam: retrieval and abstention, each with a confidence interval.

windlass evaluate live                     what is served now
windlass evaluate VARIANT --against live   paired comparison and the gate's verdict; promotes nothing

The exit status of a comparison is 0 for GO, 3 for NO-GO, 4 for INCONCLUSIVE.
"""

from __future__ import annotations

import argparse
import json

from windlass.cli.workspace import add_option, opened

_STATUS = {"GO": 0, "NO-GO": 3, "INCONCLUSIVE": 4}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", help="name, name@version or digest of a variant, or 'live'")
    parser.add_argument("--against", metavar="VARIANT", help="the incumbent to compare with, or 'live'")
    parser.add_argument("--split", choices=("test", "dev", "harvest"), default="test", help="default: test")
    parser.add_argument("--task", default="assistant", help="whose release 'live' means; default: assistant")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    from windlass.evaluate.tables import render_experiment, render_report
    from windlass.loop.evaluation import compare_variants, evaluate_variant

    with opened(args) as ws:
        if args.against is None:
            found = evaluate_variant(ws, args.variant, split=args.split, task=args.task)
            print(json.dumps(found.to_json(), indent=2) if args.json else render_report(found))
            return 0
        experiment = compare_variants(ws, args.variant, args.against, split=args.split, task=args.task)
        print(json.dumps(experiment.to_json(), indent=2) if args.json else render_experiment(experiment))
        return _STATUS[experiment.verdict.decision]
