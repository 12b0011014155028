"""Training speed on a CPU, ours against Hugging Face's Trainer and a plain compiled PyTorch loop.

Every contender trains the same Llama shape from the same weights on the same batches in the same order, with bfloat16
activations, the same rate, schedule, weight decay and clipping, in a process of its own. They take turns: after some
steps that compile and warm up, each round gives each contender a few steps; the figures are medians over the rounds,
the ratios medians of each round's ratio. `held-out` is the loss in nats a token after all steps, on windows that nobody
trained on, computed in float32: equal arithmetic gives equal losses. `of peak` is the share of the measured bfloat16
matrix-product peak that the model's own arithmetic takes up: the limit is 1.

    python -m bench.pretrain [--sizes 5M 15M] [--rounds 4] [--steps 5]
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import multiprocessing as mp
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from bench._data import data_folder
from bench._pretrain_job import Job

from windlass.core.tables import table

SHAPES: dict[str, dict[str, int]] = {
    "5M": {"hidden": 256, "layers": 4, "heads": 4, "kv_heads": 4, "ffn": 704, "context": 256, "batch": 16},
    "15M": {"hidden": 384, "layers": 7, "heads": 6, "kv_heads": 6, "ffn": 1024, "context": 512, "batch": 8},
}
VOCABULARY = 4096
RATE = 2e-3
WARM = 3
HELDOUT = 64
CHARACTERS = 6_000_000
CONTENDERS = ("windlass", "windlass, Muon", "plain loop", "HF Trainer", "HF Trainer, compiled")


def texts(folder: Path) -> Iterator[str]:
    """Novels and technical documents by turns, so that any beginning holds both."""
    novels = sorted((folder / "pretrain" / "novels").glob("*.txt.gz"))
    pages = sorted((folder / "pretrain" / "docs").glob("*.jsonl.gz"))
    for novel, page in zip(novels, pages * len(novels)):
        with gzip.open(novel, "rt", encoding="utf-8", errors="replace") as file:
            yield file.read(200_000)
        with gzip.open(page, "rt", encoding="utf-8") as file:
            yield "\n\n".join(json.loads(line)["text"] for _, line in zip(range(20), file))


def tokens(data: Path) -> np.ndarray[Any, Any]:
    from windlass.build.tokenizer.training import train as train_tokenizer

    chosen: list[str] = []
    for text in texts(data):
        chosen.append(text)
        if sum(map(len, chosen)) > CHARACTERS:
            break
    tokenizer = train_tokenizer(chosen[:20], VOCABULARY).tokenizer
    return np.concatenate([np.array(e.ids, np.uint16) for e in tokenizer.encode_batch(chosen)])


def prepare(folder: Path, ids: np.ndarray[Any, Any], shape: dict[str, int], steps: int) -> Job:
    """Writes windows and starting weights for one shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir()
    job = Job(folder, vocabulary=VOCABULARY, head_dim=64, steps=steps, rate=RATE, warmup=max(2, steps // 10), **shape)
    length = job.context
    windows = np.stack([ids[i : i + length + 1] for i in range(0, len(ids) - length, length)])
    np.random.default_rng(0).shuffle(windows)
    assert len(windows) >= steps * job.batch + HELDOUT, "too little text for so many steps"
    np.save(folder / "heldout.npy", windows[:HELDOUT])
    np.save(folder / "train.npy", windows[HELDOUT:])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=job.vocabulary,
        hidden_size=job.hidden,
        num_hidden_layers=job.layers,
        num_attention_heads=job.heads,
        num_key_value_heads=job.kv_heads,
        head_dim=job.head_dim,
        intermediate_size=job.ffn,
        max_position_embeddings=job.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "start")
    return job


def contender(name: str, job: Job, threads: int, line: Connection) -> None:
    """A process of its own: does as many steps as it is told, answers with the seconds, then with the held-out loss."""
    import torch

    torch.set_num_threads(threads)
    if name.startswith("windlass"):
        from bench._windlass_loop import train as ours

        train = partial(ours, optimizer="muon" if "Muon" in name else "adamw")
    elif name == "plain loop":
        from bench._plain_loop import train
    else:
        from bench._hf_trainer import train as theirs

        train = partial(theirs, compiled="compiled" in name)
    left = line.recv()
    began = time.perf_counter()

    def on_step(loss: float) -> None:
        nonlocal left, began
        left -= 1
        if left == 0:
            line.send((time.perf_counter() - began, loss))
            left = line.recv()
            began = time.perf_counter()

    line.send(heldout_loss(train(job, on_step).eval(), job))


def heldout_loss(model: Any, job: Job) -> float:
    """Nats a token of a model that gives logits, or what transformers' models give."""
    import torch
    import torch.nn.functional as F

    total, windows = 0.0, torch.from_numpy(job.windows("heldout").astype("int64"))
    with torch.inference_mode():
        for rows in windows.split(8):
            out = model(rows[:, :-1])
            logits = out if isinstance(out, torch.Tensor) else out.logits
            total += float(F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="sum"))
    return total / windows[:, 1:].numel()


@dataclasses.dataclass
class Result:
    warm: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)
    """Of each round."""
    loss: float = float("nan")


def race(job: Job, names: list[str], threads: int, rounds: int, steps: int) -> dict[str, Result]:
    context = mp.get_context("spawn")
    lines: dict[str, Connection] = {}
    results = {name: Result() for name in names}
    for name in names:
        lines[name], there = context.Pipe()
        process = context.Process(target=contender, args=(name, job, threads, there), daemon=True)
        process.start()
        there.close()
    for turn in range(rounds + 1):
        for name, line in lines.items():
            line.send(steps if turn else WARM)
            try:
                seconds, _ = line.recv()
            except EOFError:
                sys.exit(f"{name} died; see above")
            if turn:
                results[name].seconds.append(seconds)
            else:
                results[name].warm = seconds
    for name, line in lines.items():
        line.send(-1)
        results[name].loss = line.recv()
    return results


def ratio(ours: Result, theirs: Result) -> float:
    """How many times as fast: the median over the rounds."""
    return statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="steps of each contender in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    data = data_folder()
    if not (data / "pretrain").is_dir():
        print(f"skipped: no texts in {data}; set WINDLASS_DATA", file=sys.stderr)
        return
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # in all processes alike: they wait for their turns on few cores
    import torch

    from windlass.build.training.measuring.meters import measured_peak
    from windlass.build.transformer.hf import load_config

    torch.set_num_threads(args.threads)
    peak = measured_peak(torch.bfloat16, "cpu", args.threads)
    print(f"{args.threads} threads; matrix products reach {peak / 1e9:,.0f} GFLOP/s in bfloat16\n")
    total = WARM + args.rounds * args.steps
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ids = tokens(data)
        for size in args.sizes:
            job = prepare(Path(scratch) / size, ids, SHAPES[size], total)
            config = load_config(job.folder / "start")
            results = race(job, args.contenders, args.threads, args.rounds, args.steps)
            ours, plain = results.get("windlass"), results.get("plain loop")
            rows = []
            for name, result in results.items():
                speed = job.batch_tokens * args.steps / statistics.median(result.seconds)
                share = speed * config.flops_per_token / peak
                against = ratio(result, plain) if plain else None
                rows.append((name, round(speed), against, share, f"{result.loss:.4f}", result.warm))
            print(
                f"{size}: {config.parameters:,} parameters, sequences of {job.context}, "
                f"{job.batch_tokens:,} tokens a step, {total} steps"
            )
            headers = ("", "tokens/s", "x plain", "of peak", "held-out", f"first {WARM} steps, s")
            print(table(headers, rows, right=(4,)) + "\n", flush=True)
            if ours and plain:
                hf = (
                    min(ratio(ours, r) for n, r in results.items() if n.startswith("HF"))
                    if any(n.startswith("HF") for n in results)
                    else None
                )
                figures[size] = {
                    "ratio": round(ratio(ours, plain), 3),
                    "vs_hf_trainer": hf and round(hf, 3),
                    "of_peak": round(
                        job.batch_tokens * args.steps / statistics.median(ours.seconds) * config.flops_per_token / peak,
                        3,
                    ),
                    "loss": round(ours.loss, 4),
                    "loss_plain": round(plain.loss, 4),
                }
    worst = min(figures.values(), key=lambda f: f["ratio"], default={"ratio": None, "vs_hf_trainer": None})
    print(
        json.dumps(
            {
                "bench": "pretrain",
                "ratio": worst["ratio"],
                "vs_hf_trainer": min(
                    (f["vs_hf_trainer"] for f in figures.values() if f["vs_hf_trainer"]), default=None
                ),
                "against": "plain compiled PyTorch loop, training tokens a second, the smaller ratio of the sizes",
                "sizes": figures,
            }
        )
    )


if __name__ == "__main__":
    main()
