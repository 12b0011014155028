"""What instruction tuning and preferences make of a small decoder: held-out loss, format obedience and wins, by stage.

    python -m bench.instruct --home FOLDER [--minutes 24] [--rows 4000] [--items 300]

A decoder pre-trained on the public texts (`_proof_base`) goes through `windlass tune instruct` on the public
instruction sets with grade-school arithmetic and the preferred answers of the preference sets, then through `windlass
tune dpo` on these. Each stage answers the same held-out prompts through the serving engine, greedily. What is held out
shares no passage, question or conversation with anything that any stage was trained on, pre-training included.

- loss: nats a token of the right answers. The base is also asked its own way, by the plain text of prompt and answer.
- obedience: the answer ends by itself, says something, does not say the question again, and has the asked form: ends in
  `#### number`, is one of the listed choices, or stands in the passage. Right: it is the right answer too.
- wins: a judge that learned from pairs of its own (`_proof_judge`) scores each answer by itself, so that no order of
  two can matter. Equal answers are ties. How often it agrees with people is measured on pairs that nothing has seen.

Intervals are 95 %; stages are compared item by item.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench._data import data_folder
from bench._proof_answers import Floats, answers, encoder_of, losses, request, written
from bench._proof_base import base
from bench._proof_data import Row, held, instructions, preferences
from bench._proof_judge import Judge

from windlass.build.adapt.data.continuations import ContinuationEncoder
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.build.tokenizer import load_specials, load_tokenizer
from windlass.core.artifacts import Artifact
from windlass.core.errors import NotFound
from windlass.core.files import sha256_file, sha256_json
from windlass.core.tables import table
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.intervals import Interval, mean_interval, wilson_interval
from windlass.evaluate.statistics.paired import mcnemar_mid_p, paired_difference
from windlass.serve.engine.wishes import RAW_PROMPT

WINDOW = 320
"""Tokens of prompt and answer together: rows that do not fit are left out, in training and measuring alike."""
ANSWER = 120
"""Tokens of an answer at most."""
GAP = "\n\n"
"""Between prompt and answer in the texts that the base was trained on."""
JUDGE = 3
"""One of so many pairs is the judge's."""
SAID_AGAIN = 12
"""Words in a row out of the question that count as saying it again, unless the right answer does so too."""
CHOICES = (("Yes", "No"), ("True", "False"), tuple("ABCDE"))


# ---- what is asked, and whether an answer has the asked form


def form(row: Row) -> str:
    """`number`, `choice`, `passage` (the answer stands in the prompt), or `free`."""
    if row["kind"] in ("gsm8k", "mawps"):
        return "number"
    if any(row["answer"] in choices for choices in CHOICES):
        return "choice"
    short = len(row["answer"].split()) <= SAID_AGAIN
    return "passage" if short and row["answer"].lower() in row["prompt"].lower() else "free"


def obeys(row: Row, said: ChatResponse) -> bool:
    text = said.message.text.strip()
    if said.finish_reason != "stop" or not text or _says_again(row, text):
        return False
    if form(row) == "number":
        return re.search(r"#### -?[\d.,]*\d$", text) is not None
    if form(row) == "choice":
        return text in next(choices for choices in CHOICES if row["answer"] in choices)
    return form(row) == "free" or text.lower() in row["prompt"].lower()


def right(row: Row, said: ChatResponse) -> bool:
    found, wanted = (_result(text) for text in (said.message.text, row["answer"]))
    return found == wanted


def _result(text: str) -> str:
    """What counts of an answer: the number behind `####`, or all of it."""
    return text.rpartition("####")[2].strip().replace(",", "").lower()


def _says_again(row: Row, text: str) -> bool:
    def runs(of: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", of.lower())
        return {tuple(words[i : i + SAID_AGAIN]) for i in range(len(words) - SAID_AGAIN + 1)}

    asked = runs(row["prompt"])
    return bool(asked & runs(text)) and not asked & runs(row["answer"])


# ---- data


@dataclass(frozen=True, slots=True)
class Data:
    train: list[Row]
    heldout: list[Row]
    policy: list[Row]
    """Pairs to learn preferences from."""
    judge: list[Row]
    """Pairs for the judge alone."""
    pairs: list[Row]
    """Held out from both."""


def prepared(data: Path, folder: Path, rows: int, items: int) -> Data:
    """`rows` instructions to train on, `items` to measure, each kind as often as the others as far as it goes."""
    length = encoder_of(folder)

    def fits(row: Row) -> bool:
        answer = row.get("answer") or max(row["chosen"], row["rejected"], key=len)
        return len(length({"prompt": row["prompt"], "completion": answer})) <= WINDOW

    found = [row for row in instructions(data) if row["kind"] != "dbpedia_14"]  # all of its answers are "Company"
    draw = np.random.default_rng(0)
    found = [found[number] for number in draw.permutation(len(found))]
    pairs = [row for row in preferences(data) if fits(row)]
    return Data(
        _evenly((row for row in found if not held(row["group"])), fits, rows),
        _evenly((row for row in found if held(row["group"])), fits, items),
        [row for row in pairs if not held(row["group"]) and not held(row["group"], JUDGE)],
        [row for row in pairs if not held(row["group"]) and held(row["group"], JUDGE)],
        [row for row in pairs if held(row["group"])],
    )


def _evenly(rows: Sequence[Row], fits: Callable[[Row], bool], most: int) -> list[Row]:
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    taken: list[Row] = []
    queues = [iter(kind) for _, kind in sorted(by_kind.items())]
    while queues and len(taken) < most:
        for queue in list(queues):
            row = next((row for row in queue if fits(row)), None)
            if row is None:
                queues.remove(queue)
            else:
                taken.append(row)
    return taken[:most]


# ---- training


def made(ws: Workspace, recipe: str, name: str, dataset: Path, base_of: str, **changes: object) -> Artifact:
    """By a recipe that comes with windlass, or found where an earlier call has made it of the same base and rows."""
    settings = {"model.base": base_of, "data.dataset": str(dataset), "run.name": name}
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    of = [recipe, ws.artifacts.get(base_of).digest, sha256_file(dataset), sorted(changes.items())]
    settings["run.name"] = name = f"{name}-{sha256_json(of)[:8]}"
    try:
        return ws.artifacts.get(name)
    except NotFound:
        return tune(ws, TUNING.read(recipe, settings))


def trained(ws: Workspace, start: Artifact, data: Data, folder: Path, epochs: float) -> tuple[Artifact, Artifact]:
    """The instructed model, and the one that has learned preferences after it."""
    asked = [{"prompt": row["prompt"], "completion": row["answer"]} for row in data.train]
    asked += [{"prompt": row["prompt"], "completion": row["chosen"]} for row in data.policy]  # else DPO starts afar
    instructed = made(
        ws, "instruct", "proof-instruct", written(folder, asked, "instruct"), start.ref, data__epochs=epochs
    )
    pairs = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in data.policy]
    preferred = made(
        ws, "dpo", "proof-dpo", written(folder, pairs, "pairs"), instructed.ref,
        model__template="chatml", adapter__kind="none", optimizer__matrix_rate=2e-5, data__epochs=1.0,
    )  # fmt: skip
    return instructed, preferred


# ---- measuring


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    nats: Floats
    """A token of each held-out answer."""
    ended: Floats
    obeys: Floats
    right: Floats
    said: list[str]
    """To the held-out prompts of the preferences."""


def measured(name: str, model: Path, data: Data, *, plain: bool = False) -> Stage:
    """`plain`: each prompt as a text to go on with, which is how a model that was only pre-trained has met such
    prompts; it is not asked what the preferences ask."""
    asked = [_continued(row) if plain else request(row, ANSWER) for row in data.heldout]
    said = answers(model, [*asked, *(() if plain else (request(row, ANSWER) for row in data.pairs))])
    encode = encoder_of(model)
    if plain:
        going_on = ContinuationEncoder(load_tokenizer(model), load_specials(model))
        encoded = [going_on.encode(row["prompt"] + GAP, row["answer"], row["kind"]) for row in data.heldout]
    else:
        encoded = [encode({"prompt": row["prompt"], "completion": row["answer"]}) for row in data.heldout]
    nats, tokens = losses(model, encoded)
    judged = list(zip(data.heldout, said, strict=False))
    return Stage(
        name,
        nats / tokens,
        np.array([float(one.finish_reason == "stop") for _, one in judged]),
        np.array([float(obeys(row, one)) for row, one in judged]),
        np.array([float(right(row, one)) for row, one in judged]),
        [one.message.text.strip() for one in said[len(asked) :]],
    )


def _continued(row: Row) -> ChatRequest:
    return ChatRequest(
        (Message("user", row["prompt"] + GAP),), temperature=0.0, max_tokens=ANSWER, extra={RAW_PROMPT: True}
    )


def wins(judge: Judge, data: Data, ours: Stage, theirs: Stage) -> Floats:
    """For each held-out prompt of the preferences 1, 0, or a half where both say the same."""
    a, b = (judge.scores(data.pairs, stage.said) for stage in (ours, theirs))
    same = np.array([one == other for one, other in zip(ours.said, theirs.said, strict=True)])
    return np.where(same, 0.5, (a > b).astype(float))


def agreement(judge: Judge, data: Data) -> Interval:
    """How often the judge prefers what people preferred, of pairs that it has not seen."""
    chosen, rejected = (judge.scores(data.pairs, [row[side] for row in data.pairs]) for side in ("chosen", "rejected"))
    return wilson_interval(int((chosen > rejected).sum()), len(chosen))


# ---- the report


def told(interval: Interval, digits: int = 3) -> str:
    return f"{interval.estimate:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def report(data: Data, stages: Sequence[Stage]) -> dict[str, float]:
    groups = [row["group"] for row in data.heldout]
    rows = [
        (s.name, *(told(mean_interval(values, groups)) for values in (s.nats, s.ended, s.obeys, s.right)))
        for s in stages
    ]
    print(table(("", "nats a token", "ended", "obeys", "right"), rows) + "\n")
    for kind, count in sorted(Counter(map(form, data.heldout)).items()):
        own = np.array([form(row) == kind for row in data.heldout])
        shares = ", ".join(f"{s.name} {s.obeys[own].mean():.1%} / {s.right[own].mean():.1%}" for s in stages)
        print(f"{kind} ({count}), obeys / right: {shares}")
    print()
    figures = {}
    for before, after in ((stages[1], stages[2]), (stages[0], stages[2]), (stages[2], stages[3])):
        for name, lower in (("nats", True), ("obeys", False), ("right", False)):
            a, b = getattr(before, name), getattr(after, name)
            found = paired_difference(a, b, groups)
            print(
                f"{before.name} -> {after.name}, {name}: {told(found.difference)}, p {found.p_value:.2g}"
                + ("" if lower else f", McNemar {mcnemar_mid_p(a, b):.2g}")
            )
            figures[f"{name}_{after.name}"] = round(found.difference.estimate, 4)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a workspace that stays; default: one that does not")
    parser.add_argument("--base", help="a decoder of that workspace to begin with; default: pre-trained here")
    parser.add_argument("--minutes", type=float, default=24, help="of pre-training; default: 24")
    parser.add_argument("--rows", type=int, default=4000, help="instructions to train on; default: 4,000")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--items", type=int, default=400, help="instructions to measure on; default: 400")
    args = parser.parse_args()
    if not (data_folder() / "sft").is_dir():
        print(f"skipped: no texts in {data_folder()}; set WINDLASS_DATA", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch, Workspace(args.home or Path(scratch)) as ws:
        start = ws.artifacts.get(args.base) if args.base else base(ws, data_folder(), args.minutes)
        data = prepared(data_folder(), start.path, args.rows, args.items)
        print(
            f"{len(data.train):,} instructions, {len(data.policy):,} pairs, {len(data.judge):,} for the judge; "
            f"held out {len(data.heldout)} and {len(data.pairs)}"
        )
        instructed, preferred = trained(ws, start, data, Path(scratch), args.epochs)
        stages = [
            measured("base, plain", start.path, data, plain=True),
            measured("base", start.path, data),
            measured("instruct", instructed.path, data),
            measured("dpo", preferred.path, data),
        ]
        figures = report(data, stages)
        groups, judge = [row["group"] for row in data.pairs], Judge(data.judge)
        print(f"\nthe judge agrees with people on {told(agreement(judge, data))} of {len(groups)} unseen pairs")
        for ours, theirs in ((2, 1), (3, 2)):
            found = wins(judge, data, stages[ours], stages[theirs])
            win = mean_interval(found, groups)
            name = f"{stages[ours].name} against {stages[theirs].name}"
            print(f"{name}: wins {told(win)}, {np.mean(found == 0.5):.0%} ties")
            figures[f"wins_{stages[ours].name}"] = round(win.estimate, 4)
    print(json.dumps({"bench": "instruct", "ratio": figures["wins_dpo"], "against": "the model before DPO", **figures}))


if __name__ == "__main__":
    main()
