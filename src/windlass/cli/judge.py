"""Judges outputs by a model, and tells how far the judge can be believed.

windlass judge show correct.md                          what the model is told, and the form of its verdict
windlass judge calibrate correct.md labels.jsonl        judge what people labelled: how often it says as they do
windlass judge run correct.md answers.jsonl             the mean over items, corrected by the newest calibration
windlass judge run correct.md new.jsonl --against old.jsonl    the difference of two systems on the same items
windlass judge run correct.md tone-results@2            what `windlass eval` stored: the same with the judge's metric

A judge is a file: criteria as TOML between two lines of +++, instructions below. Items are rows with the fields that it
reads, as JSON lines, CSV or Parquet; labelled ones have `label` as well, and perhaps `author`. Every judgement is
recorded as a score with its reason, its cost and the trace of the call. See docs/judges.md.

The exit status of a run is 4 where too many items have no judgement for a verdict to rest on it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.cli.workspace import add_option, opened, opened_if_any
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.core.workspace import Workspace
    from windlass.evaluate.judges.finding import Finding
    from windlass.evaluate.judges.items import Item
    from windlass.evaluate.judges.judge import Judge
    from windlass.evaluate.judges.judgement import Judgement

_INCONCLUSIVE = 4


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="show|calibrate|run")
    show = verbs.add_parser("show", help="what a model is told, and the form of its verdict")
    calibrate = verbs.add_parser("calibrate", help="compare the judge with people's labels")
    run_ = verbs.add_parser("run", help="judge items, and say what their mean is worth")
    for verb in (show, calibrate, run_):
        verb.add_argument("judge", metavar="JUDGE.md", help="a judge's file, or a judge of the workspace")
    calibrate.add_argument("labels", type=Path, metavar="LABELS", help="rows with the judge's fields, and `label`")
    calibrate.add_argument("--misses", type=int, default=3, metavar="N", help="show so many of those it got wrong")
    run_.add_argument("items", metavar="ITEMS", help="rows with the judge's fields, or results of `windlass eval`")
    run_.add_argument("--against", type=Path, metavar="ITEMS", help="the same items by the system to compare with")
    run_.add_argument("--show", type=int, default=3, metavar="N", help="show so many of the worst, and why; default: 3")
    for verb in (calibrate, run_):
        verb.add_argument(
            "--model", action="append", default=[], metavar="MODEL",
            help="instead of the judge's own: provider:name, local:NAME, classifier:NAME; several are a panel",
        )  # fmt: skip
        verb.add_argument("--at-once", type=int, default=8, metavar="N", help="so many requests at once; default: 8")
        verb.add_argument("--json", action="store_true", help="print the figures as JSON")
    for verb in (show, calibrate, run_):
        add_option(verb)


def run(args: argparse.Namespace) -> int:
    return {"show": _show, "calibrate": _calibrate, "run": _run}[args.verb](args)


def _show(args: argparse.Namespace) -> int:
    from windlass.evaluate.judges.file import read_judge
    from windlass.loop.judging.asking import task_of
    from windlass.loop.judging.running import named
    from windlass.testing import Scripted

    with opened_if_any(args) as ws:
        judge = read_judge(Path(args.judge)) if ws is None else named(ws, args.judge)
    task = task_of(judge)
    asked = task.request(Scripted(), **{name: f"<{name}>" for name in judge.fields})
    print(f"{judge.kind} judge '{judge.name}', models: {', '.join(judge.models) or 'none'}\ndigest {judge.digest}\n")
    for message in asked.messages:
        print(f"[{message.role}]\n{message.text}\n")
    print("[the form of the verdict]\n" + json.dumps(asked.schema, ensure_ascii=False, indent=2))
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from windlass.evaluate.judges.items import read_labelled
    from windlass.loop.judging.running import calibrate_judge, named
    from windlass.loop.text import shortened

    with opened(args) as ws:
        judge = named(ws, args.judge, args.model)
        items, labels = read_labelled(args.labels, judge)
        found, stored = calibrate_judge(ws, judge, items, labels, at_once=args.at_once)
        if args.json:
            print(json.dumps([one.to_json() for one in found], indent=2))
            return 0
        texts = {item.id: item.inputs[judge.fields[-1]] for item in items}
        for one in found:
            print(one.render())
            for row in one.misses[: args.misses]:
                print(f"\n  {row.item}: people {row.human:g}, the judge {row.judge:g}: {row.reason}")
                print(f"    {shortened(texts[row.item], 160)}")
            print()
        print(f"{stored.ref}  {stored.digest[:12]}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from windlass.evaluate.judges.items import read_items
    from windlass.loop.judging.running import compare_by_judge, named, run_judge

    with opened(args) as ws:
        judge = named(ws, args.judge, args.model)
        if not Path(args.items).exists() and ws.store.artifact(args.items) is not None:
            return _results(ws, judge, args)
        items = read_items(Path(args.items), judge)
        if args.against is None:
            judged = run_judge(ws, judge, items, at_once=args.at_once)
            found, stored = judged.findings, [judged.stored]
            worst = _worst(judge, items, judged.judgements, args.show)
        else:
            if args.against == Path(args.items):
                raise InputError("Both systems are the same file.", "Name the items of another one after --against.")
            before = read_items(args.against, judge)
            first, second, found = compare_by_judge(ws, judge, before, items, at_once=args.at_once)
            stored, worst = [first.stored, second.stored], []
        if args.json:
            print(json.dumps([one.to_json() for one in found], indent=2))
        else:
            print("\n\n".join(one.render() for one in found))
            print("".join(worst), end="")
            print("\n" + "\n".join(f"{one.ref}  {one.digest[:12]}" for one in stored))
        return _status(found)


def _worst(judge: Judge, items: Sequence[Item], judgements: Sequence[Judgement], most: int) -> list[str]:
    """Those that the judge likes least, with its reason; of pairs, those of which the second is preferred most."""
    from windlass.loop.text import shortened

    lines = []
    for criterion in judge.criteria:
        rows = [(one, it) for one, it in zip(judgements, items, strict=True) if one.error is None]
        low = [(one, it) for one, it in rows if one.values[criterion.name] < criterion.highest]
        for one, it in sorted(low, key=lambda row: row[0].values[criterion.name])[:most]:
            name = f"{criterion.name} " if len(judge.criteria) > 1 else ""
            lines.append(f"\n  {it.id}: {name}{one.values[criterion.name]:g}: ")
            lines.append(f"{shortened(one.reason(criterion.name), 300)}\n")
            lines.append(f"    {shortened(it.inputs[judge.fields[-1]], 160)}\n")
    return lines


def _results(ws: Workspace, judge: Judge, args: argparse.Namespace) -> int:
    """Of results that are stored; two of them are compared by `windlass compare`."""
    from windlass.loop.judging.running import judge_stored

    if args.against is not None:
        raise InputError("Results are compared by `windlass compare`.", "Judge both, and compare what is stored.")
    judged, made = judge_stored(ws, judge, ws.artifacts.get(args.items), at_once=args.at_once)
    if args.json:
        print(json.dumps([one.to_json() for one in judged.findings], indent=2))
    else:
        print("\n\n".join(one.render() for one in judged.findings))
        print(f"\n{made.ref}  {made.digest[:12]}\ncompare: windlass compare A {made.ref} --metric {judge.name}")
    return _status(judged.findings)


def _status(found: Sequence[Finding]) -> int:
    return 0 if all(one.trusted for one in found) else _INCONCLUSIVE
