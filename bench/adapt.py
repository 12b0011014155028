"""Tuning against the field's trainers: SFT with LoRA against TRL with PEFT, encoders against the trainers of
transformers and of sentence-transformers.

Parts, of which `--parts` names some:

decoder         A Llama of 34 million weights in bfloat16 learns from conversations by a LoRA of rank 16 on all maps of
                its blocks: windlass as `windlass tune chat` does it, and SFTTrainer, packed without flash attention,
                padded by neighbours in length, and with its defaults. Real tokens a second: padding does not count.
classification  MiniLM with a head, all of it trained, on TREC's questions, against the Trainer of transformers.
embedding       MiniLM as an embedder, on titles and abstracts, against the trainer of sentence-transformers.

Contenders begin with the same weights and see the same examples as often, in steps of as many, with the same optimizer
and rates. Each turn of a decoder is a process of its own; turns are interleaved, and medians count. Quality is measured
on the same held-out examples by one piece of code. The rounds of encoders differ by their seeds: of their quality the
mean is told, and the mean difference from the peer's in the same round, both with their 95% intervals. Memory is what a
process held at most, less what it held before it loaded the model and less the model's weights (`memory_ratio`); and
also all of it (`memory_ratio_process`). Contenders that are slower by design (`ONCE`) run in the first round only. Each
turn is told on stderr when it is done. `--peers`, or WINDLASS_PEERS: a Python that has trl, peft and
sentence-transformers, where this one has not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench import _adapt_decoder as decoder

from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.paired import paired_difference

PARTS = ("decoder", "classification", "embedding")
ROUNDS = {"decoder": 3, "classification": 5, "embedding": 3}
ONCE = ("TRL, packed, rows together", "TRL, defaults")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, help="of each part; else " + str(ROUNDS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=[decoder.OURS, *decoder.TRL], help="contenders of the decoder")
    parser.add_argument("--peers", default=os.environ.get("WINDLASS_PEERS", sys.executable), help="the peers' Python")
    parser.add_argument("--encoders", help=argparse.SUPPRESS)  # this process is the one that measures them
    arguments = parser.parse_args()
    if arguments.encoders:
        print(json.dumps(_encoders(arguments.encoders, arguments.rounds, arguments.threads)))
        return 0
    line: dict[str, Any] = {"bench": "adapt", "ratio": None, "against": "the fastest of TRL's SFTTrainer with PEFT"}
    line |= dict.fromkeys(("memory_ratio", "vs_hf_trainer", "vs_sentence_transformers"))
    for part in arguments.parts:
        if part == "decoder":
            line |= _decoder(arguments)
        else:
            rounds = str(arguments.rounds or ROUNDS[part])
            own = ["--encoders", part, "--rounds", rounds, "--threads", str(arguments.threads)]
            found = _ran([arguments.peers, "-m", "bench.adapt", *own], arguments.threads)
            line |= {} if found is None else _shown(part, found)
    print(json.dumps(line))
    return 0


def _decoder(arguments: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    names = [name for name in (decoder.OURS, *decoder.TRL) if not arguments.only or name in arguments.only]
    quality: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        decoder.prepare(folder)
        facts = json.loads((folder / "facts.json").read_text())
        rounds = arguments.rounds or ROUNDS["decoder"]
        for number in range(rounds):
            for name in names:
                if number == 0 or name not in ONCE:
                    python = sys.executable if name == decoder.OURS else arguments.peers
                    one = _ran([python, "-m", "bench._adapt_decoder", name, str(folder)], arguments.threads)
                    if one is not None:
                        found[name].append(one)
                        print(f"round {number + 1} of {rounds}, {name}: {one['seconds']:.1f} s", file=sys.stderr)
        quality = {name: decoder.heldout(folder, folder / name) for name, runs in found.items() if runs}
        before = decoder.heldout(folder, None)
    print(
        f"\n{facts['parameters'] / 1e6:.0f} million weights, LoRA of rank {decoder.RANK}; {facts['examples']} "
        f"conversations of {facts['tokens']:,} tokens, {decoder.EPOCHS} time(s); held-out loss before {before:.3f}\n"
    )
    print(f"{'':<30}{'tokens/s':>10}{'CPU tokens/s':>14}{'steps':>7}{'held-out':>10}{'memory MB':>11}{'process':>9}")
    rates, cpu, above, whole = {}, {}, {}, {}
    for name, runs in found.items():
        if not runs:
            continue
        tokens = decoder.EPOCHS * facts["tokens"]
        rates[name] = median(tokens / run["seconds"] for run in runs)
        cpu[name] = median(tokens / run["cpu_seconds"] for run in runs)
        above[name] = median(run["peak"] - run["before"] for run in runs) - 2 * facts["parameters"]
        whole[name] = median(run["peak"] for run in runs)
        print(
            f"{name:<30}{rates[name]:>10.0f}{cpu[name]:>14.0f}{runs[0]['steps']:>7.0f}{quality[name]:>10.3f}"
            f"{above[name] / 1e6:>11.0f}{whole[name] / 1e6:>9.0f}",
            flush=True,
        )
    peers = [name for name in rates if name != decoder.OURS]
    if not peers or decoder.OURS not in rates:
        return {}
    best = max(peers, key=rates.__getitem__)
    return {
        "ratio": round(rates[decoder.OURS] / rates[best], 2),
        "ratio_cpu": round(cpu[decoder.OURS] / max(cpu[name] for name in peers), 2),
        "against": f"{best}, the fastest of {len(peers)} ways to set SFTTrainer with PEFT",
        "memory_ratio": round(above[decoder.OURS] / above[best], 2),
        "memory_ratio_process": round(whole[decoder.OURS] / whole[best], 2),
        "heldout_loss": {"before": round(before, 3)} | {name: round(loss, 3) for name, loss in quality.items()},
    }


def _encoders(part: str, rounds: int, threads: int) -> dict[str, Any]:
    import torch
    from bench import _adapt_encoders as encoders

    torch.set_num_threads(threads)
    found = (encoders.classification if part == "classification" else encoders.embedding)(rounds)
    return {name: asdict(result) for name, result in found.items()}


def _shown(part: str, found: dict[str, Any]) -> dict[str, Any]:
    measured, key = ("accuracy", "vs_hf_trainer") if part == "classification" else ("MRR", "vs_sentence_transformers")
    rounds = len(next(iter(found.values()))["qualities"])
    print(f"\n{part}, {rounds} seed(s)\n\n{'':<36}{'examples/s':>12}{'of CPU':>10}  {measured}")
    for name, one in found.items():
        quality = _interval(mean_interval(one["qualities"]))
        print(f"{name:<36}{one['per_second']:>12.1f}{one['per_cpu_second']:>10.1f}  {quality}", flush=True)
    ours, theirs = ([name for name in found if name.startswith("windlass") == mine] for mine in (True, False))
    line: dict[str, Any] = {
        f"{part}_quality": {name: [round(quality, 3) for quality in one["qualities"]] for name, one in found.items()}
    }
    if not theirs:
        return line
    mine, other = (max(names, key=lambda name: found[name]["per_second"]) for names in (ours, theirs))
    better = paired_difference(found[other]["qualities"], found[mine]["qualities"]).difference
    print(f"\n{mine} less {other}, seed by seed: {_interval(better)}", flush=True)
    if rounds > 1:
        line[f"{part}_difference"] = [round(value, 3) for value in (better.estimate, better.low, better.high)]
    for which, rate in ((key, "per_second"), (f"{key}_cpu", "per_cpu_second")):
        best, most = (max(found[name][rate] for name in names) for names in (ours, theirs))
        line[which] = round(best / most, 2)
    return line


def _interval(interval: Interval) -> str:
    known = f" [{interval.low:.3f}, {interval.high:.3f}]" if interval.n > 1 else ""
    return f"{interval.estimate:.3f}{known}"


def _ran(command: list[str], threads: int) -> dict[str, Any] | None:
    """The last line that a process printed. What it says on stderr is seen at once."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    environment |= {"THP_MEM_ALLOC_ENABLE": "1", "TOKENIZERS_PARALLELISM": "false"}  # as our command has it
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(f"{' '.join(command[2:])} failed with status {done.returncode}", flush=True)
        return None
    found: dict[str, Any] = json.loads(lines[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
