"""Retrieval quality on public collections: the default hybrid index against its parts and against plain FTS5.

Cranfield and CACM: nDCG@10 of documents. XQuAD: nDCG@10 of the paragraph an English question was written about, among
all English paragraphs. Chunking: share of the reference passages' characters that the five best passages hold, and the
same for fixed windows of equal mean length. The floor is FTS5 (porter) over whole documents, measured in the same
run. Intervals are paired, over the questions.

The collections are found through the environment variable WINDLASS_DATA, or in ../shared/data.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench._data import data_folder as public_data

from windlass.apply.rag.fusion import SearchSettings
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, write_documents
from windlass.core.protocols import Embedder
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.retrieval import judge, ndcg
from windlass.evaluate.statistics.paired import paired_difference


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


def corpus_of(ws: Workspace, documents: Sequence[Document], name: str) -> Artifact:
    with ws.artifacts.build("corpus", name) as draft:
        write_documents(draft.path / "documents.jsonl", documents)
    return draft.done


def opened(ws: Workspace, documents: Sequence[Document], name: str, embedder: Embedder) -> HybridIndex:
    index = build_index(ws, corpus_of(ws, documents, f"{name}-corpus"), embedder, name=name)
    return HybridIndex.open(index, embedder)


SETTINGS: dict[str, SearchSettings] = {
    "hybrid (default)": SearchSettings(),
    "hybrid, RRF": SearchSettings(fusion="rrf", dense=0.5),
    "dense only": SearchSettings(dense=1.0),
    "BM25 only": SearchSettings(dense=0.0),
}


def chunking(ws: Workspace, folder: Path, embedder: Embedder) -> dict[str, float]:
    """Share of the references' characters in the five best passages: ours, and fixed windows of equal mean length."""
    pages = {
        p.name.removesuffix(".md.gz"): read(p) for p in sorted((folder / "chunking_eval" / "corpora").glob("*.gz"))
    }
    rows = list(csv.DictReader(read(folder / "chunking_eval" / "questions.csv.gz").splitlines(keepends=True)))
    rows = [row for row in rows if row["corpus_id"] in pages]
    ours = opened(
        ws, [Document(name, name, name, text, "markdown") for name, text in pages.items()], "chunks", embedder
    )
    width = round(sum(len(text) for text in pages.values()) / len(ours))
    windows = [
        Document(f"{name}:{at}", name, name, text[at : at + width], metadata={"page": name, "at": at})
        for name, text in pages.items()
        for at in range(0, len(text), width)
    ]
    fixed = opened(ws, windows, "windows", embedder)
    vectors = ours.embed([row["question"] for row in rows]).vectors

    def recall(index: HybridIndex, at: Callable[[str, int], tuple[str, int]]) -> float:
        shares = []
        for row, hits in zip(rows, index.search_many([r["question"] for r in rows], 5, vectors=vectors)):
            held: set[int] = set()
            for hit in hits:
                page, offset = at(hit.citation.document, hit.citation.start)
                if page == row["corpus_id"]:
                    held.update(range(offset, offset + hit.citation.end - hit.citation.start))
            wanted = {i for r in json.loads(row["references"]) for i in range(r["start_index"], r["end_index"])}
            shares.append(len(wanted & held) / len(wanted))
        return float(np.mean(shares))

    return {
        "ours": recall(ours, lambda document, start: (document, start)),
        "fixed": recall(fixed, lambda document, start: (document.split(":")[0], int(document.split(":")[1]) + start)),
        "questions": len(rows),
        "width": width,
    }


COLLECTIONS = ("cranfield", "xquad", "chunking", "cacm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COLLECTIONS, default=COLLECTIONS, help="default: all")
    parser.add_argument("--workspace", type=Path, help="keep indexes and vectors here (default: a temporary folder)")
    arguments = parser.parse_args()
    folder = data_folder()
    if not (folder / "cranfield").is_dir():
        print(f"skipped: no collections in {folder}; set WINDLASS_DATA", file=sys.stderr)
        print(json.dumps({"bench": "retrieval", "ratio": None, "against": "FTS5 porter", "skipped": "no data"}))
        return 0
    from windlass.serve.encoders.embedder import MiniLM

    embedder = MiniLM.load()
    result: dict[str, Any] = {
        "bench": "retrieval",
        "ratio": None,
        "against": "FTS5 porter over whole documents, Cranfield",
    }
    with tempfile.TemporaryDirectory() as temporary, Workspace(arguments.workspace or Path(temporary)) as ws:
        for name, load in (("cranfield", cranfield), ("xquad", xquad), ("cacm", cacm)):
            if name not in arguments.only:
                continue
            collection = load(folder)
            index = opened(ws, collection.documents, name, embedder)
            vectors = index.embed(collection.questions).vectors
            scores = {"FTS5 porter": ndcg(judge(floor(collection, 10), collection.relevances), 10)}
            for label, settings in SETTINGS.items():
                rankings = documents_ranked(index.with_settings(settings), collection.questions, 10, vectors)
                scores[label] = ndcg(judge(rankings, collection.relevances), 10)
            sizes = (
                f"{len(collection.documents)} documents, {len(index)} passages, {len(collection.questions)} questions"
            )
            print(f"\n{name}: {sizes}")
            ours = scores["hybrid (default)"]
            for label, values in scores.items():
                gain = "" if values is ours else f"  default is {paired_difference(values, ours).difference} better"
                print(f"  {label:<20} nDCG@10 {values.mean():.3f}{gain}")
            result[name] = {label: round(float(values.mean()), 4) for label, values in scores.items()}
            if name == "cranfield":
                result["ratio"] = round(float(ours.mean() / scores["FTS5 porter"].mean()), 4)
        if "chunking" in arguments.only:
            found = chunking(ws, folder, embedder)
            print(f"\nchunking: {found['questions']} questions, recall of reference characters in 5 passages")
            print(
                f"  structure-aware      {found['ours']:.3f}\n  fixed {found['width']} characters {found['fixed']:.3f}"
            )
            result["chunking"] = {key: round(value, 4) for key, value in found.items()}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
