"""Embedding throughput: `serve.encoders.embedder.MiniLM` against sentence-transformers, same weights, same texts.

2,000 passages of the Python language reference and of the standard library's docstrings. The libraries take
turns, 500 passages each, so that a busy machine slows all of them; the fastest round of each turn counts. The limit is
what a lone matrix product of the encoder's shape reaches on this machine.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import sys
import sysconfig
import time
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch

from windlass.serve.encoders.embedder import MINILM_PACKAGE, MiniLM


def passages(count: int) -> list[str]:
    """Paragraphs gathered to 60-600 characters, in a mixed order."""
    random = np.random.default_rng(0)
    sources = list(topics.values())
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted([*library.glob("*.py"), *(library / "asyncio").glob("*.py"), *(library / "email").glob("*.py")]):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, documented)]
        sources.extend(text for node in nodes if (text := ast.get_docstring(node)))
    found, part, wanted = [], "", 300
    for source in sources:
        for paragraph in source.split("\n\n"):
            part = f"{part}\n\n{paragraph}".strip()
            if len(part) >= wanted:
                found.append(part[:600])
                part, wanted = "", int(random.integers(60, 600))
    if len(found) < count:
        raise SystemExit(f"only {len(found)} passages in this Python's documentation, {count} wanted")
    return [found[i] for i in random.permutation(len(found))[:count]]


def gflops_limit() -> float:
    """Float32 matrix product of a feed-forward layer's shape, in GFLOP/s."""
    a, b = torch.randn(2048, 384), torch.randn(384, 1536)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * 2048 * 384 * 1536 / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    from sentence_transformers import SentenceTransformer

    folder = Path(importlib.util.find_spec(MINILM_PACKAGE).submodule_search_locations[0]) / "model"
    ours, rough = MiniLM.load(), MiniLM.load(precision="bfloat16")
    theirs = SentenceTransformer(str(folder), device="cpu")
    texts = passages(args.passages)
    ways = {
        "windlass float32": lambda t: ours.embed(t).vectors,
        "windlass bfloat16": lambda t: rough.embed(t).vectors,
        "sentence-transformers": lambda t: theirs.encode(t, show_progress_bar=False),
    }
    blocks = [texts[i : i + 500] for i in range(0, len(texts), 500)]
    seconds = dict.fromkeys(ways, 0.0)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for way in ways.values():
        way(texts[:64])  # warm up
    for block in blocks:
        best, made = dict.fromkeys(ways, float("inf")), {}
        for _ in range(args.rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                vectors = way(block)
                best[name] = min(best[name], time.perf_counter() - start)
                made[name] = vectors
        for name in ways:
            seconds[name] += best[name]
            parts[name].append(made[name])
    outputs = {name: np.concatenate(rows) for name, rows in parts.items()}
    tokens = sum(len(e.ids) for e in ours.reader.read(texts))
    # 2 operations per weight of the 6 layers and token; attention's own products are a few per cent more
    work = 2 * 6 * (4 * 384 * 384 + 2 * 384 * 1536) * tokens / 1e9
    limit = gflops_limit()
    peer = outputs["sentence-transformers"]
    print(f"{args.passages} passages, {tokens} tokens, torch {torch.__version__}, {args.threads} threads")
    print(f"limit: {limit:.0f} GFLOP/s in float32\n")
    print(f"{'':24}{'passages/s':>12}{'tokens/s':>10}{'GFLOP/s':>9}{'max |diff|':>12}{'min cosine':>12}")
    for name, t in seconds.items():
        diff, cosine = np.abs(outputs[name] - peer).max(), (outputs[name] * peer).sum(1).min()
        print(f"{name:24}{args.passages / t:12.0f}{tokens / t:10.0f}{work / t:9.0f}{diff:12.2e}{cosine:12.6f}")
    ratio = seconds["sentence-transformers"] / seconds["windlass float32"]
    line = {
        "bench": "embed",
        "ratio": round(ratio, 3),
        "against": "sentence-transformers",
        "bfloat16_ratio": round(seconds["sentence-transformers"] / seconds["windlass bfloat16"], 3),
        "max_abs_diff": float(np.abs(outputs["windlass float32"] - peer).max()),
        "bfloat16_min_cosine": float((outputs["windlass bfloat16"] * peer).sum(1).min()),
    }
    sys.stdout.flush()
    print(json.dumps(line))


if __name__ == "__main__":
    main()
