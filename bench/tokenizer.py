"""Training and encoding: `windlass.build.tokenizer` against `tokenizers` and transformers used directly, in one run.

The text is this Python's documentation and source, over and over, one word in twenty changed to a new one each time,
so that the number of distinct words grows with the text as it does in nature. Training (each in a process of its own,
vocabulary 8,192): CPU seconds, less those that making the text takes, and peak memory, against
`Tokenizer.train_from_iterator`, which `train_new_from_iterator` of transformers calls as well. Encoding: the trained
tokenizer over fresh documents through `write_shard`, against transformers' tokenizer called with batches and document
by document, as `datasets.map` does; the limit is `encode_batch_fast` with nothing around it. Bytes per token are of
modules that training left out, against exact word counts, and against the library's own byte-level BPE of that size.

    python -m bench.tokenizer [--megabytes 10 50] [--encode 10]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from windlass.core.readers import PythonDocs, ReadReport
from windlass.core.tables import table

VOCABULARY = 8192
HELDOUT = 10
"""One document in so many is kept for measuring."""


@cache
def documents() -> tuple[list[str], list[str]]:
    """Texts to learn from, and others."""
    texts = [d.text for d in PythonDocs().documents(ReadReport()) if d.metadata["kind"] != "docstring"]
    return [t for i, t in enumerate(texts) if i % HELDOUT], texts[::HELDOUT]


def stream(megabytes: float) -> Iterator[str]:
    generator = random.Random(0)
    size = 0
    while True:
        for text in documents()[0]:
            words = text.split(" ")
            for _ in range(len(words) // 20):
                place = generator.randrange(len(words))
                words[place] += f"{generator.randrange(1 << 40):x}".translate(_LETTERS)
            varied = " ".join(words)
            size += len(varied)
            yield varied
            if size >= megabytes * 1e6:
                return


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def train_ours(megabytes: float) -> str:
    from windlass.build.tokenizer.training import train

    return str(train(stream(megabytes), VOCABULARY).tokenizer.to_str())


def train_directly(megabytes: float) -> str:
    """With our pattern, so that only the way of training differs."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from windlass.build.tokenizer.bpe import BPE

    tokenizer = Tokenizer(models.BPE())
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([BPE.rules(False)[1], in_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=list(dict.fromkeys(BPE.roles.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stream(megabytes), trainer)
    return str(tokenizer.to_str())


def train_with_defaults(megabytes: float) -> str:
    """The library's byte-level BPE as it comes, with GPT-2's pattern."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(stream(megabytes), VOCABULARY, 2, False, ["<|endoftext|>", "<|pad|>", "<|mask|>"])
    return str(tokenizer.to_str())


def only_text(megabytes: float) -> str:
    for _ in stream(megabytes):
        pass
    return ""


TRAINERS: dict[str, Callable[[float], str]] = {
    "text": only_text,
    "windlass": train_ours,
    "tokenizers": train_directly,
    "defaults": train_with_defaults,
}


def child(name: str, megabytes: float, out: Path) -> None:
    """Runs one trainer; prints CPU seconds and peak memory, leaves the tokenizer in `out`."""
    documents()
    started = time.process_time()
    trained = TRAINERS[name](megabytes)
    seconds = time.process_time() - started
    out.write_text(trained)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mb": rss}))


def run_child(name: str, megabytes: float, out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.tokenizer", "--child", name, str(megabytes), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def encoders(path: Path, texts: list[str], folder: Path) -> dict[str, Callable[[], int]]:
    """Ways to turn the texts into numbers of tokens; each returns how many there are."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from windlass.build.tokenizer import batches
    from windlass.build.training.data.shard import write_shard

    tokenizer = Tokenizer.from_file(str(path))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(path))

    def shard() -> int:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            return len(write_shard(Path(fresh) / "s.bin", texts, tokenizer, 0)) - len(texts) - 1

    def limit() -> int:
        return sum(len(e) for b in batches(texts, 256) for e in tokenizer.encode_batch_fast(b))

    def batched() -> int:
        return sum(len(ids) for batch in batches(texts, 1000) for ids in theirs(batch)["input_ids"])

    def one_by_one() -> int:
        return sum(len(theirs(text)["input_ids"]) for text in texts)

    return {"windlass": shard, "transformers, batches": batched, "transformers, one by one": one_by_one, "limit": limit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 50])
    parser.add_argument("--encode", type=float, default=10, help="megabytes to encode")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], float(args.child[1]), Path(args.child[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        report(args.megabytes, args.encode, args.rounds, Path(name))


def report(sizes: list[float], encode: float, rounds: int, folder: Path) -> None:
    from tokenizers import Tokenizer

    from windlass.build.tokenizer import measure

    rows, found = [], {}
    for size in sizes:
        for name in TRAINERS:
            found[name, size] = run_child(name, size, folder / f"{name}.json")
            net = found[name, size]["seconds"] - found["text", size]["seconds"]
            rate = size / net if name != "text" else None
            rows.append((f"{size:g} MB", name, found[name, size]["seconds"], rate, found[name, size]["mb"]))
    print(table(("training", "", "CPU s", "MB/CPU s net", "peak MB"), rows))
    last = sizes[-1]

    def net(name: str) -> float:
        return found[name, last]["seconds"] - found["text", last]["seconds"]

    quality = {
        name: measure(Tokenizer.from_file(str(folder / f"{name}.json")), documents()[1]).bytes_per_token
        for name in ("windlass", "tokenizers", "defaults")
    }
    print("\n" + table(("held-out modules", "bytes/token"), quality.items()))

    texts = list(stream(encode))
    size = sum(len(text.encode()) for text in texts) / 1e6
    ways = encoders(folder / "windlass.json", texts, folder)
    best, tokens = dict.fromkeys(ways, float("inf")), {}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            tokens[name] = way()
            best[name] = min(best[name], time.process_time() - started)
    if len(set(tokens.values())) != 1:
        raise SystemExit(f"The ways of encoding disagree: {tokens}")
    print("\n" + table((f"encoding {size:.0f} MB", "CPU s", "MB/CPU s"), ((n, s, size / s) for n, s in best.items())))
    print(
        json.dumps(
            {
                "bench": "tokenizer",
                "ratio": round(best["transformers, batches"] / best["windlass"], 4),
                "against": "CPU of encoding with transformers' fast tokenizer called with batches",
                "vs_one_by_one": round(best["transformers, one by one"] / best["windlass"], 4),
                "share_of_limit": round(best["limit"] / best["windlass"], 4),
                "train_ratio": round(net("tokenizers") / net("windlass"), 4),
                "train_mb_per_cpu_s": round(last / net("windlass"), 3),
                "peak_mb": {f"{s:g}": round(found["windlass", s]["mb"]) for s in sizes},
                "peak_mb_tokenizers": {f"{s:g}": round(found["tokenizers", s]["mb"]) for s in sizes},
                "bytes_per_token": round(quality["windlass"], 4),
                "bytes_per_token_exact_counts": round(quality["tokenizers"], 4),
                "bytes_per_token_library_defaults": round(quality["defaults"], 4),
            }
        )
    )


if __name__ == "__main__":
    main()
