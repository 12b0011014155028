"""The memory that searching a large index takes: run by `bench.rag`, in a process of its own for each form.

    python -m bench._index_memory [--vectors 1000000] [--form mapped|int8|binary ...]

The index is made in a temporary folder: passages of a few words with random vectors of 384 numbers, one in a hundred of
each tenant. Another process opens and searches it. What is counted as its memory is what the kernel cannot take back at
will: the most anonymous pages it ever has, less those before it opens the index, against a fifth of the vectors' own
size. Pages of mapped files (`resident_mb` holds them too) go when others need the room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from windlass.apply.rag.indexes.live import open_live
from windlass.core.documents import Document, Entry, Passage

DIMENSION, BATCH, WORDS = 384, 10_000, 20_000
FORMS = {"mapped": "", "int8": "int8", "binary": "binary"}


class Random:
    """An embedder whose vectors are given."""

    name, digest, dimension = "random", "f" * 64, DIMENSION


def make(folder: Path, count: int, form: str) -> None:
    index = open_live(folder, Random(), quantised=FORMS[form])  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    likely = 1 / np.arange(1, WORDS + 1)
    likely /= likely.sum()
    for first in range(0, count, BATCH):
        size = min(BATCH, count - first)
        vectors = rng.standard_normal((size, DIMENSION), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        words = rng.choice(WORDS, (size, 12), p=likely)
        entries = []
        for i in range(size):
            name, text = f"d{first + i}", " ".join(f"w{word}" for word in words[i])
            passage = Passage(name, "", "", 0, len(text), text)
            document = Document(name, name, "", text, metadata={"tenant": (first + i) % 100})
            entries.append(Entry(document, "", [passage], vectors[i : i + 1]))
        index.put(entries)
        print(f"\r{form}: {first + size:,} of {count:,} vectors", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    index.close()


def memory(*names: str) -> float:
    """MB of this process."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(found[name].split()[0]) for name in names) / 1024


def search(folder: Path, form: str, queries: int = 40) -> dict[str, object]:
    before = memory("RssAnon")
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], memory("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    index = open_live(folder, Random())  # type: ignore[arg-type]
    opened = time.perf_counter() - started
    rng = np.random.default_rng(1)
    took: dict[str, list[float]] = {"all": [], "filtered": []}
    for number in range(queries):
        vector = rng.standard_normal(DIMENSION, dtype=np.float32)
        vector /= np.linalg.norm(vector)
        text = " ".join(f"w{word}" for word in rng.choice(3_000, 6))
        for kind, where in (("all", None), ("filtered", {"tenant": number % 100})):
            started = time.perf_counter()
            hits = index.search(text, 10, where, vector=vector)
            took[kind].append((time.perf_counter() - started) * 1000)
            assert len(hits) == 10, "a search never under-returns"
    done.set()
    watching.join()
    vectors = len(index) * DIMENSION * 4 / 2**20
    own = peak[0] - before
    return {
        "peak_mb": round(own, 1),
        "resident_mb": round(memory("VmHWM"), 1),
        "file_mb": round(sum(path.stat().st_size for path in folder.iterdir()) / 2**20, 1),
        "vectors_mb": round(vectors, 1),
        "open_ms": round(opened * 1000, 1),
        "query_ms": round(float(np.median(took["all"])), 2),
        "filtered_ms": round(float(np.median(took["filtered"])), 2),
        "bounded_mb": round(limit(len(index)), 1),
        "holds": own <= limit(len(index)),
    }


def limit(vectors: int) -> float:
    """A fifth of the vectors' own size, and what opening any index takes."""
    return 0.2 * vectors * DIMENSION * 4 / 2**20 + 64


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--form", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.search:
        print(json.dumps(search(args.search, args.form[0])))
        return 0
    found = {}
    for form in args.form:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder) / "index", args.vectors, form)
            command = [sys.executable, "-m", "bench._index_memory", "--search", f"{folder}/index", "--form", form]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[form] = json.loads(said.splitlines()[-1])
        print(form, found[form], file=sys.stderr)
    first = found[args.form[0]]
    print(
        json.dumps({"vectors": args.vectors, **first, "forms": found, "holds": all(f["holds"] for f in found.values())})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
