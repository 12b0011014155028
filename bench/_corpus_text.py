"""Text for the benchmark of corpora: the public data folder in pieces, as JSON lines, with planted near duplicates.

Novels, documentation, speeches and web pages give some 100 MB. More than that is made of their sentences, drawn anew,
so that no two pages resemble each other. Planted are copies of pages with some words replaced, half of them near
duplicates (exact similarity 0.8 to 0.95), half of them not (0.45 to 0.65).
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from bench._data import data_folder

from windlass.build.corpus.shingles import jaccard, shingles

PLANTED = 600
NEAR = (0.8, 0.95)
FAR = (0.45, 0.65)
_PAGE = 6_000
_POOL = 200_000


def write_text(folder: Path, megabytes: float, files: int) -> int:
    """Writes about so many MB into so many files of rows {id, text}; returns the bytes of their text."""
    rng = random.Random(0)
    folder.mkdir(parents=True)
    outs = [(folder / f"{number:02d}.jsonl").open("w", encoding="utf-8") for number in range(files)]
    size = count = 0
    chosen: list[tuple[str, str]] = []

    def write(id: str, text: str) -> None:
        nonlocal size, count
        outs[count % files].write(json.dumps({"id": id, "text": text}, ensure_ascii=False) + "\n")
        size += len(text.encode())
        count += 1

    every = max(1, int(megabytes * 1e6 / _PAGE / PLANTED))
    for text in pages(rng):
        if size >= megabytes * 1e6:
            break
        if count % every == 0 and 2_000 < len(text) < 20_000 and len(chosen) < PLANTED:
            chosen.append((f"page-{count}", text))
        write(f"page-{count}", text)
    vocabulary = sorted({word for _, text in chosen for word in text.split() if word.isalpha()})
    for number, (original, text) in enumerate(chosen):
        kind, low, high = ("near", *NEAR) if number % 2 == 0 else ("far", *FAR)
        write(f"{kind}-of-{original}", _changed(text, low, high, vocabulary, rng))
    for out in outs:
        out.close()
    return size


def pages(rng: random.Random) -> Iterator[str]:
    """Pages of the public data, each once; then, without end, pages of sentences drawn from them."""
    data, pool = data_folder() / "pretrain", []
    files = sorted(file for folder in ("novels", "docs", "speeches", "web") for file in (data / folder).glob("*.gz"))
    if not files:
        raise SystemExit(f"There is no public data in {data}: set WINDLASS_DATA to its folder.")
    rng.shuffle(files)
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
            texts = [json.loads(line)["text"] for line in lines] if ".jsonl" in file.name else _pieces(lines.read())
        for text in texts:
            if len(pool) < _POOL and ".jsonl" not in file.name:
                pool += re.split(r"(?<=[.!?])\s+", text)
            yield text
    while True:
        yield " ".join(rng.choices(pool, k=60))


def _pieces(text: str) -> Iterator[str]:
    """A book in pages, cut at line ends."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PAGE)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _changed(text: str, low: float, high: float, vocabulary: list[str], rng: random.Random) -> str:
    """A copy with words replaced until its exact similarity to `text` lies between `low` and `high`."""
    words, known = text.split(" "), shingles(text)
    step = max(1, len(words) // 120)
    while not low <= (found := jaccard(known, shingles(copy := " ".join(words)))) < high:
        if found < low:
            words = text.split(" ")
            step = max(1, step // 2)
        for place in rng.sample(range(len(words)), step):
            words[place] = rng.choice(vocabulary)
    return copy
