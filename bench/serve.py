"""Serving against llama.cpp, OpenVINO GenAI and transformers, on two Llama shapes with random weights.

Parts, of which `--parts` names some; one alone takes less than ten minutes:

engines       Tokens a second of 1, 8 and 16 sequences, prompts of 64 random tokens, greedy, and of reading 512 tokens.
              Each engine is a process of its own with two threads; they take turns, round after round, so that a busy
              machine slows all of them, and medians count. All but transformers and llama.cpp F16 hold weights of
              8 bits. The limit is what memory delivers to two threads: a step of one sequence cannot take less than
              reading every weight once.
http          16 streaming clients of a real server, against the same requests to the engine alone (smallest shape).
prefix        Time to the first token behind 1,024 known ones, against llama-server (smallest shape).
scorer        Log-likelihoods behind a shared prefix, against transformers (`bench.scorer`).
reproducible  What reproducible mode costs: its rates as shares of those without.

The peers are used where their Python has them (--peers, or WINDLASS_PEERS: a Python with llama-cpp-python,
openvino-genai and transformers; --llama-server, or the one beside that Python); the others are said to be missing.
`--keep FILE` keeps the figures there, and takes those of the parts that are not run from there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench._serve_http import http_share, warm_prefix
from bench._serve_processes import start

VOCABULARY, CONTEXT = 32_000, 2_048
SHAPES: dict[str, dict[str, int]] = {
    "130M": {"hidden": 768, "layers": 12, "heads": 12, "kv_heads": 12, "head_dim": 64, "ffn": 2_048},
    "480M": {"hidden": 1_280, "layers": 20, "heads": 20, "kv_heads": 20, "head_dim": 64, "ffn": 3_456},
}
OURS = "windlass int8"
LLAMA = ("llama.cpp F16", "llama.cpp Q8_0")
OPENVINO = ("OpenVINO", "OpenVINO, stateful")
TRANSFORMERS = ("transformers, float32", "transformers, bfloat16", "transformers, bfloat16, continuous")
PEERS = (*LLAMA, *OPENVINO, *TRANSFORMERS)
REPRODUCIBLE = f"{OURS}, reproducible"
CONTESTANTS = (OURS, "windlass bf16", "windlass int4", *PEERS)
PARTS = ("engines", "http", "prefix", "scorer", "reproducible")
BATCHES = (1, 8, 16)
PREFILL = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS, help="of the part engines")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=int, default=32, help="tokens that each sequence writes, of the part engines")
    parser.add_argument("--peers", default=os.environ.get("WINDLASS_PEERS", sys.executable), help="the peers' Python")
    parser.add_argument("--llama-server", help="its path (default: beside the peers' Python, or on the PATH)")
    parser.add_argument("--folder", type=Path, help="keep the models here (default: a temporary folder)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="figures of parts that were run before, and of these")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.keep is not None and arguments.keep.is_file():
        figures = json.loads(arguments.keep.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for part in arguments.parts:
            figures |= run(part, folder, arguments)
            if arguments.keep is not None:
                arguments.keep.write_text(json.dumps(figures, indent=1))
    line = {"bench": "serve", "ratio": None, "against": "the better llama.cpp of F16 and Q8_0"}
    shapes = [figures[name] for name in SHAPES if name in figures]
    least = {key: min(known) for key in LEAST if (known := [one[key] for one in shapes if one[key] is not None])}
    print(json.dumps(line | dict.fromkeys((*LEAST, *OTHERS)) | {"against": line["against"]} | least | figures))
    return 0


LEAST = ("ratio", "vs_openvino", "vs_transformers", "b1_vs_llamacpp", "b1_vs_limit", "prefill_vs_openvino")
"""Of all shapes the smallest counts."""
OTHERS = ("http_share", "ttft_vs_llama_server", "scorer_ratio", "reproducible_price")


def run(part: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one part, for the last line; prints its tables."""
    rounds, threads = arguments.rounds, arguments.threads
    first = folder / arguments.shapes[0]
    if part in ("http", "prefix", "reproducible"):
        weights = model(first, SHAPES[first.name])
    if part == "engines":
        found = {}
        for shape in arguments.shapes:
            weights = model(folder / shape, SHAPES[shape])
            rates = race(folder / shape, arguments.only, arguments)
            found[shape] = show(shape, rates, weights, read_bandwidth(threads))
        return found
    if part == "http":
        return http_share(first, rounds=rounds, threads=threads)
    if part == "prefix":
        return warm_prefix(first, _llama_server(arguments), rounds=2 * rounds, threads=threads)
    if part == "reproducible":
        return show_price(first.name, race(first, (OURS, REPRODUCIBLE), arguments))
    from bench.scorer import measure, table

    compared = measure(rounds=min(rounds, 2), threads=threads)
    print("\nscoring, seconds")
    table(compared)
    return {
        "scorer_ratio": round(min(one.ratio for one in compared.values()), 2),
        "scorer_difference": compared["float32"].difference,
    }


def _llama_server(arguments: argparse.Namespace) -> str | None:
    beside = Path(arguments.peers).with_name("llama-server")
    found: str | None = arguments.llama_server or (str(beside) if beside.is_file() else shutil.which("llama-server"))
    return found


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


Cell = tuple[str, str]
"""An engine and what it did."""


def race(folder: Path, names: Sequence[str], arguments: argparse.Namespace) -> dict[Cell, list[float]]:
    """Rates of every round; the first one only warms up."""
    tasks: dict[str, Mapping[str, int]] = {
        f"B{batch}": {"batch": batch, "prompt": 64, "write": arguments.write} for batch in BATCHES
    }
    tasks["prefill"] = {"prefill": PREFILL}
    found: dict[Cell, list[float]] = defaultdict(list)
    processes = []
    script, threads = str(Path(__file__).with_name("_serve_contestants.py")), arguments.threads
    for name in names:
        python = arguments.peers if name in PEERS else sys.executable
        made = start(name, [python, script, name, str(folder), str(threads)], threads)
        processes += [made] if made is not None else []
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
            one.close()
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


def show(shape: str, found: Mapping[Cell, Sequence[float]], weights: int, bandwidth: float) -> dict[str, Any]:
    """Prints the table; returns its figures and the ratios that can be formed of them."""
    rates = {cell: median(values) for cell, values in found.items() if values}
    print(f"\n{shape}: {weights / 1e6:.0f} million weights a step; tokens/s")
    _table(rates)
    limit = bandwidth / weights
    print(f"  {'limit of memory, 8 bits':<36}{limit:9.0f}   ({bandwidth / 1e9:.0f} GB/s)", flush=True)

    def against(names: Sequence[str], label: str) -> float | None:
        theirs = [rates[name, label] for name in names if (name, label) in rates]
        return round(rates[OURS, label] / max(theirs), 3) if theirs and (OURS, label) in rates else None

    def least(names: Sequence[str]) -> float | None:
        both = [against(names, "B8"), against(names, "B16")]
        return None if None in both else min(both)  # type: ignore[type-var]

    return {
        "ratio": least(LLAMA),
        "vs_openvino": least(OPENVINO),
        "vs_transformers": least(TRANSFORMERS),
        "b1_vs_llamacpp": against(LLAMA[1:], "B1"),
        "b1_vs_limit": round(rates[OURS, "B1"] / limit, 3) if (OURS, "B1") in rates else None,
        "prefill_vs_openvino": against(OPENVINO, "prefill"),
        "rates": {f"{name}, {label}": round(rate, 1) for (name, label), rate in rates.items()},
        "bandwidth_gb": round(bandwidth / 1e9, 1),
    }


LABELS = [*(f"B{batch}" for batch in BATCHES), "prefill"]


def _table(rates: Mapping[Cell, float]) -> None:
    print(f"  {'':<36}" + "".join(f"{label:>9}" for label in LABELS))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = (f"{rates[name, label]:9.0f}" if (name, label) in rates else f"{'-':>9}" for label in LABELS)
        print(f"  {name:<36}" + "".join(cells))


def show_price(shape: str, found: Mapping[Cell, Sequence[float]]) -> dict[str, Any]:
    """Prints what reproducible mode leaves of each rate; medians of the rounds' shares."""
    print(f"\n{shape}: reproducible mode; tokens/s")
    _table({cell: median(values) for cell, values in found.items()})
    shares = {}
    for label in LABELS:
        pairs = zip(found[REPRODUCIBLE, label], found[OURS, label], strict=True)
        shares[label] = round(median(one / other for one, other in pairs), 3)
    print(f"  {'share':<36}" + "".join(f"{shares[label]:9.2f}" for label in LABELS), flush=True)
    return {"reproducible_price": shares}


if __name__ == "__main__":
    sys.exit(main())
