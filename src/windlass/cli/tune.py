"""Makes a model better at one job, by examples: as a recipe says, on whatever data you have.

  windlass tune chat --base model --data conversations.jsonl   a recipe that comes with windlass; --list shows all
  windlass tune classify --data labelled.csv                   an encoder; also regress, tag, extract, rank and embed
  windlass tune dpo --base model --data pairs.jsonl            from preferences; also kto, orpo, simpo and reward
  windlass tune my-recipe.toml                                 your own; it may name its base and its data
  windlass tune chat --base model --data rows.jsonl --set adapter.rank=64 --epochs 1
  windlass tune chat --base model --from traces                the workspace's traces with their scores are the data
  windlass tune classify --from traces --task TASK --teacher MODEL   a typed task's answers, by a small encoder
  windlass tune rank --from index                              a reranker of an index, which asks itself
  windlass tune distil-classify --set objective.teacher=large --data texts.jsonl   what a larger classifier thinks
  windlass tune chat --base model --data rows.jsonl --check    the dataset described, memory, time, disk; no training
  windlass tune chat --base model --data rows.jsonl --search 20   rates, ranks and epochs tried, the best one stored

Data: JSON lines, JSON, CSV or Parquet with `messages`, `conversations`, `instruction` and `output`, or `prompt` and
`completion`; or a dataset of the workspace. Preferences are `prompt`, `chosen` and `rejected`, or `prompt`,
`completion` and `label` (true or false). Encoders learn from `text` and `label`, `tokens` and `tags`, `question`,
`context` and `answers`, or `query`, `positive` and `negatives`; where yours are called otherwise, say for example
--set data.columns.label=topic. The run can be stopped with Ctrl-C at any moment: the same command goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from windlass.cli import workers
from windlass.cli.workspace import add_option, opened
from windlass.core.errors import InputError

if TYPE_CHECKING:
    from windlass.build.adapt.settings import TuneSettings
    from windlass.core.workspace import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", nargs="?", help="one that comes with windlass (--list), or a .toml file")
    parser.add_argument(
        "--base", help="what is tuned: a model artifact, or a folder in Hugging Face layout; encoders default to MiniLM"
    )
    parser.add_argument("--data", help="a file of rows, or a dataset artifact")
    parser.add_argument("--name", help="name of the artifact; default: tuned")
    parser.add_argument("--epochs", type=float, help="how often each example is seen; default: as the recipe says")
    parser.add_argument("--steps", type=int, help="a fixed number of steps instead")
    parser.add_argument("--minutes", type=float, help="a time for the training instead")
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change anything else of the recipe, such as adapter.rank=64; may be repeated",
    )
    parser.add_argument(
        "--check", action="store_true", help="do not train: describe the dataset, memory, time and disk"
    )
    parser.add_argument("--search", type=int, metavar="N", help="try N settings by the ranges in the recipe's [search]")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("traces", "index"),
        help="make the dataset of the workspace's scored traces, or (for rank) of an index",
    )
    index = parser.add_argument_group("index", "learn to rank what a search finds")
    index.add_argument("--index", help="whose documents; default: index")
    index.add_argument("--questions", metavar="DATASET", help="questions with their documents, such as a harvest's")
    traces = parser.add_argument_group("traces", "learn from what was asked and answered in this workspace")
    traces.add_argument("--task", help="whose traces: the name of their root span; default: assistant")
    traces.add_argument("--score", help="which scores tell good answers from bad ones; default: feedback")
    traces.add_argument("--minimum", type=float, help="score from which an answer is good; default: 0.5")
    traces.add_argument("--teacher", metavar="MODEL", help="what this model answered, scored or not")
    traces.add_argument("--exam", help="nothing of its dev and test questions is learned; default: the one called exam")
    parser.add_argument("--list", action="store_true", help="show the recipes that come with windlass")
    workers.add_options(parser)
    add_option(parser)


def run(args: argparse.Namespace) -> int:
    _refuse(args)
    from windlass.build.adapt.recipe import TUNING
    from windlass.build.training.recipe import parse_change
    from windlass.core.tables import table

    if args.list:
        print(table(("recipe", "what it makes"), TUNING.shipped().items()))
        return 0
    workers.quieten()
    from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled
    from windlass.build.adapt.tuning import tune
    from windlass.build.training.distributed.workers import joined
    from windlass.loop.training.rollouts import EngineRollouts
    from windlass.loop.training.runs import summary, tracked

    options = {
        "model.base": args.base,
        "data.dataset": args.data,
        "data.epochs": args.epochs,
        "schedule.steps": args.steps,
        "schedule.minutes": args.minutes,
        "run.name": args.name,
        "run.seed": args.seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if args.source == "index":  # passages are as long as an embedder reads, and beside a question longer
        given["data.overlong"] = "cut"
    settings = TUNING.read(args.recipe, given | dict(map(parse_change, args.set)))
    if (status := workers.launched(args)) is not None:
        return status
    with joined(args.device) as team, team.one_voice(), opened(args) as ws:
        if args.source is not None:
            make = _from_traces if args.source == "traces" else _from_index
            dataset = team.told("traces", make(ws, args, settings) if team.leads else None)
            settings = replace(settings, data=replace(settings.data, dataset=dataset))
        if args.check:
            inputs = open_uncompiled(ws, settings)
            print(f"{describe_dataset(ws, inputs).render()}\n")
            found = check_tuning(ws, inputs, args.workers or 1)
            print(f"\n{found.render()}")
            return 0 if found.fits else 1
        if args.search is not None:
            from windlass.build.adapt.searching import search

            outcome = search(ws, settings, args.search, rollouts=EngineRollouts)
            print(f"\n{outcome.render()}\n\nbest: {outcome.best.ref}  {outcome.best.digest[:12]}\n{outcome.best.path}")
            return 0
        model = tune(ws, settings, workers=team, parallel=args.parallel, rollouts=EngineRollouts)
        if not team.leads:
            return 0
        record = ws.store.artifact(model.digest)
        if record is not None and record.run is not None:
            print(f"\n{summary(tracked(ws, record.run))}\n")
        print(f"{model.ref}  {model.digest[:12]}\n{model.path}")
    return 0


def _refuse(args: argparse.Namespace) -> None:
    """Raises `InputError` for options that contradict each other, before anything is loaded."""
    if args.source is not None and args.data is not None:
        raise InputError(f"Both --data and --from {args.source} are given.", "Give the one to learn from.")
    if args.source != "index" and (args.index is not None or args.questions is not None):
        raise InputError("--index and --questions say what ranking is learned from.", "Add --from index.")
    chosen = (args.task, args.score, args.minimum, args.teacher, args.exam)
    if args.source != "traces" and any(value is not None for value in chosen):
        raise InputError("--task, --score, --minimum, --teacher and --exam choose traces.", "Add --from traces.")
    if args.search is not None and (args.workers or 1) != 1:
        raise InputError("A search trains with one worker.", "Leave --workers out.")


def _from_traces(ws: Workspace, args: argparse.Namespace, settings: TuneSettings) -> str:
    """Digest of a dataset of the workspace's traces, as the objective learns from."""
    from windlass.loop.harvesting.conversations import Wanted, described, find_exam, form_of, harvest_conversations

    asked = {"task": args.task, "score": args.score, "minimum": args.minimum, "teacher": args.teacher}
    known = {name: value for name, value in asked.items() if value is not None}
    wanted = Wanted(form=form_of(settings.objective.kind), **known)
    dataset = harvest_conversations(ws, wanted, find_exam(ws, args.exam))
    print("\n".join(described(dataset)))
    return dataset.digest


def _from_index(ws: Workspace, args: argparse.Namespace, settings: TuneSettings) -> str:
    """Digest of a dataset of questions to an index with right and wrong passages."""
    if settings.objective.kind != "rank":
        raise InputError(f"The objective is {settings.objective.kind}, but an index teaches ranking.", "Tune `rank`.")
    from windlass.loop.assistants.assemble import load_embedder
    from windlass.loop.harvesting.ranking import ranking_dataset

    index = ws.artifacts.get(args.index or "index")
    questions = None if args.questions is None else ws.artifacts.get(args.questions)
    dataset = ranking_dataset(ws, index, load_embedder(index), questions=questions, seed=settings.run.seed)
    card = dataset.card
    print(
        f"{dataset.ref}: {card['items']:,} questions ({card['from_users']:,} of users, "
        f"{card['asked_by_the_documents']:,} headings and sentences of the documents)"
    )
    if card["without_a_passage"]:
        print(f"  left out: {card['without_a_passage']:,} to which nothing right, or nothing wrong, was found")
    return dataset.digest
