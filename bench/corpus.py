"""Near-duplicate removal: `windlass.build.corpus.duplicates` against datasketch's MinHashLSH, same shingles and bands.

The documents are this Python's docstrings, topics and source, and after them 300 planted near duplicates: copies with
some words replaced, whose exact similarity to their original lies between 0.8 and 0.95. Both libraries go through all
of them in one process, taking turns; CPU seconds, the fastest of the rounds. `found` is the share of planted
copies that were removed; `wrong` counts removed documents of which no kept one is 0.8 similar (datasketch trusts the
estimate, as its users do; ours verifies each candidate exactly). The limit is splitting into words and hashing them.

    python -m bench.corpus [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
import zlib
from contextlib import closing
from pathlib import Path

from windlass.build.corpus import CorpusSettings
from windlass.build.corpus.duplicates import Duplicates
from windlass.build.corpus.judging import Judge
from windlass.build.corpus.shingles import BANDS, ROWS, WORDS_PER_SHINGLE, jaccard, shingles
from windlass.build.corpus.staging import Stage
from windlass.core.documents import Document
from windlass.core.readers import PythonDocs, ReadReport
from windlass.core.tables import table

PLANTED = 300
THRESHOLD = 0.8
WORD = re.compile(r"\w+")


def documents() -> tuple[list[str], int]:
    """Texts, and how many of them are originals; the rest are planted copies."""
    originals = [d.text for d in PythonDocs().documents(ReadReport())]
    generator = random.Random(0)
    vocabulary = sorted({word for text in originals[:500] for word in text.split()})
    candidates = [text for text in originals if 80 <= len(text.split()) <= 2000]
    copies: list[str] = []
    while len(copies) < PLANTED:
        text = generator.choice(candidates)
        parts = text.split(" ")
        for place in generator.sample(range(len(parts)), max(1, len(parts) // generator.randrange(40, 200))):
            parts[place] = generator.choice(vocabulary)
        copy = " ".join(parts)
        if THRESHOLD <= jaccard(shingles(text), shingles(copy)) < 0.95:
            copies.append(copy)
    return originals + copies, len(originals)


def ours(texts: list[str]) -> list[int]:
    """Numbers of the removed texts."""
    judge = Judge(CorpusSettings(near=THRESHOLD))
    with tempfile.TemporaryDirectory() as folder, closing(Stage(Path(folder) / "stage")) as stage:
        duplicates = Duplicates(Path(folder) / "duplicates")
        kept = []
        for number, text in enumerate(texts):
            judged = judge([Document(f"{number}", "", "", text, metadata={"kind": "", "cluster": ""})])
            kept += [number] * len(judged.rows)
            stage.append(judged)
            duplicates.add(judged.keys)
        stage.seal()
        return [kept[twin.number] for twin in duplicates.find(stage, THRESHOLD)]


def datasketch(texts: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sketches: dict[int, MinHash] = {}
    removed = []
    for number, text in enumerate(texts):
        tokens = WORD.findall(text.lower())
        size = max(1, min(WORDS_PER_SHINGLE, len(tokens)))
        pieces = {" ".join(tokens[i : i + size]).encode() for i in range(len(tokens) - size + 1)}
        sketch = MinHash(num_perm=BANDS * ROWS, seed=1)
        sketch.update_batch(list(pieces))
        sketches[number] = sketch
        if any(sketch.jaccard(sketches[other]) >= THRESHOLD for other in index.query(sketch)):
            removed.append(number)
        else:
            index.insert(number, sketch)
    return removed


def limit(texts: list[str]) -> list[int]:
    for text in texts:
        for word in WORD.findall(text.lower()):
            zlib.crc32(word.encode())
    return []


def wrong(texts: list[str], removed: list[int]) -> int:
    """Removed texts that are not similar enough to any kept one, by exact comparison."""
    gone = set(removed)
    sets = [shingles(text) for text in texts]
    holders: dict[int, list[int]] = {}
    for number, hashes in enumerate(sets):
        if number not in gone:
            for value in hashes.tolist():
                holders.setdefault(value, []).append(number)
    count = 0
    for number in removed:
        near = {other for value in sets[number].tolist() for other in holders.get(value, ())}
        count += not any(jaccard(sets[number], sets[other]) >= THRESHOLD for other in near)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    texts, originals = documents()
    runners = {"windlass": ours, "datasketch": datasketch, "limit": limit}
    best = dict.fromkeys(runners, float("inf"))
    removed: dict[str, list[int]] = {}
    for _ in range(args.rounds):
        for name, runner in runners.items():
            started = time.process_time()
            removed[name] = runner(texts)
            best[name] = min(best[name], time.process_time() - started)
    rows, figures = [], {}
    for name in runners:
        planted = [number for number in removed[name] if number >= originals]
        found = len(planted) / PLANTED if name != "limit" else None
        bad = wrong(texts, removed[name]) if name != "limit" else None
        figures[name] = {"found": found, "wrong": bad, "removed": len(removed[name])}
        rows.append((name, best[name], best[name] / best["datasketch"], found, len(removed[name]), bad))
    print(f"{len(texts):,} documents, {sum(map(len, texts)) / 1e6:.1f} million characters, {PLANTED} planted copies\n")
    print(table(("", "CPU s", "ratio", "found", "removed", "wrong"), rows))
    print(
        json.dumps(
            {
                "bench": "corpus",
                "ratio": round(best["windlass"] / best["datasketch"], 4),
                "against": "datasketch MinHashLSH, CPU of near-duplicate removal",
                "found": figures["windlass"]["found"],
                "wrong": figures["windlass"]["wrong"],
                "found_datasketch": figures["datasketch"]["found"],
                "wrong_datasketch": figures["datasketch"]["wrong"],
                "limit_ratio": round(best["limit"] / best["datasketch"], 4),
            }
        )
    )


if __name__ == "__main__":
    main()
