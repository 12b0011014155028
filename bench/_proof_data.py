"""What the proofs of small decoders learn from and are measured on, all of it from the public data folder.

Held out is what shares text with nothing that is trained on: dialogues, questions, and whole clusters of instructions
that quote the same passage. The same rows stay out of pre-training, so that no base has met them either.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HELD_OUT = 10
"""One of so many groups is measured on."""
RUN = 25
"""Words in a row that two texts share by quoting the same passage; fewer are often a template's."""
COMMON = 40
"""A run of words in more texts than that belongs to a template, not to a passage."""

NOVELS = 4
"""Every so many of the novels are enough for what so small a model can learn."""
UNREAD = ("python__peps", "rust-lang__rfcs", "open-telemetry", "tensorzero")
"""Technical pages that are left out: most of them, and farthest from what is asked later."""
DO_NOT_CARE = "dontcare"
"""A slot that may have any value: no argument."""

Row = dict[str, Any]


def rows(path: Path) -> list[Any]:
    """Of a packed file: JSON lines, or one array."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        text = file.read()
    return json.loads(text) if path.name.endswith(".json.gz") else [json.loads(t) for t in text.split("\n") if t]


def held(key: str, one_of: int = HELD_OUT) -> bool:
    """Whether what has this key is measured on: by chance, but always the same."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % one_of == 0


def clusters(texts: Sequence[str]) -> list[int]:
    """For each text the number of the first one that it shares a passage with, directly or over others."""
    first = list(range(len(texts)))

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = number = first[first[number]]
        return number

    having: defaultdict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        for run in {hash(tuple(words[i : i + RUN])) for i in range(len(words) - RUN + 1)}:
            if len(having[run]) <= COMMON:
                having[run].append(number)
    for numbers in having.values():
        if len(numbers) <= COMMON:
            for other in numbers[1:]:
                a, b = sorted((root(numbers[0]), root(other)))
                first[b] = a
    return [root(number) for number in range(len(texts))]


def prompted_tasks(data: Path) -> list[Row]:
    """The prompts of P3 with their completions, the passages that they share as `group`."""
    found = [
        {"prompt": row["prompt"].strip(), "answer": row["completion"].strip(), "kind": path.name.split(".")[0]}
        for path in sorted((data / "sft" / "t0_prompts").glob("*.jsonl.gz"))
        for row in rows(path)
    ]
    for row, cluster in zip(found, clusters([row["prompt"] for row in found]), strict=True):
        row["group"] = found[cluster]["prompt"]
    return found


def word_problems(data: Path) -> list[Row]:
    """Grade-school problems with the steps to their answers, which end in `#### number`."""
    found = []
    for row in rows(data / "reasoning" / "gsm8k" / "train.jsonl.gz"):
        answer = re.sub(r"<<[^>]*>>", "", row["answer"])
        found.append({"prompt": row["question"].strip(), "answer": answer.strip(), "kind": "gsm8k"})
    for name in ("addsub", "multiarith", "singleeq", "singleop"):
        found += [
            {"prompt": row["input"].strip(), "answer": f"#### {row['target']:g}", "kind": "mawps"}
            for row in rows(data / "reasoning" / "word_problems" / f"{name}.jsonl.gz")
        ]
    for row in found:
        row["group"] = row["prompt"]
    return found


def dialogues(data: Path) -> Iterator[Row]:
    """The task dialogues whose system side calls services."""
    for path in sorted((data / "agents" / "schema_guided_dialogue").glob("dialogues_*.json.gz")):
        yield from rows(path)


def write_prose(data: Path, folder: Path) -> dict[str, int]:
    """Writes what is like the instructions, without the held-out part, as text to pre-train on: characters by file."""
    texts = {
        "tasks": [f"{row['prompt']}\n\n{row['answer']}" for row in prompted_tasks(data) if not held(row["group"])],
        "problems": [f"{row['prompt']}\n\n{row['answer']}" for row in word_problems(data) if not held(row["group"])],
        "dialogues": [
            "\n".join(f"{turn['speaker'].title()}: {turn['utterance']}" for turn in row["turns"])
            for row in dialogues(data)
            if not held(row["dialogue_id"])
        ],
        "schemas": [
            "\n".join(json.dumps(tool) for tool in tools_of(service))
            for service in rows(data / "agents" / "schema_guided_dialogue" / "schema.json.gz")
        ],
        "novels": [
            gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
            for path in sorted((data / "pretrain" / "novels").glob("*.txt.gz"))[::NOVELS]
        ],
        "pages": [
            row["text"]
            for path in sorted((data / "pretrain" / "docs").glob("*.jsonl.gz"))
            if not path.name.startswith(UNREAD)
            for row in rows(path)
        ],
        "news": [row["text"] for row in rows(data / "pretrain" / "web" / "c4_demo.jsonl.gz")]
        + [row["text"] for row in rows(data / "classification" / "movie_reviews" / "movie_reviews.jsonl.gz")],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in texts.items():
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in found)
    return {name: sum(map(len, found)) for name, found in texts.items()}


# ---- tool calls

Tool = dict[str, Any]


def tools_of(service: Row) -> list[Tool]:
    """The intents of a service as functions. Slots have no descriptions here: a small window holds the dialogue too."""
    slots = {slot["name"]: slot for slot in service["slots"]}
    return [
        {
            "type": "function",
            "function": {
                "name": intent["name"],
                "description": intent["description"],
                "parameters": {
                    "type": "object",
                    "properties": {
                        name: _values(slots[name]) for name in (*intent["required_slots"], *intent["optional_slots"])
                    },
                    "required": list(intent["required_slots"]),
                    "additionalProperties": False,
                },
            },
        }
        for intent in service["intents"]
    ]


def _values(slot: Row) -> Row:
    return {"type": "string", "enum": slot["possible_values"]} if slot["is_categorical"] else {"type": "string"}


def calls(data: Path) -> list[Row]:
    """What was said up to each call of a service, and the call: `prompt`, `completion` and `tools` as OpenAI has them.

    Each argument in the words of the dialogue, or one of the values that the schema lists; calls with an argument of
    which neither holds are left out. `kind` is the service; `group` the dialogue.
    """
    services = {s["service_name"]: s for s in rows(data / "agents" / "schema_guided_dialogue" / "schema.json.gz")}
    found = []
    for dialogue in dialogues(data):
        said: list[Row] = []
        meant: dict[str, dict[str, list[str]]] = {}
        for turn in dialogue["turns"]:
            for frame in turn["frames"]:
                if "state" in frame:
                    meant[frame["service"]] = frame["state"]["slot_values"]
                if "service_call" not in frame:
                    continue
                tools = tools_of(services[frame["service"]])
                spoken = "\n".join(message["content"] for message in said).lower()
                calling = _call(frame["service_call"], tools, meant[frame["service"]], spoken)
                if calling is not None:
                    found.append(
                        {
                            "prompt": list(said),
                            "completion": [{"role": "assistant", "content": "", "tool_calls": [calling]}],
                            "tools": tools,
                            "kind": frame["service"],
                            "group": dialogue["dialogue_id"],
                        }
                    )
            role = "user" if turn["speaker"] == "USER" else "assistant"
            said.append({"role": role, "content": turn["utterance"]})
    return found


def _call(call: Row, tools: Sequence[Tool], meant: dict[str, list[str]], spoken: str) -> Row | None:
    """A call of the data with its arguments in the order of the schema, which is that in which the engine writes them;
    None where an argument cannot be known from what was said."""
    function = next(f["function"] for f in tools if f["function"]["name"] == call["method"])
    arguments = {}
    for name, schema in function["parameters"]["properties"].items():
        value = call["parameters"].get(name, DO_NOT_CARE)
        if value == DO_NOT_CARE:
            continue
        if value not in schema.get("enum", ()):
            words = [v for v in (value, *meant.get(name, ())) if v.lower() in spoken and "enum" not in schema]
            if not words:
                return None
            value = words[0]
        arguments[name] = value
    return {"type": "function", "function": {"name": call["method"], "arguments": arguments}}


# ---- instructions


def instructions(data: Path) -> list[Row]:
    """Tasks with answers in asked forms, word problems, and a thousand free instructions: `prompt` and `answer`."""
    free = [
        {"prompt": f"{row['instruction']}\n\n{row['input']}".strip(), "answer": row["output"].strip(), "kind": "alpaca"}
        for row in rows(data / "sft" / "format_samples" / "alpaca_en_demo.json.gz")
    ]
    for row in free:
        row["group"] = row["prompt"]
    return [row for row in [*prompted_tasks(data), *word_problems(data), *free] if row["prompt"] and row["answer"]]


# ---- preferences


def preferences(data: Path) -> list[Row]:
    """Pairs of answers of which people, or a stronger model, preferred one: `prompt` (messages), `chosen`, `rejected`;
    `group` is what the conversation begins with."""
    found = []
    for row in rows(data / "preference" / "hh_rlhf" / "harmless_base.jsonl.gz"):
        (prompt, chosen), (other, rejected) = (_turns(row[side]) for side in ("chosen", "rejected"))
        if prompt == other:
            found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "kind": "hh_rlhf"})
    for row in rows(data / "preference" / "dpo_kto_demo" / "dpo_en_demo.json.gz"):
        roles = {"human": "user", "gpt": "assistant", "system": "system"}
        prompt = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        chosen, rejected = (row[side]["value"].strip() for side in ("chosen", "rejected"))
        found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "kind": "dpo_demo"})
    for name in ("natural", "adversarial_neighbor", "faireval"):
        for row in rows(data / "preference" / "llmbar" / f"{name}.json.gz"):
            answers = [row["output_1"].strip(), row["output_2"].strip()]
            chosen, rejected = answers if row["label"] == 1 else reversed(answers)
            prompt = [{"role": "user", "content": row["input"]}]
            found.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "kind": "llmbar"})
    usable = [row for row in found if row["chosen"] and row["rejected"] and row["chosen"] != row["rejected"]]
    for row in usable:
        row["group"] = row["prompt"][0]["content"]
    return usable


def _turns(text: str) -> tuple[list[Row], str]:
    """A conversation as Anthropic's set writes it, and the answer that it ends with."""
    parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)[1:]
    spoken = [
        {"role": "user" if speaker == "Human" else "assistant", "content": said.strip()}
        for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
    return spoken[:-1], spoken[-1]["content"]
