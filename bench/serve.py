"""Tokens a second of the engine against llama.cpp, OpenVINO GenAI and transformers, on two Llama shapes.

Random weights (speed does not depend on them), prompts of 64 random tokens, greedy. Each engine is a process of its own
with two threads; they take turns, round after round, so that a busy machine slows all of them, and medians count. All
but transformers (bfloat16) and llama.cpp F16 hold weights of 8 bits. The limit is what memory delivers to two threads:
a step of one sequence cannot take less than reading every weight once.

The peers are used where their Python has them (--peers, or WINDLASS_PEERS: a Python with llama-cpp-python,
openvino-genai and transformers); the others are said to be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

VOCABULARY, CONTEXT = 32_000, 1_024
SHAPES: dict[str, dict[str, int]] = {
    "130M": {"hidden": 768, "layers": 12, "heads": 12, "kv_heads": 12, "head_dim": 64, "ffn": 2_048},
    "480M": {"hidden": 1_280, "layers": 20, "heads": 20, "kv_heads": 20, "head_dim": 64, "ffn": 3_456},
}
OURS = "windlass int8"
LLAMA = ("llama.cpp F16", "llama.cpp Q8_0")
PEERS = (*LLAMA, "OpenVINO", "transformers", "transformers, continuous")
CONTESTANTS = (OURS, "windlass bf16", "windlass int4", *PEERS)
BATCHES = (1, 8, 16)
PREFILL = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=int, default=32, help="tokens that each sequence writes")
    parser.add_argument("--peers", default=os.environ.get("WINDLASS_PEERS", sys.executable), help="the peers' Python")
    parser.add_argument("--folder", type=Path, help="keep the models here (default: a temporary folder)")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"bench": "serve", "ratio": None, "against": "the better llama.cpp of F16 and Q8_0"}
    with tempfile.TemporaryDirectory() as temporary:
        for shape in arguments.shapes:
            folder = (arguments.folder or Path(temporary)) / shape
            weights = model(folder, SHAPES[shape])
            found = race(folder, arguments)
            bandwidth = read_bandwidth(arguments.threads)
            result[shape] = show(shape, found, weights, bandwidth)
    first = result[arguments.shapes[0]]
    print(json.dumps(result | {key: first[key] for key in SUMMARY if key in first}))
    return 0


def model(folder: Path, shape: Mapping[str, int]) -> int:
    """Writes the model for all of them, if it is not there yet; numbers of the weights that a step reads."""
    import torch

    from windlass.build.transformer.config import TransformerConfig
    from windlass.build.transformer.decoder import Decoder
    from windlass.build.transformer.gguf.exporting import export_gguf
    from windlass.build.transformer.hf import save_model
    from windlass.build.transformer.init import initialise

    config = TransformerConfig(vocab_size=VOCABULARY, context=CONTEXT, **shape)
    read = config.parameters - config.vocab_size * config.hidden
    if (folder / "q8_0.gguf").is_file():
        return read
    folder.mkdir(parents=True, exist_ok=True)
    decoder = Decoder(config)
    initialise(decoder, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    save_model(decoder, folder, bos=0, eos=0)
    tokenizer().save(str(folder / "tokenizer.json"))
    for kind in ("f16", "q8_0"):
        export_gguf(folder, folder / f"{kind}.gguf", type=kind)
    return read


def tokenizer() -> Any:
    """Byte-level BPE of just this many tokens, of this Python's own sources: some engines load no model without."""
    import sysconfig

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    made.train_from_iterator((path.read_text(encoding="utf-8") for path in sources), trainer)
    missing = VOCABULARY - made.get_vocab_size()
    made.add_tokens([f"<|unused {i}|>" for i in range(missing)])
    return made


@dataclass
class Process:
    name: str
    process: subprocess.Popen[str]
    said: IO[str]

    def last_words(self) -> str:
        self.said.seek(0)
        return (self.said.read().strip().splitlines() or ["nothing"])[-1]

    def ask(self, task: Mapping[str, int]) -> dict[str, float] | None:
        """None when it has died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


def started(folder: Path, arguments: argparse.Namespace) -> Iterator[Process]:
    threads = str(arguments.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    for name in arguments.only:
        python = arguments.peers if name in PEERS else sys.executable
        command = [python, str(Path(__file__).with_name("_serve_contestants.py")), name, str(folder), threads]
        said = tempfile.TemporaryFile("w+")  # a pipe nobody reads would fill up  # noqa: SIM115
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True, env=environment
        )
        one = Process(name, process, said)
        assert process.stdout is not None
        if process.stdout.readline():
            yield one
        else:
            print(f"{name} is missing: {one.last_words()}", flush=True)


Cell = tuple[str, str]
"""An engine and what it did."""


def race(folder: Path, arguments: argparse.Namespace) -> dict[Cell, list[float]]:
    """Rates of every round; the first one only warms up."""
    tasks: dict[str, Mapping[str, int]] = {
        f"B{batch}": {"batch": batch, "prompt": 64, "write": arguments.write} for batch in BATCHES
    }
    tasks["prefill"] = {"prefill": PREFILL}
    found: dict[Cell, list[float]] = defaultdict(list)
    processes = list(started(folder, arguments))
    try:
        for number in range(arguments.rounds + 1):
            for label, task in tasks.items():
                for one in list(processes):
                    answer = one.ask(task)
                    if answer is None:
                        print(f"{one.name} died at {label}: {one.last_words()}", flush=True)
                        processes.remove(one)
                    elif number:
                        found[one.name, label] += answer.values()
    finally:
        for one in processes:
            assert one.process.stdin is not None
            one.process.stdin.close()
            one.process.wait(timeout=60)
    return found


def read_bandwidth(threads: int) -> float:
    """Bytes a second that the threads together read from memory; the best of some tries."""
    import torch

    torch.set_num_threads(threads)
    block = torch.ones(1 << 27)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        block.sum()
        best = max(best, block.numel() * block.element_size() / (time.perf_counter() - start))
    return best


SUMMARY = ("ratio", "vs_openvino", "vs_transformers", "b1_vs_llamacpp", "b1_vs_limit", "prefill_vs_openvino")


def show(shape: str, found: Mapping[Cell, Sequence[float]], weights: int, bandwidth: float) -> dict[str, Any]:
    """Prints the table; returns its figures and the ratios that can be formed of them."""
    labels = [*(f"B{batch}" for batch in BATCHES), "prefill"]
    rates = {cell: median(values) for cell, values in found.items() if values}
    print(f"\n{shape}: {weights / 1e6:.0f} million weights a step; tokens/s")
    print(f"  {'':<26}" + "".join(f"{label:>9}" for label in labels))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = (f"{rates[name, label]:9.0f}" if (name, label) in rates else f"{'-':>9}" for label in labels)
        print(f"  {name:<26}" + "".join(cells))
    limit = bandwidth / weights
    print(f"  limit of memory, 8 bits   {limit:9.0f}   ({bandwidth / 1e9:.0f} GB/s)", flush=True)

    def against(names: Sequence[str], label: str) -> float | None:
        theirs = [rates[name, label] for name in names if (name, label) in rates]
        return round(rates[OURS, label] / max(theirs), 3) if theirs and (OURS, label) in rates else None

    def least(names: Sequence[str]) -> float | None:
        both = [against(names, "B8"), against(names, "B16")]
        return None if None in both else min(both)  # type: ignore[type-var]

    return {
        "ratio": least(LLAMA),
        "vs_openvino": least(["OpenVINO"]),
        "vs_transformers": least(PEERS[3:]),
        "b1_vs_llamacpp": against(LLAMA[1:], "B1"),
        "b1_vs_limit": round(rates[OURS, "B1"] / limit, 3) if (OURS, "B1") in rates else None,
        "prefill_vs_openvino": against(["OpenVINO"], "prefill"),
        "rates": {f"{name}, {label}": round(rate, 1) for (name, label), rate in rates.items()},
        "bandwidth_gb": round(bandwidth / 1e9, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
