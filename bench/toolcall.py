"""What a small decoder learns of calling tools: calls under a schema, before and after tuning, free and constrained.

    python -m bench.toolcall --home FOLDER [--minutes 24] [--rows 1500] [--items 300]

Task dialogues of the Schema-Guided Dialogue set (CC BY-SA 4.0) whose system side calls services: the model reads the
functions of the service and what was said so far, and writes the call, as `windlass tune toolcall` teaches it. Measured
are dialogues that nothing was trained on, apart those of services of which no call was trained on (the base may have
read what was said in them). The evaluation sets
of the data folder (BFCL, ToolAlpaca) are for measuring alone, so nothing of them is learned.

- name: the right function; exact: that and all arguments, to the letter; valid: a function that there is, with
  arguments that satisfy its schema; F1: of the arguments, where each is a name with its value.
- free: the model writes what it likes; constrained: the engine's grammar lets only calls through.
- The baseline without a model makes the call that was made most often for the service in training.

Intervals are 95 %, by dialogues; before and after are compared call by call.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
from bench._data import data_folder
from bench._proof_answers import Floats, answers, encoder_of, losses, request, written
from bench._proof_base import base
from bench._proof_data import Row, calls, held
from bench.instruct import made, told

from windlass.core.chat_template import TEMPLATE_FILE, ChatTemplate
from windlass.core.tables import table
from windlass.core.values import ChatRequest, ChatResponse
from windlass.core.workspace import Workspace
from windlass.evaluate.statistics.intervals import mean_interval
from windlass.evaluate.statistics.paired import mcnemar_mid_p, paired_difference
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.wishes import PROMPT_TOKENS

WINDOW = 448
"""Tokens of functions, dialogue and call together; longer ones are left out, in training and measuring alike."""
UNSEEN = ("Music_1", "RentalCars_1", "RideSharing_2")
"""Services of which no call is learned."""
NAME = "proof-calls"
CALL = 96
"""Tokens of a call at most."""


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


# ---- what was called


def wanted(row: Row) -> Call:
    function = row["completion"][0]["tool_calls"][0]["function"]
    return Call(function["name"], function["arguments"])


def written_freely(text: str) -> Call | None:
    """The one call of an answer in the form of the template; None for anything else."""
    found = re.fullmatch(r"\s*<tool_call>\s*(\{.*\})\s*</tool_call>\s*", text, re.DOTALL)
    try:
        value = json.loads(found.group(1)) if found else None
        return Call(value["name"], dict(value["arguments"])) if value else None
    except (ValueError, TypeError, KeyError):
        return None


def constrained(said: ChatResponse) -> Call | None:
    if len(said.message.tool_calls) != 1:  # cut off before its end
        return None
    call = said.message.tool_calls[0]
    return Call(call.name, json.loads(call.arguments))


def valid(row: Row, call: Call | None) -> bool:
    functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in row["tools"]}
    if call is None or call.name not in functions:
        return False
    return jsonschema.Draft202012Validator(functions[call.name]).is_valid(call.arguments)


def f1(row: Row, call: Call | None) -> float:
    if call is None:
        return 0.0
    right = {(name, str(value)) for name, value in wanted(row).arguments.items()}
    said = {(name, str(value)) for name, value in call.arguments.items()}
    return 2 * len(right & said) / (len(right) + len(said)) if right or said else 1.0


# ---- measuring


@dataclass(frozen=True, slots=True)
class Figures:
    name: str
    valid: Floats
    named: Floats
    exact: Floats
    f1: Floats


def figures(name: str, rows: Sequence[Row], said: Sequence[Call | None]) -> Figures:
    both = list(zip(rows, said, strict=True))
    return Figures(
        name,
        np.array([float(valid(row, call)) for row, call in both]),
        np.array([float(call is not None and call.name == wanted(row).name) for row, call in both]),
        np.array([float(call == wanted(row)) for row, call in both]),
        np.array([f1(row, call) for row, call in both]),
    )


def measured(name: str, model: Path, rows: Sequence[Row]) -> tuple[Figures, Figures]:
    """Of the model in the folder, writing freely and under the engine's grammar."""
    prompt = Prompt(model, None)
    asked = [request(row, CALL, tool_choice="required") for row in rows]
    free = [
        ChatRequest(
            one.messages,
            temperature=0.0,
            max_tokens=CALL,
            extra={PROMPT_TOKENS: prompt.tokens(one.messages, tools=one.tools)},
        )
        for one in asked
    ]
    said = answers(model, [*free, *asked])
    return (
        figures(f"{name}, free", rows, [written_freely(one.message.text) for one in said[: len(rows)]]),
        figures(f"{name}, constrained", rows, [constrained(one) for one in said[len(rows) :]]),
    )


def usual(train: Sequence[Row], rows: Sequence[Row]) -> Figures:
    """Without a model: what was called most often for the same functions."""
    seen: dict[str, Counter[str]] = {}
    for row in train:
        name, arguments = wanted(row)
        seen.setdefault(row["kind"], Counter())[json.dumps([name, arguments])] += 1
    guesses = [seen[row["kind"]].most_common(1)[0][0] if row["kind"] in seen else None for row in rows]
    return figures("the usual call", rows, [Call(*json.loads(guess)) if guess else None for guess in guesses])


def chosen(every: Sequence[Row], fits: Callable[[Row], bool], rows: int, items: int) -> dict[str, list[Row]]:
    """Calls to train on, and to measure on: of services that are trained on, and of others."""
    parts: dict[str, list[Row]] = {"train": [], "seen": [], "unseen": []}
    most = {"train": rows, "seen": items, "unseen": items // 3}
    for row in every:
        part = "unseen" if row["kind"] in UNSEEN else "seen" if held(row["group"]) else "train"
        if len(parts[part]) < most[part] and fits(row):
            parts[part].append(row)
    learned = {row["group"] for row in parts["train"]}
    return parts | {"unseen": [row for row in parts["unseen"] if row["group"] not in learned]}


def with_template(model: Path, template: str, folder: Path) -> Path:
    """The base with a template that writes tools, so that it can be asked at all."""
    shutil.copytree(model, folder)
    (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    return folder


def report(rows: Sequence[Row], found: Sequence[Figures]) -> None:
    groups = [row["group"] for row in rows]
    lines = [
        (one.name, *(told(mean_interval(values, groups)) for values in (one.valid, one.named, one.exact, one.f1)))
        for one in found
    ]
    print(table(("", "valid", "name", "exact", "F1 of arguments"), lines) + "\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a workspace that stays; default: one that does not")
    parser.add_argument("--base", help="a decoder of that workspace to begin with; default: pre-trained here")
    parser.add_argument("--minutes", type=float, default=24, help="of pre-training; default: 24")
    parser.add_argument("--rows", type=int, default=1500, help="calls to train on; default: 1,500")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--items", type=int, default=300, help="calls to measure on; default: 300")
    args = parser.parse_args()
    if not (data_folder() / "agents").is_dir():
        print(f"skipped: no dialogues in {data_folder()}; set WINDLASS_DATA", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as scratch, Workspace(args.home or Path(scratch)) as ws:
        start = ws.artifacts.get(args.base) if args.base else base(ws, data_folder(), args.minutes)
        encode = encoder_of(start.path)
        every = calls(data_folder())
        order = np.random.default_rng(0).permutation(len(every))
        parts = chosen(
            [every[number] for number in order], lambda row: len(encode(row)) <= WINDOW, args.rows, args.items
        )
        train = parts["train"]
        print(f"{len(train):,} of {len(every):,} calls to train on, each in {WINDOW} tokens with all that it needs")
        asked = [{key: row[key] for key in ("prompt", "completion", "tools")} for row in train]
        dataset = written(Path(scratch), asked, "calls")
        tuned = made(ws, "toolcall", NAME, dataset, start.ref, data__epochs=args.epochs)
        template = ChatTemplate.load(tuned.path)
        assert template is not None, "it was tuned with one"
        before = with_template(start.path, template.source, Path(scratch) / "base")
        summary: dict[str, float] = {}
        for what, rows in (
            ("services that calls were trained of", parts["seen"]),
            ("services that none was trained of", parts["unseen"]),
        ):
            if not rows:
                continue
            groups = [row["group"] for row in rows]
            first, second = measured("base", before, rows), measured("tuned", tuned.path, rows)
            print(f"\n{what}: {len(rows)} calls of {len(set(groups))} unseen dialogues")
            report(rows, [usual(train, rows), *first, *second])
            encoded = [encode(row) for row in rows]
            nats = [np.divide(*losses(folder, encoded)) for folder in (before, tuned.path)]
            loss = paired_difference(nats[0], nats[1], groups)
            print(f"nats a token: {nats[0].mean():.3f} -> {nats[1].mean():.3f}, {told(loss.difference)}")
            for way in (0, 1):
                a, b = first[way].exact, second[way].exact
                change = paired_difference(a, b, groups)
                p = mcnemar_mid_p(a, b)
                print(f"{second[way].name}, exact: {told(change.difference)} more than before, McNemar p {p:.2g}")
            key = "seen" if rows[0]["kind"] not in UNSEEN else "unseen"
            for one in (*first, *second):
                summary[f"{key} {one.name}"] = round(float(one.exact.mean()), 4)
    best = summary.get("seen tuned, constrained")
    print(json.dumps({"bench": "toolcall", "ratio": best, "against": "1: every call exact", "exact": summary}))


if __name__ == "__main__":
    main()
