"""Three turns of the windlass on real tasks, from a weak start, on traffic that is replayed with feedback.

    topic       which kind of answer a question asks for (TREC, six kinds); the start is the nearest of 60 examples
    tone        whether a sentence speaks well of a film (sentence polarity); the same start
    passages    which paragraph answers a question that people asked (AdversarialQA, Quoref, SciQ, QED); the start is a
                search by words (BM25)
    answers     whether to answer at all, and with which paragraph: the same, a third of the paragraphs withheld; the
                start answers always

Before each turn users send their next portion, see what is live answer it, and approve or correct. A turn makes what
candidates it can, lets them race, compares one and promotes it or not: all as `windlass turn` does it; rerankers and
other passages, which take minutes each, are left out here. After each turn what is live is measured on data that
neither users nor turns have touched, beside what was live at the start, item by item, with paired 95 % intervals. A
slip is a promotion after which this measurement is worse, its interval wholly below zero. Cost is processor time a
call.

    python -m bench.turn [--tasks topic tone passages answers] [--scale 0.2]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from bench._turn_tasks import cpu_ms, data, nearest, replay, rights, tone, topic
from bench.rerank import questions as public_questions
from bench.retrieval import Collection, corpus_of
from numpy.typing import NDArray

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.abstention import AbstentionRule
from windlass.apply.rag.answers.quoting import QuoteSettings
from windlass.apply.rag.index import build_index
from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.core.artifacts import Artifact
from windlass.core.files import write_json
from windlass.core.protocols import Embedder
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import ExamItem, load_items
from windlass.evaluate.exam.outcomes import METRICS, columns
from windlass.evaluate.exam.results import POLICY
from windlass.evaluate.exam.splits import SHARES
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.paired import PairedDifference, paired_difference
from windlass.loop.assistants.assemble import cached, load_assistant
from windlass.loop.assistants.measure import measure
from windlass.loop.assistants.variant import VariantSpec, make_variant
from windlass.loop.prompting.optimising import live_prompt
from windlass.loop.releasing.releases import promote
from windlass.loop.turning.flow import Turned
from windlass.loop.turning.spending import Limits
from windlass.loop.turning.turn import Plan, turn_assistant, turn_task
from windlass.loop.turning.users import simulate_users

TURNS = 3
UNUSED = 0.25
"""Share of a collection's questions that no exam holds."""


@dataclass(frozen=True)
class World:
    """A task with its traffic, and how it is measured."""

    ask: Callable[[int], None]
    """Users send portion number n, and say what they think of the answers."""
    turn: Callable[[int], Turned]
    measured: Callable[[], NDArray[np.float64]]
    """What is live, on each of the unused items."""
    clusters: Sequence[str]
    cost: Callable[[], float]
    """Processor milliseconds a call."""


@dataclass(frozen=True)
class Course:
    """How a task went."""

    task: str
    metric: str
    means: Sequence[float]
    """On unused items: at the start, and after each turn."""
    gains: Sequence[PairedDifference]
    """Over the start, after each turn."""
    promoted: Sequence[str]
    """What each turn promoted; empty: nothing."""
    slips: int
    cost: tuple[float, float]
    minutes: float


def course(name: str, metric: str, world: World) -> Course:
    began = time.monotonic()
    start = before = world.measured()
    first_cost = world.cost()
    means, gains, promoted, slips = [float(start.mean())], [], [], 0
    show(name, 0, means[0], None, "the start", first_cost)
    for number in range(TURNS):
        world.ask(number)
        turned = world.turn(number)
        after = world.measured()
        gains.append(paired_difference(start, after, world.clusters))
        slips += paired_difference(before, after, world.clusters).difference.high < 0
        means.append(float(after.mean()))
        promoted.append(winner(turned))
        show(name, number + 1, means[-1], gains[-1], promoted[-1] or f"nothing: {turned.page.verdict[:60]}", None)
        before = after
    cost = world.cost()
    print(f"{name}: {first_cost:.1f} ms of processor time a call before, {cost:.1f} now", flush=True)
    minutes = (time.monotonic() - began) / 60
    return Course(name, metric, means, gains, promoted, slips, (first_cost, cost), minutes)


def winner(turned: Turned) -> str:
    return turned.compared[-1].name if turned.promoted else ""


def show(name: str, turn: int, mean: float, gain: PairedDifference | None, what: str, cost: float | None) -> None:
    shown = (
        ""
        if gain is None
        else f"{gain.difference.estimate:+.4f} [{gain.difference.low:+.4f}, {gain.difference.high:+.4f}]"
    )
    print(f"{name:<9} turn {turn}  {mean:.4f}  {shown:<29} {what}", flush=True)


# typed tasks ----------------------------------------------------------------------------------------------------------


def typed(
    ws: Workspace, name: Literal["topic", "tone"], embedder: Embedder, scale: float, tell: Callable[[str], Any]
) -> World:
    sizes = [round(scale * count) for count in (500, 700, 1200)]
    found = data(name, 60, sizes, round(max(scale, 0.5) * 1000))
    function = {"topic": topic, "tone": tone}[name].using(model=nearest(found.known, embedder))
    live_prompt(ws, function.using(prompt=None))
    function = function.using(prompt=f"{name}:live")  # after the model: so that a release may name another one

    def turned(number: int) -> Turned:
        return turn_task(ws, function, Plan(Limits(minutes=20)), tell=tell)

    return World(
        lambda number: print(f"{name:<9} users: {replay(ws, function, found.traffic[number]):.3f} right", flush=True),
        turned,
        lambda: rights(ws, function, found.unused),
        [str(n) for n in range(len(found.unused))],
        lambda: cpu_ms(ws, function, found.unused[:100]),
    )


# assistants -----------------------------------------------------------------------------------------------------------


def exam_of(
    ws: Workspace, corpus: Artifact, collection: Collection, clusters: dict[str, str], withheld: frozenset[str]
) -> tuple[Artifact, list[ExamItem]]:
    """The collection's own questions as an exam, whole clusters in one split, and the questions that it leaves out."""
    items, unused = [], []
    for question, judged in zip(collection.questions, collection.relevances, strict=True):
        document = next(iter(judged))
        cluster = clusters[document]
        place = int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:6], "big") / 2**48
        split: Literal["harvest", "dev", "test"] = "harvest"
        if place >= UNUSED:
            rest = (place - UNUSED) / (1 - UNUSED)
            split = "harvest" if rest < SHARES["harvest"] else "dev" if rest < 0.55 else "test"
        digest = hashlib.sha256(f"{document}\n{question}".encode()).hexdigest()[:16]
        right = None if document in withheld else document
        item = ExamItem(digest, question, right, split, cluster, document, 0, 0, "", "")
        (unused if place < UNUSED else items).append(item)
    with ws.artifacts.build("dataset", "exam") as draft:
        draft.add_parent("corpus", corpus)
        with (draft.path / "items.jsonl").open("w", encoding="utf-8") as file:
            # People wrote them: there is no sentence of a document to be hidden.
            file.writelines(json.dumps({**asdict(item), "start": None, "end": None}) + "\n" for item in items)
        write_json(draft.path / "exam.json", {"settings": {}, "withheld": sorted(withheld)})
        draft.card = {"items": len(items)}
    return draft.done, unused


def assistant(
    ws: Workspace, name: Literal["passages", "answers"], embedder: Embedder, scale: float, tell: Callable[[str], Any]
) -> World:
    collection = public_questions(round(scale * 4000))
    clusters = {document.id: document.id for document in collection.documents}
    search = SearchSettings(dense=0.0)
    withheld: frozenset[str] = frozenset()
    if name == "passages":
        settings, policy = AssistantSettings(search=search), POLICY
    else:
        withheld = frozenset(document for number, document in enumerate(sorted(clusters)) if number % 3 == 2)
        settings = AssistantSettings(search=search, abstention=replace(AbstentionRule(), threshold=0.0))
        policy = Policy("right_outcome")
    corpus = corpus_of(ws, collection.documents, "corpus")
    exam, unused = exam_of(ws, corpus, collection, clusters, withheld)
    index = build_index(ws, corpus, embedder, exam=exam)
    spec = VariantSpec(settings=replace(settings, quotes=QuoteSettings(quotes=1, passages=1)))
    promote(ws, "assistant", make_variant(ws, spec, index), None, "the first")
    harvest = [item for item in load_items(exam, "harvest") if item.answerable]
    metric = METRICS[policy.primary]
    if policy.primary == "ndcg@10":
        unused = [item for item in unused if item.answerable]

    def opened() -> Any:
        return load_assistant(ws, embedder=cached(ws, embedder), recorder=Recorder(None), writes=False)

    def ask(number: int) -> None:
        portion = harvest[number::TURNS]
        live = load_assistant(ws, embedder=cached(ws, embedder), writes=False)
        live.index.embed([item.question for item in portion])
        said = simulate_users(ws, live, portion)
        print(f"{name:<9} users: {said.approved:,} approved, {said.corrected:,} corrected", flush=True)

    def measured() -> NDArray[np.float64]:
        return np.asarray(metric.values(columns(unused, measure(opened(), unused))))

    def cost() -> float:
        """Of finding, with the vector of the question made anew."""
        live = load_assistant(ws, embedder=embedder, recorder=Recorder(None), writes=False)
        asked = [item.question for item in unused[:60]]
        live.find(asked[0])
        began = time.process_time()
        for question in asked:
            live.find(question)
        return (time.process_time() - began) * 1000 / len(asked)

    only = ("weights", "ranks", "feedback", "adapter", *(["abstention"] if name == "answers" else []))

    def turned(number: int) -> Turned:
        plan = Plan(Limits(minutes=60), only=only)
        return turn_assistant(ws, plan=plan, policy=policy, embedder=embedder, tell=tell)

    return World(ask, turned, measured, [item.cluster for item in unused], cost)


# the whole ------------------------------------------------------------------------------------------------------------

TASKS: dict[str, tuple[str, Callable[..., World]]] = {
    "topic": ("share right", typed),
    "tone": ("share right", typed),
    "passages": ("nDCG@10", assistant),
    "answers": ("right outcome", assistant),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the traffic; 1: as reported")
    parser.add_argument("--tell", action="store_true", help="print what each turn does")
    arguments = parser.parse_args(argv)
    from windlass.serve.encoders.embedder import MiniLM

    embedder = MiniLM.load()
    done = []
    for name in arguments.tasks:
        metric, make = TASKS[name]
        with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
            tell = (lambda line: print(f"    {line}", file=sys.stderr)) if arguments.tell else lambda _: None
            done.append(course(name, metric, make(ws, name, embedder, arguments.scale, tell)))
    print()
    for one in done:
        last = one.gains[-1].difference
        path = " -> ".join(f"{mean:.3f}" for mean in one.means)
        print(
            f"{one.task:<9} {one.metric:<13} {path}  gain {last.estimate:+.3f} [{last.low:+.3f}, {last.high:+.3f}]  "
            f"promoted {', '.join(name or 'nothing' for name in one.promoted)}  "
            f"{one.cost[0]:.1f} -> {one.cost[1]:.1f} ms  {one.minutes:.1f} minutes"
        )
    ratios = [one.means[-1] / one.means[0] for one in done]
    result = {
        "bench": "turn",
        "ratio": round(math.prod(ratios) ** (1 / len(ratios)), 4),
        "against": "what was live before",
        "worst_low": round(min(one.gains[-1].difference.low for one in done), 4),
        "slips": sum(one.slips for one in done),
        "tasks": {
            one.task: {
                "metric": one.metric,
                "means": [round(mean, 4) for mean in one.means],
                "gains": [
                    [round(v, 4) for v in (g.difference.estimate, g.difference.low, g.difference.high)]
                    for g in one.gains
                ],
                "promoted": list(one.promoted),
                "cpu_ms": [round(value, 2) for value in one.cost],
            }
            for one in done
        },
    }
    print(json.dumps(result))
    return int(result["slips"] > 0)


if __name__ == "__main__":
    sys.exit(main())
