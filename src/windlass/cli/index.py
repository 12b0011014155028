"""Makes a searchable index of a corpus, and searches one.

windlass index build CORPUS            hybrid index (meaning and words) of its documents
windlass index search INDEX "query"    the best passages, as a table
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict

from windlass.cli.workspace import add_option, opened


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|search")
    build = actions.add_parser("build", help="index the documents of a corpus")
    build.add_argument("corpus", help="name, name@version or digest of the corpus")
    build.add_argument("--exam", help="a dataset whose own sentences are kept out of the index")
    build.add_argument("--kinds", nargs="+", metavar="KIND", help="only documents of these kinds; default: all")
    build.add_argument("--name", default="index", help="name of the artifact (default: index)")
    add_option(build)
    search = actions.add_parser("search", help="search an index")
    search.add_argument("index", help="name, name@version or digest of the index")
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="how many passages (default: 10)")
    search.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only documents with this metadata")
    search.add_argument("--json", action="store_true", help="print the hits as JSON, passages in full")
    add_option(search)


def run(args: argparse.Namespace) -> int:
    return _build(args) if args.action == "build" else _search(args)


def _build(args: argparse.Namespace) -> int:
    from windlass.apply.rag.index import build_index
    from windlass.serve.encoders.embedder import MiniLM

    with opened(args) as ws:
        corpus = ws.artifacts.get(args.corpus)
        exam = ws.artifacts.get(args.exam) if args.exam else None
        index = build_index(ws, corpus, MiniLM.load(), exam=exam, name=args.name, kinds=args.kinds)
        print(f"{index.ref} · {index.digest[:12]}\n")
        for key, value in index.card.items():
            print(f"  {key.replace('_', ' '):<42}{value:>14,}")
        print(f'\nNext: windlass index search {index.record.name} "..."')
    return 0


def _search(args: argparse.Namespace) -> int:
    from windlass.apply.rag.search import HybridIndex
    from windlass.core.errors import InputError
    from windlass.core.tables import table
    from windlass.loop.lineage import shortened
    from windlass.serve.encoders.embedder import MiniLM

    where: dict[str, list[str]] = {}
    for pair in args.where:
        key, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"--where takes KEY=VALUE, not '{pair}'.")
        where.setdefault(key, []).append(value)
    with opened(args) as ws:
        artifact = ws.artifacts.get(args.index)
        adapter = next((digest for role, digest in artifact.record.parents if role == "adapter"), None)
        index = HybridIndex.open(artifact, MiniLM.load(), None if adapter is None else ws.artifacts.get(adapter))
        started = time.perf_counter()
        hits = index.search(args.query, args.k, where or None)
        took = time.perf_counter() - started
        index.close()
    if args.json:
        print(json.dumps([asdict(hit) for hit in hits], ensure_ascii=False, indent=2))
        return 0
    rows = [
        [
            str(number),
            f"{hit.score:.3f}",
            f"{hit.parts['dense']:.3f}",
            f"{hit.parts['bm25']:.1f}",
            shortened(hit.citation.document, 40),
            f"{hit.citation.start}-{hit.citation.end}",
            shortened(hit.citation.quote, 70),
        ]
        for number, hit in enumerate(hits, start=1)
    ]
    print(table(["", "score", "dense", "bm25", "document", "characters", "passage"], rows, right=(0, 1, 2, 3)))
    print(f"\n{len(hits)} of {len(index):,} passages, {took * 1000:.0f} ms")
    return 0
