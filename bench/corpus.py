"""Filtering and deduplication of a corpus: `windlass corpus` against datatrove, on the same text, in one run.

The text is public: novels, documentation, speeches and web pages (`bench/_corpus_text.py`), with planted copies whose
exact similarity to their original is known. Both read JSON lines, apply Gopher's quality and repetition rules, remove
near duplicates by MinHash over runs of five words (datatrove with its default bands), and write JSON lines; both with
the same number of processes that work (`--processes`; with 1 everything happens in one, with more windlass has another
one that only reads and writes). `found`: share of the planted pairs of 0.8 to 0.95 similarity of which one was removed.
`wrong`: share of those of 0.45 to 0.65 of which one was removed. The limit is reading, parsing and writing the rows.

Then the peak memory of windlass on ten times as much text, the most of any of its processes.

    python -m bench.corpus [--mb 100] [--processes 2] [--small 50 --large 500]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench._corpus_text import write_text

from windlass.core.tables import table


def windlass(text: Path, work: Path, processes: int, quality: str = "gopher") -> dict[str, Any]:
    from windlass.build.corpus import CorpusSettings, build_corpus, corpus_documents, corpus_report, engine
    from windlass.core.readers import Folder, RowFields
    from windlass.core.workspace import Workspace

    with Workspace(work / "home") as ws:
        started = time.perf_counter()
        settings = CorpusSettings(quality=quality, heldout=0.0)  # type: ignore[arg-type]
        source = Folder(text, fields=RowFields(id="id"))
        corpus = build_corpus(ws, source, settings, engine=engine("local", processes))
        seconds = time.perf_counter() - started
        documents = corpus_report(corpus)["stages"]["duplicates"]["documents_in"]
        kept = [document.id.partition("#")[2] for document in corpus_documents(corpus)] if quality == "gopher" else []
        lost = [json.loads(line) for line in (corpus.path / "dropped.jsonl").open(encoding="utf-8")]
    refused = [row["id"].partition("#")[2] for row in lost if row["stage"] != "duplicates"]
    return {"seconds": seconds, "kept": kept, "refused": refused if quality == "gopher" else [], "passed": documents}


def datatrove(text: Path, work: Path, processes: int) -> dict[str, Any]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64))
    sub = {name: str(work / name) for name in ("filtered", "signatures", "buckets", "removed", "out")}
    rows = lambda folder: JsonlReader(str(folder))  # noqa: E731
    write = lambda name: JsonlWriter(sub[name], compression=None)  # noqa: E731
    steps: tuple[tuple[int, list[Any]], ...] = (
        (processes, [rows(text), GopherRepetitionFilter(), GopherQualityFilter(), write("filtered")]),
        (processes, [rows(sub["filtered"]), MinhashDedupSignature(sub["signatures"], config)]),
        (config.num_buckets, [MinhashDedupBuckets(sub["signatures"], sub["buckets"], config=config)]),
        (1, [MinhashDedupCluster(sub["buckets"], sub["removed"], config=config)]),
        (processes, [rows(sub["filtered"]), MinhashDedupFilter(sub["removed"]), write("out")]),
    )
    started = time.perf_counter()
    for tasks, pipeline in steps:
        LocalPipelineExecutor(
            pipeline, tasks, min(processes, tasks), logging_dir=str(work / "logs" / str(id(pipeline)))
        ).run()
    seconds = time.perf_counter() - started
    ids = {
        name: [json.loads(line)["id"] for file in Path(sub[name]).glob("*.jsonl") for line in file.open()]
        for name in ("filtered", "out")
    }
    every = [json.loads(line)["id"] for file in text.glob("*.jsonl") for line in file.open()]
    refused = sorted(set(every) - set(ids["filtered"]))
    return {"seconds": seconds, "kept": ids["out"], "refused": refused, "passed": len(ids["filtered"])}


def limit(text: Path, work: Path, processes: int) -> dict[str, Any]:
    """Reading, parsing and writing in one process."""
    started = time.perf_counter()
    with (work / "out.jsonl").open("w", encoding="utf-8") as out:
        for file in sorted(text.glob("*.jsonl")):
            for line in file.open(encoding="utf-8"):
                out.write(json.dumps(json.loads(line), ensure_ascii=False) + "\n")
    return {"seconds": (time.perf_counter() - started) / processes, "kept": [], "refused": [], "passed": None}


def quality_off(text: Path, work: Path, processes: int) -> dict[str, Any]:
    return windlass(text, work, processes, "light")


RUNNERS: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {
    "windlass": windlass,
    "datatrove": datatrove,
    "limit": limit,
    "memory": quality_off,
}


def measured(runner: str, text: Path, folder: Path, processes: int) -> dict[str, Any]:
    """Runs in a process of its own and adds its `peak` memory (MB, the most of any of its processes)."""
    work = folder / f"work-{runner}"
    work.mkdir()
    command = [sys.executable, "-m", "bench.corpus", "--child", runner, str(text), str(work), str(processes)]
    environment = {**os.environ, "DATATROVE_COLORIZE_LOGS": "0"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("ab"), env=environment)
    found = json.loads((work / "found.json").read_text())
    shutil.rmtree(work)
    return dict(found)


def _written(text: Path, megabytes: float, files: int) -> float:
    """Writes the text; returns its MB. In a process of its own: a process inherits the peak memory of its parent."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(write_text, text, megabytes, files).result() / 1e6


def child(runner: str, text: Path, work: Path, processes: int) -> None:
    found = RUNNERS[runner](text, work, processes)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found["peak"] = max(usage.ru_maxrss for usage in usages) / 1e3
    (work / "found.json").write_text(json.dumps(found))


def share(found: dict[str, Any], kind: str, text: Path) -> float | None:
    """Of the planted pairs of a kind that passed the filters whole, those of which one was removed."""
    if not found["kept"]:
        return None
    kept, refused = set(found["kept"]), set(found["refused"])
    ids = (json.loads(line)["id"] for file in text.glob("*.jsonl") for line in file.open(encoding="utf-8"))
    pairs = [(id, id.partition("-of-")[2]) for id in ids if id.startswith(f"{kind}-of-")]
    passed = [pair for pair in pairs if not refused.intersection(pair)]
    return sum(not kept.issuperset(pair) for pair in passed) / len(passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=100.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--small", type=float, default=50.0)
    parser.add_argument("--large", type=float, default=500.0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        runner, text, work, processes = args.child
        child(runner, Path(text), Path(work), int(processes))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text"
        size = _written(text, args.mb, args.processes)
        found = {
            runner: measured(runner, text, folder, args.processes) for runner in ("windlass", "datatrove", "limit")
        }
        rows = []
        for runner, result in found.items():
            result["found"], result["wrong"] = share(result, "near", text), share(result, "far", text)
            speed = size / result["seconds"]
            documents = (result["passed"], len(result["kept"]) or None)
            rows.append((runner, speed, *documents, result["found"], result["wrong"], result["peak"]))
        print(f"{size:,.1f} MB of text, {args.processes} processes\n")
        print(table(("", "MB/s", "passed filters", "kept", "found", "wrong", "peak MB"), rows))
        shutil.rmtree(text)
        peaks = {}
        for megabytes in (args.small, args.large):
            _written(text, megabytes, 4)
            peaks[megabytes] = measured("memory", text, folder, args.processes)
            shutil.rmtree(text)
        print()
        print(
            table(
                ("MB of text", "peak MB", "MB/s"),
                [(size, row["peak"], size / row["seconds"]) for size, row in peaks.items()],
            )
        )
    ours, peer = found["windlass"], found["datatrove"]
    print(
        json.dumps(
            {
                "bench": "corpus",
                "ratio": round(peer["seconds"] / ours["seconds"], 3),
                "against": "datatrove, throughput of Gopher's filters and MinHash deduplication",
                "processes": args.processes,
                "mb": round(size, 1),
                "found": ours["found"],
                "found_datatrove": peer["found"],
                "wrong": ours["wrong"],
                "wrong_datatrove": peer["wrong"],
                "limit_ratio": round(peer["seconds"] / found["limit"]["seconds"], 3),
                "peak_ratio": round(peaks[args.large]["peak"] / peaks[args.small]["peak"], 3),
                "peak_mb": round(peaks[args.large]["peak"], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
