"""Multiple choice by log-likelihood: `windlass eval` against lm-evaluation-harness's own `hf` backend.

A Llama of 96 million random weights in float32, and a vocabulary learned from the questions. Without examples: ARC easy
and challenge and OpenBookQA, 2,035 items. Behind five examples: 60 items of ARC easy. Both begin with the model loaded
and end with scores of all items; prompts and choices are the same to the letter, as the exam is exported for lm-eval.
lm-eval is run at that of several batch sizes that is its fastest on a part of the items. They take turns; the median
round of each counts. It needs `make lm-eval-peers`, and WINDLASS_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from windlass.evaluate.harness.definitions import read_benchmark
from windlass.evaluate.harness.items import Asking, Exam, make_exam
from windlass.evaluate.harness.running import run
from windlass.loop.benchmarks.evaluating import data_folder
from windlass.loop.benchmarks.lm_eval_tasks import export_task
from windlass.loop.benchmarks.models import open_model

ROOT = Path(__file__).parents[1]
PEERS = Path(os.environ.get("WINDLASS_LM_EVAL", ROOT / ".venv-lm-eval-peers"))
TASKS = ("arc_easy", "arc_challenge", "openbook_qa")
BATCHES = (1, 4, 16, 64)
SHAPE = {
    "hidden_size": 768, "num_hidden_layers": 10, "num_attention_heads": 12, "num_key_value_heads": 12,
    "intermediate_size": 2048, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": None, "initializer_range": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is asked of both."""

    name: str
    exams: Sequence[Exam]
    folder: Path
    """Of lm-eval's tasks."""

    @property
    def items(self) -> int:
        return sum(len(exam.items) for exam in self.exams)


@dataclass(frozen=True)
class Found:
    work: str
    items: int
    ours: float
    """Seconds."""
    theirs: float
    batch: int
    """lm-eval's fastest."""
    difference: float
    """The largest of any log-likelihood."""
    predictions_differ: int

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


class Peer:
    """lm-eval in its own process, with the model loaded."""

    def __init__(self, model: Path, tasks: Path, threads: int) -> None:
        quiet = {
            "HF_HOME": str(tasks),
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [
            str(PEERS / "bin/python"),
            str(ROOT / "bench/_evaluate_peer.py"),
            str(model),
            str(tasks),
            str(threads),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | quiet,
        )  # fmt: skip
        if self._line() != "ready":
            raise SystemExit(f"lm-eval did not start: try {' '.join(command)}")

    def evaluate(self, names: Sequence[str], batch: int, limit: int | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"tasks": list(names), "batch": batch, "limit": limit}) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def make_model(folder: Path, exams: Sequence[Exam]) -> int:
    """A folder of Hugging Face's with random weights; returns how many."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    texts = [" ".join([item.row["query"], *item.row["choices"]]) for exam in exams for item in exam.items]
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=16_000, **SHAPE))
    model.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def ours(model: Any, work: Work) -> tuple[float, dict[str, list[list[float]]]]:
    """Seconds, and the log-likelihoods of each item's choices."""
    start, replies = time.perf_counter(), {}
    for exam in work.exams:
        results = run(exam, model)
        exam.benchmark.measures(results.items)
        replies[exam.benchmark.name] = [one.output["logprobs"] for one in results.items]
    return time.perf_counter() - start, replies


def compare(folder: Path, work: Work, *, rounds: int, threads: int) -> Found:
    names = {exam.benchmark.name: export_task(exam, work.folder) for exam in work.exams}
    peer = Peer(folder, work.folder, threads)
    try:
        sample = min(16, work.items // len(names))
        trials = {batch: peer.evaluate(list(names.values()), batch, sample)["seconds"] for batch in BATCHES}
        best = min(trials, key=lambda batch: trials[batch])
        told = ", ".join(f"{batch}: {seconds:.1f} s" for batch, seconds in trials.items())
        print(f"{work.name}: lm-eval on {sample} items of each at batch {told}", file=sys.stderr, flush=True)
        mine, other = [], []
        for _ in range(rounds):
            model = open_model(None, str(folder))  # anew: nothing is kept of the round before
            try:
                seconds, replies = ours(model, work)
            finally:
                model.close()
            mine.append(seconds)
            found = peer.evaluate(list(names.values()), best)
            other.append(found["seconds"])
            print(f"{work.name}: {mine[-1]:.1f} s, lm-eval {other[-1]:.1f} s", file=sys.stderr, flush=True)
    finally:
        peer.close()
    difference, differ = 0.0, 0
    for exam in work.exams:
        for one, theirs in zip(replies[exam.benchmark.name], found["replies"][names[exam.benchmark.name]], strict=True):
            a, b = np.array(one), np.array(theirs)
            difference = max(difference, float(np.abs(a - b).max()))
            n = len(a) // (2 if "acc_mutual_info" in exam.benchmark.metrics else 1)
            differ += int(a[:n].argmax() != b[:n].argmax())
    median = statistics.median
    return Found(work.name, work.items, median(mine), median(other), best, difference, differ)


def measure(data: Path, *, rounds: int, threads: int, limit: int | None, few: int) -> tuple[int, list[Found]]:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain = [make_exam(read_benchmark(task), data, Asking(limit=limit)) for task in TASKS]
        behind = [make_exam(read_benchmark("arc_easy"), data, Asking(limit=few, shots=5))]
        weights = make_model(folder / "model", plain)
        works = [
            Work("without examples", plain, folder / "plain"),
            Work("behind five examples", behind, folder / "few"),
        ]
        return weights, [compare(folder / "model", work, rounds=rounds, threads=threads) for work in works]


def table(found: Sequence[Found]) -> None:
    print(
        f"{'':24}{'items':>7}{'windlass':>12}{'lm-eval hf':>12}{'batch':>7}{'ratio':>7}{'max |diff|':>12}{'differ':>8}"
    )
    for one in found:
        print(
            f"{one.work:24}{one.items:7,}{one.items / one.ours:9.1f} /s{one.items / one.theirs:9.1f} /s{one.batch:7}"
            f"{one.ratio:7.1f}{one.difference:12.1e}{one.predictions_differ:8}"
        )


def line(found: Sequence[Found]) -> Mapping[str, Any]:
    plain, few = found
    return {
        "bench": "evaluate",
        "ratio": round(plain.ratio, 2),
        "against": f"lm-eval hf, batch {plain.batch}",
        "items": plain.items,
        "items_per_s": round(plain.items / plain.ours, 2),
        "few_shot_ratio": round(few.ratio, 2),
        "max_abs_diff": max(one.difference for one in found),
        "predictions_differ": sum(one.predictions_differ for one in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit", type=int, help="items of each benchmark; default: all")
    parser.add_argument("--few", type=int, default=60, help="items behind five examples; default: 60")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    if not (PEERS / "bin/python").exists():
        raise SystemExit(f"There is no lm-eval in {PEERS}: run `make lm-eval-peers`.")
    weights, found = measure(
        data_folder(args.data), rounds=args.rounds, threads=args.threads, limit=args.limit, few=args.few
    )
    print(f"{weights / 1e6:.0f} million weights, float32, {args.threads} threads, torch {torch.__version__}\n")
    table(found)
    print(json.dumps(line(found)))


if __name__ == "__main__":
    main()
