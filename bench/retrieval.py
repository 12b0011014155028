"""Retrieval quality on public collections: the default hybrid index against its parts and against plain FTS5.

Cranfield and CACM: nDCG@10 of documents. XQuAD: nDCG@10 of the paragraph an English question was written about, among
all English paragraphs, and among these and novels (`--novels`) or technical documents (`--technical`). Beside the
default search stands one that is reranked by feedback, which searches again with the best passages and their words
(`retrieve.feedback`), and with `--reranker` one that a model reranks (`python -m bench.rerank` trains one). The floor
is FTS5 (porter) over whole documents, measured in the same run. Intervals are paired, over the questions.

Chunking (`_chunking.py`): the share of the reference passages' characters that the best passages hold when a reader may
read so many tokens (`--tokens`), for each way of cutting. `--chunks` measures the other collections with another one.

The collections are found through the environment variable WINDLASS_DATA, or in ../shared/data.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench._chunking import chunking
from bench._data import data_folder as public_data

from windlass.apply.rag.chunking import RECIPES, ChunkSettings
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.retrieving import Helpers, RetrieveSettings, composed
from windlass.apply.rag.retrieving.mmr import stored
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, write_documents
from windlass.core.protocols import Embedder, Reranker
from windlass.core.readers.extracting import extracted
from windlass.core.readers.formats import format_of
from windlass.core.readers.report import ReadReport
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.retrieval import judge, ndcg
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.assistants.assemble import load_reranker
from windlass.loop.embedders import embedder_named


@dataclass(frozen=True)
class Collection:
    documents: Sequence[Document]
    questions: Sequence[str]
    relevances: Sequence[Mapping[str, float]]


def data_folder() -> Path:
    found = public_data()
    return found / "retrieval" if (found / "retrieval").is_dir() else found


def read(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read()


def _collection(
    documents: Sequence[Document], questions: Mapping[int, str], judged: Sequence[tuple[int, str]]
) -> Collection:
    relevances: dict[int, dict[str, float]] = {}
    known = {document.id for document in documents}
    for question, document in judged:
        if document in known and question in questions:
            relevances.setdefault(question, {})[document] = 1.0
    order = sorted(relevances)
    return Collection(documents, [questions[q] for q in order], [relevances[q] for q in order])


def cranfield(folder: Path) -> Collection:
    text = read(folder / "cranfield" / "cran.all.1400.xml.gz")
    documents = []
    for part in re.findall(r"<doc>(.*?)</doc>", text, re.DOTALL):
        number, title, body = (
            re.search(f"<{tag}>(.*?)</{tag}>", part, re.DOTALL)[1].strip()
            for tag in ("docno", "title", "text")  # type: ignore[index]
        )
        title = " ".join(title.split())
        if body:
            documents.append(Document(number, number, title, body))
    asked = re.findall(r"<title>(.*?)</title>", read(folder / "cranfield" / "cran.qry.xml.gz"), re.DOTALL)
    questions = {i: " ".join(q.split()) for i, q in enumerate(asked, start=1)}
    rows = [line.split() for line in (folder / "cranfield" / "cranqrel.trec.txt").read_text().splitlines() if line]
    return _collection(documents, questions, [(int(r[0]), r[2]) for r in rows if int(r[3]) > 0])


def cacm(folder: Path) -> Collection:
    def records(text: str) -> Iterator[tuple[str, dict[str, str]]]:
        for part in re.split(r"^\.I ", text, flags=re.MULTILINE)[1:]:
            number, _, rest = part.partition("\n")
            fields = re.split(r"^\.([A-Z])[ \t]*$", rest, flags=re.MULTILINE)
            yield number.strip(), {k: v.strip() for k, v in zip(fields[1::2], fields[2::2])}

    documents = []
    for number, fields in records(read(folder / "cacm" / "cacm.all.gz")):
        title = " ".join(fields.get("T", "").split())
        documents.append(Document(number, number, title, f"{title}\n\n{fields.get('W', '')}".strip()))
    asked = records((folder / "cacm" / "query.text").read_text())
    questions = {int(number): " ".join(fields["W"].split()) for number, fields in asked if fields.get("W")}
    rows = [line.split() for line in (folder / "cacm" / "qrels.text").read_text().splitlines() if line.strip()]
    return _collection(documents, questions, [(int(r[0]), str(int(r[1]))) for r in rows])


def xquad(folder: Path) -> Collection:
    data = json.loads(read(folder.parent / "qa" / "xquad" / "xquad.en.json.gz"))["data"]
    documents, questions, judged = [], {}, []
    for a, article in enumerate(data):
        for p, paragraph in enumerate(article["paragraphs"]):
            title = article.get("title", "").replace("_", " ")
            documents.append(Document(f"{a}-{p}", f"{a}-{p}", title if len(title) < 60 else "", paragraph["context"]))
            for qa in paragraph["qas"]:
                judged.append((len(questions), f"{a}-{p}"))
                questions[len(questions)] = qa["question"]
    return _collection(documents, questions, judged)


def novels(folder: Path, count: int | None) -> list[Document]:
    """The first novels of the data folder; None: all of them."""
    paths = sorted((folder.parent / "pretrain" / "novels").glob("*.txt.gz"))[:count]
    return [Document(path.name, path.name, path.name.partition(".")[0], read(path)) for path in paths]


def technical(folder: Path, count: int | None) -> list[Document]:
    """A random sample of the technical documents of the data folder; None: all of them."""
    paths = sorted((folder.parent / "pretrain" / "docs").glob("*.jsonl.gz"))
    pages = [(f"{path.name}/{row['path']}", row["text"]) for path in paths for row in map(json.loads, lines_of(path))]
    if count is not None:
        pages = random.Random(0).sample(pages, min(count, len(pages)))
    report = ReadReport()
    return [one for name, text in pages for one in extracted(text, name, format_of(name) or "text", report)]


def lines_of(path: Path) -> list[str]:
    return [line for line in read(path).split("\n") if line]


def among(folder: Path, others: Sequence[Document]) -> Collection:
    """XQuAD's questions and paragraphs among other documents, which answer none of them: a large collection of text
    that is not meant."""
    asked = xquad(folder)
    return Collection([*asked.documents, *others], asked.questions, asked.relevances)


def floor(collection: Collection, k: int) -> list[list[str]]:
    """FTS5 (porter) over whole documents, title and text, any word of the question."""
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE VIRTUAL TABLE d USING fts5(id UNINDEXED, text, tokenize='porter unicode61')")
        db.executemany("INSERT INTO d VALUES (?, ?)", ((d.id, f"{d.title}\n{d.text}") for d in collection.documents))
        rankings = []
        for question in collection.questions:
            match = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
            rows = db.execute("SELECT id FROM d WHERE d MATCH ? ORDER BY rank LIMIT ?", (match, k))
            rankings.append([row[0] for row in rows])
    db.close()
    return rankings


def documents_ranked(index: HybridIndex, questions: Sequence[str], k: int, vectors: Any = None) -> list[list[str]]:
    """Each document where its best passage stands."""
    found = (index.documents_of(ranked.rows) for ranked in index.rank_many(questions, 8 * k, vectors=vectors))
    return [list(dict.fromkeys(documents))[:k] for documents in found]


def documents_found(
    index: HybridIndex, questions: Sequence[str], k: int, vectors: Any, settings: RetrieveSettings,
    reranker: Reranker | None = None,
) -> list[list[str]]:  # fmt: skip
    """As `documents_ranked`, with further steps around the search."""
    helpers = Helpers(reranker=reranker, embedder=index.embedder, vectors=stored(index))
    search = composed(index, settings, helpers)
    found = [search.search(question, 8 * k, vector=vector) for question, vector in zip(questions, vectors, strict=True)]
    return [list(dict.fromkeys(hit.citation.document for hit in hits))[:k] for hits in found]


def corpus_of(ws: Workspace, documents: Sequence[Document], name: str) -> Artifact:
    with ws.artifacts.build("corpus", name) as draft:
        write_documents(draft.path / "documents.jsonl", documents)
    return draft.done


def opened(
    ws: Workspace, documents: Sequence[Document], name: str, embedder: Embedder, chunks: ChunkSettings | None = None
) -> HybridIndex:
    index = build_index(ws, corpus_of(ws, documents, f"{name}-corpus"), embedder, name=name, settings=chunks)
    return HybridIndex.open(index, embedder)


SETTINGS: dict[str, SearchSettings] = {
    "hybrid (default)": SearchSettings(),
    "hybrid, RRF": SearchSettings(fusion="rrf", dense=0.5),
    "dense only": SearchSettings(dense=1.0),
    "BM25 only": SearchSettings(dense=0.0),
}


def loaded(name: str, folder: Path, arguments: argparse.Namespace) -> Collection:
    if name == "xquad-novels":
        return among(folder, novels(folder, arguments.novels))
    if name == "xquad-technical":
        return among(folder, technical(folder, arguments.technical))
    return {"cranfield": cranfield, "cacm": cacm, "xquad": xquad}[name](folder)


def _most(text: str) -> int | None:
    """A number, or None for all."""
    return None if text == "all" else int(text)


COLLECTIONS = ("cranfield", "xquad", "chunking", "cacm", "xquad-novels", "xquad-technical")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COLLECTIONS, default=COLLECTIONS, help="default: all")
    parser.add_argument("--embedder", default="minilm", help="such as minilm:bfloat16 (default: minilm)")
    parser.add_argument("--reranker", help="the default search reranked too: a folder, or provider:model")
    parser.add_argument("--rerank-depth", type=int, default=20, help="passages that it reads (default: %(default)s)")
    parser.add_argument("--rerank-weight", type=float, default=1.0, help="of its scores (default: %(default)s)")
    parser.add_argument("--novels", type=_most, default=8, help="among which XQuAD is searched, or all (default: 8)")
    parser.add_argument("--technical", type=_most, default=150, help="documents, the same, or all (default: 150)")
    parser.add_argument("--workspace", type=Path, help="keep indexes and vectors here (default: a temporary folder)")
    parser.add_argument("--tokens", type=int, default=600, help="read for each question, of chunking (default: 600)")
    parser.add_argument(
        "--chunks", choices=RECIPES, default="structure", help="how documents are cut (default: structure)"
    )
    arguments = parser.parse_args()
    folder = data_folder()
    if not (folder / "cranfield").is_dir():
        print(f"skipped: no collections in {folder}; set WINDLASS_DATA", file=sys.stderr)
        print(json.dumps({"bench": "retrieval", "ratio": None, "against": "FTS5 porter", "skipped": "no data"}))
        return 0
    embedder = embedder_named(None, arguments.embedder)
    reranker = None if arguments.reranker is None else load_reranker(None, arguments.reranker)
    further = {"reranked by feedback": RetrieveSettings(feedback=2)}
    if reranker is not None:
        depth, weight = arguments.rerank_depth, arguments.rerank_weight
        reranked = RetrieveSettings(reranker=arguments.reranker, rerank_depth=depth, rerank_weight=weight)
        further |= {"reranked": reranked, "reranked by both": replace(reranked, feedback=2)}
    result: dict[str, Any] = {
        "bench": "retrieval",
        "ratio": None,
        "against": "FTS5 porter over whole documents, Cranfield",
    }
    with tempfile.TemporaryDirectory() as temporary, Workspace(arguments.workspace or Path(temporary)) as ws:
        for name in [one for one in COLLECTIONS if one in arguments.only and one != "chunking"]:
            collection = loaded(name, folder, arguments)
            index = opened(ws, collection.documents, name, embedder, RECIPES[arguments.chunks])
            vectors = index.embed(collection.questions).vectors
            scores = {"FTS5 porter": ndcg(judge(floor(collection, 10), collection.relevances), 10)}
            for label, settings in SETTINGS.items():
                rankings = documents_ranked(index.with_settings(settings), collection.questions, 10, vectors)
                scores[label] = ndcg(judge(rankings, collection.relevances), 10)
            for label, steps in further.items():
                rankings = documents_found(index, collection.questions, 10, vectors, steps, reranker)
                scores[label] = ndcg(judge(rankings, collection.relevances), 10)
            sizes = (
                f"{len(collection.documents)} documents, {len(index)} passages, {len(collection.questions)} questions"
            )
            print(f"\n{name}: {sizes}")
            ours = scores["hybrid (default)"]
            result[name] = {label: round(float(values.mean()), 4) for label, values in scores.items()}
            for label, values in scores.items():
                gain = "" if values is ours else f"  default is {paired_difference(values, ours).difference} better"
                if label in further:
                    more = paired_difference(ours, values).difference
                    gain = f"  {more} better than the default"
                    result[name][f"{label}, gain"] = [round(one, 4) for one in (more.estimate, more.low, more.high)]
                print(f"  {label:<20} nDCG@10 {values.mean():.3f}{gain}")
            if name == "cranfield":
                result["ratio"] = round(float(ours.mean() / scores["FTS5 porter"].mean()), 4)
        if "chunking" in arguments.only:
            result["chunking"] = chunking(
                lambda documents, chunks: opened(ws, documents, "chunks", embedder, chunks),
                folder / "chunking_eval",
                embedder,
                arguments.tokens,
            )
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
