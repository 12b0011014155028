"""A workspace as a day of use leaves it, made through the public API, for the studio's tests and screenshots."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.testclient import TestClient

from windlass.apply.rag.answers.showing import sources
from windlass.core.artifacts import Artifact
from windlass.core.documents import Document, Section, write_documents
from windlass.core.protocols import ChatModel
from windlass.core.records import MetricPoint, ReleaseRecord, RunRecord, ScoreRecord, SpanRecord
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Citation, Message, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem
from windlass.evaluate.exam.outcomes import Outcome
from windlass.evaluate.exam.results import results
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.stored import to_json
from windlass.evaluate.gate import non_inferiority
from windlass.evaluate.policy import Policy

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">{{ 7*7 }}'\"&"

_TEXTS = {
    "python:lists": (
        "Lists",
        ["Lists are mutable sequences, typically used to store collections of homogeneous items.",
         "The method sort() sorts the list in place, using only < comparisons between items.",
         "To get a sorted copy and keep the list as it was, call the built-in sorted() instead."],
    ),
    "python:with": (
        "The with statement",
        ["The with statement is used to wrap the execution of a block with methods defined by a context manager.",
         "The context manager's __exit__() method is invoked also when the block raises an exception.",
         "With more than one item, the context managers are processed as if statements were nested."],
    ),
    "python:json.dumps": (
        "json.dumps",
        ["Serialize obj to a JSON formatted str.",
         "If indent is a non-negative integer, array elements and object members are printed with that indent level.",
         "If sort_keys is true, the output of dictionaries is sorted by key."],
    ),
    "python:exceptions": (
        "Exceptions",
        ["Exceptions are a means of breaking out of the normal flow of control of a code block.",
         "An exception is raised at the point where the error is detected.",
         "It may be handled by the surrounding code block or by any code block that invoked it."],
    ),
}  # fmt: skip

QUESTIONS = [
    "How do I sort a list without changing it?",
    "What happens in __exit__ when the block raises?",
    "How can I print JSON with an indent?",
    "Where is an exception handled?",
    "Can one with statement hold two context managers?",
    "What are lists used for?",
]


@dataclass(frozen=True)
class Seeded:
    """Ids of what the tests follow."""

    corpus: Artifact
    variant: Artifact
    candidate: Artifact
    experiment: Artifact
    refused: Artifact
    run: str
    running: str
    traces: list[str]
    broken: str
    hostile: str


@dataclass(frozen=True)
class Site:
    """A seeded workspace with its pages, without a socket."""

    ws: Workspace
    seeded: Seeded
    models: Mapping[str, ChatModel]
    client: TestClient


@dataclass(frozen=True)
class Live:
    """The same pages behind a real socket, for the browser."""

    ws: Workspace
    seeded: Seeded
    origin: str


class Quoting:
    """A stand-in for the grounded assistant: quotes the passage that shares most words with the question."""

    name = "assistant"

    def __init__(self, ws: Workspace, variant: Artifact, documents: list[Document]) -> None:
        self.digest: str | None = variant.digest
        self._ws = ws
        self._documents = documents

    def complete(self, request: ChatRequest) -> ChatResponse:
        question = request.messages[-1].text
        words = set(question.lower().strip("?").split()) - {"a", "the", "i", "do", "how", "what", "is", "it", "in"}
        with self._ws.recorder.span("assistant", "invoke_workflow") as root:
            root.input = [{"role": "user", "content": question}]
            root["windlass.variant.digest"] = self.digest
            with self._ws.recorder.span("embed", "embeddings") as span:
                span["gen_ai.usage.input_tokens"] = len(question.split())
                span["gen_ai.usage.output_tokens"] = 0
                span["windlass.cost.usd"] = 0.0
                time.sleep(0.002)
            with self._ws.recorder.span("retrieve", "retrieval") as span:
                span.input = {"query": question, "k": 3}
                found = sorted(
                    ((len(words & set(line.lower().split())), d, line) for d in self._documents
                     for line in d.text.split("\n") if len(line) > 30), key=lambda f: -f[0],
                )[:2]  # fmt: skip
                span.output = [{"document": d.id, "score": n} for n, d, _ in found]
                time.sleep(0.004)
            cited = [_citation(d, line) for n, d, line in found if n > 0]
            text = "\n\n".join(f"“{c.quote}” [{i}]" for i, c in enumerate(cited, 1))
            text += f"\n\n{sources(cited)}" if cited else ""
            message = Message("assistant", text or "The documents hold no answer to this question.")
            root.output = {"answer": message.text, "citations": [asdict(c) for c in cited]}
            trace = root.trace_id
        usage = Usage(input=len(question.split()), output=0)
        return ChatResponse(
            f"chatcmpl-{trace[:8]}", self.name, message, "stop", usage, 0.0, cited, abstained=not cited, trace_id=trace
        )

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        response = self.complete(request)
        for word in response.message.text.split(" "):
            yield ChatDelta(word + " ")
        yield ChatDelta("", response)


def _citation(document: Document, line: str) -> Citation:
    start = document.text.index(line)
    heading = max((s for s in document.sections if s.start <= start), key=lambda s: s.start).heading
    return Citation(document.id, document.title, heading, start, start + len(line), line, document.source)


def documents() -> list[Document]:
    made = []
    for identifier, (title, lines) in _TEXTS.items():
        text, sections = f"{title}\n\n", [Section(0, 1, title)]
        for number, line in enumerate(lines, 1):
            sections.append(Section(len(text), 2, f"{title}, part {number}"))
            text += f"Part {number}\n{line}\n\n" + "Further remarks follow here, of less weight. " * 12 + "\n\n"
        made.append(Document(identifier, identifier, title, text, "rst", tuple(sections), {"split": "train"}))
    long = "\n".join(f"Line {n} of a long text that needs more than one page." for n in range(4000))
    made.append(Document("guide/long.md", "guide/long.md", "A long text", long, "markdown", (Section(0, 1, "Start"),)))
    made.append(Document(f"x/{HOSTILE}", HOSTILE, HOSTILE, f"{HOSTILE}\n\nThe end.", "text", (Section(0, 1, HOSTILE),)))
    return made


def seed(ws: Workspace, *, traces: int = 60, now: float | None = None) -> tuple[Seeded, Mapping[str, ChatModel]]:
    """Fills the workspace; the models returned answer from its documents."""
    chance = random.Random(7)
    now = time.time() if now is None else now
    texts = documents()
    with ws.artifacts.build("corpus", "corpus") as draft:
        write_documents(draft.path / "documents.jsonl", texts)
        (draft.path / "README.md").write_text("# Corpus\n\nThe language reference of Python, cleaned.\n")
        draft.card.update(licence="PSF-2.0", documents=len(texts), dropped={"duplicates": 12, "too short": 3})
    corpus = draft.done

    run, running = _runs(ws, chance, now)
    tokenizer = _make(
        ws, "tokenizer", "tokenizer", {"tokenizer.json": "{}"}, {"vocabulary": 4096}, [("corpus", corpus)]
    )
    lines = {"gzip -9": 2.16, "xz -9": 1.95, "5-gram": 1.88}
    card = {"licence": "Apache-2.0", "bits_per_byte": 1.62, "baselines": lines, "parameters": 3_407_872}
    _make(ws, "model", "python-3m", {"config.json": "{}", "README.md": f"# Model\n{HOSTILE}\n"}, card,
          [("corpus", corpus), ("tokenizer", tokenizer)], run)  # fmt: skip
    exam = _make(ws, "dataset", "exam", {"items.jsonl": "{}\n"}, {"items": 480}, [("corpus", corpus)])
    base = _make(ws, "index", "index", {"index.json": "{}"}, {"passages": 5120}, [("corpus", corpus), ("exam", exam)])
    variant = _make(ws, "variant", "assistant", {"variant.json": '{"v": 1}'}, {"task": "assistant"}, [("index", base)])
    harvest = _make(ws, "dataset", "harvest", {"items.jsonl": '{"a":1}\n'}, {"items": 130}, [("exam", exam)])
    adapter = _make(ws, "adapter", "adapter", {"adapter_config.json": "{}"}, {"rank": 16}, [("dataset", harvest)])
    better = _make(ws, "index", "index", {"index.json": "{ }"}, {"passages": 5120},
                   [("corpus", corpus), ("exam", exam), ("adapter", adapter)])  # fmt: skip
    candidate = _make(ws, "variant", "assistant", {"variant.json": '{"v": 2}'}, {"task": "assistant"},
                      [("index", better), ("adapter", adapter)])  # fmt: skip
    worse = _make(ws, "variant", "assistant", {"variant.json": '{"v": 3}'}, {"task": "assistant"}, [("index", base)])
    experiment = _experiment(ws, chance, exam, variant, candidate, (0.5, 0.78))
    refused = _experiment(ws, chance, exam, candidate, worse, (0.7, 0.45))
    for number, (chosen, previous, proof, reason) in enumerate((
        (variant, None, None, "First release: nothing was live before."),
        (candidate, variant, experiment, "ndcg@10 changes by +0.0871, 95 % interval +0.0610 to +0.1132."),
    )):  # fmt: skip
        ws.store.add_release(
            ReleaseRecord(
                0, "assistant", chosen.digest, None, "promote", reason, proof.digest if proof else None,
                now - 7200 + 3600 * number,
            ),
            expected=previous.digest if previous else None,
        )  # fmt: skip
    ids = _traces(ws, chance, now, traces, candidate, better, texts)
    broken, hostile = _odd_traces(ws, now)
    seeded = Seeded(corpus, variant, candidate, experiment, refused, run, running, ids, broken, hostile)
    return seeded, {"assistant": Quoting(ws, candidate, texts)}


def _make(
    ws: Workspace, kind: str, name: str, files: dict[str, str], card: dict[str, Any],
    parents: list[tuple[str, Artifact]], run: str | None = None,
) -> Artifact:  # fmt: skip
    with ws.artifacts.build(kind, name, run=run) as draft:
        for path, text in files.items():
            (draft.path / path).write_text(text)
        draft.card.update(card)
        for role, parent in parents:
            draft.add_parent(role, parent)
    return draft.done


def _runs(ws: Workspace, chance: random.Random, now: float) -> tuple[str, str]:
    environment = {"windlass": "0.1.0", "python": "3.11.2", "cpus": 2, "packages": {"torch": "2.13.0"}}
    plan = (
        ("pretrain-1", "python-3m", "done", 5400.0, 600, ""),
        ("pretrain-2", "python-5m", "running", 60.0, 140, ""),
        ("adapt-1", "adapter", "failed", 9000.0, 40, "InputError: items.jsonl, row 17: no such document."),
        ("pretrain-0", "python-1m", "interrupted", 20000.0, 0, "stopped by the user"),
    )
    for identifier, name, status, age, steps, message in plan:
        kind = "adamw" if status == "running" else "muon"
        started = now - age
        config = {"depth": 6, "optimizer": {"name": kind, "lr": 0.02}, "sequence": 512, "batch": 32}
        record = RunRecord(identifier, identifier.split("-")[0], name, "running", started, None, config, environment, 7)
        ws.store.add_run(record)
        points = []
        for step in range(0, steps, 2):
            at = started + step * 0.3
            loss = 1.9 + 7.0 * math.exp(-step / 40) + 1.2 * math.exp(-step / 300) + chance.gauss(0, 0.05)
            points += [
                MetricPoint(step, "train_loss", loss, at),
                MetricPoint(step, "tokens", (step + 1) * 16_384, at),
                MetricPoint(step, "tokens_per_s", 9000 + chance.gauss(0, 300), at),
            ]
            points.append(MetricPoint(step, "lr", 0.02 * min(1, step / 60) * (1 - step / 700), at))
            if step % 20 == 0:
                points.append(MetricPoint(step, "heldout_bits_per_byte", loss / 2.1 + 0.35, at))
                points.append(MetricPoint(step, "heldout_loss", loss + 0.1, at))
        ws.store.add_metrics(identifier, points)
        if status != "running":
            ws.store.end_run(identifier, status, started + 200, message)  # type: ignore[arg-type]
    return "pretrain-1", "pretrain-2"


def _experiment(
    ws: Workspace, chance: random.Random, exam: Artifact, old: Artifact, new: Artifact, found: tuple[float, float]
) -> Artifact:
    """A comparison over 240 questions; `found` is how often each variant has the right document on top."""
    items, sides = [], ([], [])  # type: tuple[list[ExamItem], tuple[list[Outcome], list[Outcome]]]
    for number in range(240):
        document = None if number % 6 == 0 else "python:lists"
        question = QUESTIONS[number % len(QUESTIONS)]
        items.append(
            ExamItem(f"q{number}", question, document, "test", f"c{number // 4}", "python:lists", 0, 9, "", "doc")
        )
        for side, share in zip(sides, found, strict=True):
            rank = 0 if document is None else 1 if chance.random() < share else chance.choice([0, 2, 3, 5, 9])
            abstained = chance.random() < (0.8 if document is None else 0.05)
            side.append(Outcome(rank, abstained, chance.random(), chance.lognormvariate(2.2, 0.3)))
    before, after = (
        results(items, side, variant=variant.ref, dataset=exam.digest, digest=variant.digest)
        for side, variant in zip(sides, (old, new), strict=True)
    )
    experiment = compare(before, after, Policy("ndcg@10", guards={"right_decision": non_inferiority(0.1)}))
    parents = [("dataset", exam), ("incumbent", old), ("candidate", new)]
    files = {"experiment.json": json.dumps(to_json(experiment))}
    return _make(ws, "experiment", "assistant-turn", files, {"verdict": experiment.verdict.decision}, parents)


def _traces(
    ws: Workspace,
    chance: random.Random,
    now: float,
    count: int,
    variant: Artifact,
    index: Artifact,
    texts: list[Document],
) -> list[str]:
    ids = []
    for number in range(count):
        trace = f"{chance.getrandbits(128):032x}"
        begin = int((now - 20 - number * 97) * 1e9)
        question = QUESTIONS[number % len(QUESTIONS)]
        document = texts[number % 4]
        line = document.text.split("\n")[3]
        citation = _citation(document, line)
        digests = {"windlass.variant.digest": variant.digest, "windlass.index.digest": index.digest}
        length = int(chance.lognormvariate(2.6, 0.5) * 1e6)

        def span(
            key: int, parent: int | None, name: str, operation: str, low: float, high: float,
            attributes: dict[str, Any],
            held: tuple[Any, Any] = (None, None), *, trace: str = trace, begin: int = begin, length: int = length,
        ) -> SpanRecord:  # fmt: skip
            return SpanRecord(
                trace, f"{key:016x}", None if parent is None else f"{parent:016x}", name, operation,
                begin + int(low * length), begin + int(high * length), "ok", None, attributes, *held,
            )  # fmt: skip

        asked = [{"role": "user", "content": question}]
        answer = {"answer": f"{line} [1]", "citations": [asdict(citation)]}
        usage = {"gen_ai.usage.input_tokens": 9 + number % 5, "gen_ai.usage.output_tokens": 0, "windlass.cost.usd": 0.0}
        spans = [
            span(1, None, "assistant", "invoke_workflow", 0, 1, digests, (asked, answer)),
            span(2, 1, "embed", "embeddings", 0.02, 0.55, {"gen_ai.request.model": "all-MiniLM-L6-v2", **usage}),
            span(3, 1, "retrieve", "retrieval", 0.56, 0.82, {"windlass.retrieval.k": 8, **digests},
                 ({"query": question}, [{"document": citation.document, "score": 0.83}])),
            span(4, 3, "bm25", "retrieval", 0.57, 0.68, {}),
            span(5, 3, "dense", "retrieval", 0.68, 0.81, {}),
        ]  # fmt: skip
        if number % 3 == 0:
            priced = {"gen_ai.request.model": "qwen3:4b", "gen_ai.usage.input_tokens": 812,
                      "gen_ai.usage.output_tokens": 64,
                      "windlass.cost.usd": None if number % 2 else 0.00031}  # fmt: skip
            messages = [
                {"role": "system", "content": "Answer from the passages alone."},
                {"role": "user", "content": question},
            ]
            spans.append(span(6, 1, "generate", "chat", 0.83, 0.99, priced, (messages, {"text": line})))
        ws.store.add_spans(spans)
        ids.append(trace)
        if number % 2 == 0:
            value = float(chance.random() < 0.8)
            ws.store.add_score(
                ScoreRecord(
                    f"s{number}", trace, "feedback", value, "user", "studio", now - number, "" if value else "Off."
                )
            )
    return ids


def _odd_traces(ws: Workspace, now: float) -> tuple[str, str]:
    broken, hostile = "b" * 32, "c" * 32
    begin = int((now - 3) * 1e9)
    error = "ProviderError: http://127.0.0.1:11434/v1 answered 503."
    ws.store.add_spans([
        SpanRecord(broken, "1" * 16, None, "assistant", "invoke_workflow", begin, begin + 90_000_000, "error", error,
                   {}, [{"role": "user", "content": "Does the endpoint answer?"}], None),
        SpanRecord(broken, "2" * 16, "1" * 16, "generate", "chat", begin + 4_000_000, begin + 89_000_000, "error",
                   error, {"gen_ai.usage.input_tokens": 700, "windlass.cost.usd": None}),
        SpanRecord(hostile, "3" * 16, None, HOSTILE, HOSTILE, begin, begin + 5_000_000, "error", HOSTILE,
                   {HOSTILE: HOSTILE, "windlass.x.digest": HOSTILE}, HOSTILE,
                   {"text": HOSTILE, "citations": [{"document": f"x/{HOSTILE}", "title": HOSTILE, "heading": HOSTILE,
                                                    "start": 0, "end": len(HOSTILE), "quote": HOSTILE}]}),
    ])  # fmt: skip
    ws.store.add_score(
        ScoreRecord("h", hostile, HOSTILE, 0.5, "judge", HOSTILE, now, HOSTILE, None, {HOSTILE: HOSTILE})
    )
    ws.store.add_score(ScoreRecord("e", hostile, "faithful", None, "judge", "judge", now, "", "the judge timed out"))
    return broken, hostile
