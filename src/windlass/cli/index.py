"""Indexes: makes one of a corpus, searches it, and looks after the living ones that `windlass ingest` makes.

windlass index build CORPUS            hybrid index (meaning and words) of its documents
windlass index search INDEX "query"    the best passages, as a table
windlass index list                    living indexes, the one ingested into last first
windlass index show NAME               what it holds, by which embedder, and from where
windlass index ann NAME                lets searches look at a few of very many vectors: faster, approximate
windlass index snapshot NAME           freezes it as an artifact of the same name
windlass index delete NAME             removes it; its documents stay where they are
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from windlass.cli.filters import add_options, where
from windlass.cli.workspace import add_option, opened

if TYPE_CHECKING:
    from windlass.apply.rag.indexes.embedded.cells import Made


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|search|list|show|ann|snapshot|delete")
    build = actions.add_parser("build", help="index the documents of a corpus")
    build.add_argument("corpus", help="name, name@version or digest of the corpus")
    build.add_argument("--exam", help="a dataset whose own sentences are kept out of the index")
    build.add_argument("--kinds", nargs="+", metavar="KIND", help="only documents of these kinds; default: all")
    build.add_argument("--name", default="index", help="name of the artifact (default: index)")
    build.add_argument("--chunks", metavar="KIND[:SETTING=VALUE,…]", help="how documents are cut (default: structure)")
    build.add_argument(
        "--quantised", choices=("int8", "binary"), default="", help="choose candidates by smaller vectors: for millions"
    )
    add_option(build)
    search = actions.add_parser("search", help="search an index")
    search.add_argument("index", help="a living index, or name, name@version or digest of an artifact")
    search.add_argument("query")
    search.add_argument("-k", type=int, default=10, help="how many passages (default: 10)")
    add_options(search)
    search.add_argument("--json", action="store_true", help="print the hits as JSON, passages in full")
    add_option(search)
    add_option(actions.add_parser("list", help="the living indexes"))
    for action, does in (("show", "what a living index holds"), ("delete", "remove a living index")):
        one = actions.add_parser(action, help=does)
        one.add_argument("name")
        add_option(one)
    ann = actions.add_parser("ann", help="a cache that lets searches look at a few of very many vectors")
    ann.add_argument("name")
    ann.add_argument(
        "--recall", type=float, default=0.98, help="of the ten nearest, how many are to be found (default: 0.98)"
    )
    ann.add_argument("--off", action="store_true", help="remove it: every vector is looked at again")
    add_option(ann)
    snapshot = actions.add_parser("snapshot", help="freeze a living index as an artifact")
    snapshot.add_argument("name")
    snapshot.add_argument("--to", metavar="NAME", help="name of the artifact (default: that of the index)")
    add_option(snapshot)


def run(args: argparse.Namespace) -> int:
    does = {
        "build": _build, "search": _search, "list": _list, "show": _show, "ann": _ann, "snapshot": _snapshot,
        "delete": _delete,
    }  # fmt: skip
    return does[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from windlass.apply.rag.index import build_index
    from windlass.core.errors import InputError
    from windlass.loop.ingesting import chunk_settings
    from windlass.serve.encoders.embedder import MiniLM

    settings = chunk_settings(args.chunks or "structure")
    if settings.written:
        raise InputError("Contexts are written by `windlass ingest`.", "Run it with --chunks contextual and --budget.")
    with opened(args) as ws:
        corpus = ws.artifacts.get(args.corpus)
        exam = ws.artifacts.get(args.exam) if args.exam else None
        wishes = {"exam": exam, "name": args.name, "kinds": args.kinds, "quantised": args.quantised}
        index = build_index(ws, corpus, MiniLM.load(), settings=settings, **wishes)
        print(f"{index.ref} · {index.digest[:12]}\n")
        for key, value in index.card.items():
            print(f"  {key.replace('_', ' '):<42}{value:>14,}")
        print(f'\nNext: windlass index search {index.record.name} "..."')
    return 0


def _search(args: argparse.Namespace) -> int:
    from windlass.core.tables import table
    from windlass.loop.assistants.assemble import open_named
    from windlass.loop.text import shortened

    with opened(args) as ws:
        index = open_named(ws, args.index)
        started = time.perf_counter()
        hits = index.search(args.query, args.k, where(args), access=args.access)
        took, size = time.perf_counter() - started, len(index)
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
    print(f"\n{len(hits)} of {size:,} passages, {took * 1000:.0f} ms")
    return 0


def _list(args: argparse.Namespace) -> int:
    from windlass.core.tables import table
    from windlass.loop.embedders import called
    from windlass.loop.living import held
    from windlass.loop.text import ago, size

    with opened(args) as ws:
        found = held(ws)
    if not found:
        print("No living index: windlass ingest FOLDER makes one.")
        return 0
    rows = [
        [
            one.name,
            one.documents,
            one.passages,
            None if one.bytes is None else size(one.bytes),
            ago(one.ingested),
            called(one.settings.embedder),
            ", ".join(one.settings.roots),
            one.settings.where or "here",
        ]
        for one in found
    ]
    columns = ("name", "documents", "passages", "size", "last ingest", "embedder", "ingested from", "lies")
    print(table(columns, rows, right=(1, 2, 3)))
    faults = [one for one in found if one.fault]
    for one in faults:
        print(f"{one.name}: {one.fault}", file=sys.stderr)
    return int(bool(faults))


def _show(args: argparse.Namespace) -> int:
    from windlass.apply.rag.indexes.live import EmbeddedIndex
    from windlass.loop.living import open_living, settings_of
    from windlass.loop.text import counted

    with opened(args) as ws:
        index = open_living(ws, args.name)
        settings = settings_of(ws, args.name)
        assert settings is not None, "it was opened by them"
        holds = f"{counted(len(index.held()), 'document')}, {counted(len(index), 'passage')}"
        print(f"{args.name}: {holds} · {index.digest[:12]}")
        print(f"embedder {index.embedder.name} ({index.embedder.digest[:12]}) · chunks {settings.chunks.kind}")
        if isinstance(index, EmbeddedIndex):
            made = index.cells
            print(f"vectors {index.meta.quantised or 'as they are'} · ann {_told(made) if made else 'off'}")
        index.close()
    for name, root in settings.roots.items():
        access = "; ".join(f"{pattern} for {', '.join(who) or 'everybody'}" for pattern, who in root.access.items())
        labels = " ".join(f"{key}={value}" for key, value in root.labels.items())
        print(f"  {name}  {labels}  {access}".rstrip())
    return 0


def _ann(args: argparse.Namespace) -> int:
    from windlass.core.progress import Progress
    from windlass.loop.living import open_embedded

    with opened(args) as ws, contextlib.closing(open_embedded(ws, args.name)) as index:
        if args.off:
            index.drop_cells()
            print(f"{args.name}: every vector is looked at.")
            return 0
        with Progress("cells", len(index), "vectors") as progress:
            made = index.make_cells(recall=args.recall, progress=progress)
        print(f"{args.name}: {_told(made)}")
    return 0


def _told(made: Made) -> str:
    looks = f"{made.looked / made.vectors:.1%} of them to find {made.recall:.1%} of the ten nearest"
    pays = made.pays(made.vectors)
    return (
        f"{made.cells:,} cells of {made.vectors:,} vectors, {made.bytes / 2**20:,.0f} MB; a search "
        f"{'looks' if pays else 'would look'} at {looks}{'' if pays else ': it looks at all, which is faster'}"
    )


def _snapshot(args: argparse.Namespace) -> int:
    from windlass.loop.living import open_living

    with opened(args) as ws:
        index = open_living(ws, args.name)
        made = index.snapshot(ws, args.to or args.name)
        index.close()
    print(f"{made.ref} · {made.digest[:12]}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    from windlass.loop.living import delete_living

    with opened(args) as ws:
        delete_living(ws, args.name)
    print(f"The index '{args.name}' is deleted. Its documents are where they were.")
    return 0
