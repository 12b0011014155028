"""Queues as a week of labelling leaves them, for the studio's tests."""

from __future__ import annotations

from studio_seed import HOSTILE

from windlass.core.workspace import Workspace
from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.review.queue import Queue
from windlass.loop import reviewing

RIGHT = Criterion("right", "Is it right?", (Level("no", 0.0, "It is not."), Level("partly", 1.0), Level("yes", 2.0)))
KIND = Criterion("kind", "Is it kind?", (Level("rude", 0.0), Level("kind", 1.0)))


def seed_review(ws: Workspace) -> None:
    """`checked`: two criteria, labelled by two who differ; `blind`: pairs, half done; `untouched`: nobody began."""
    checked = Judge("checked", f"Look well. {HOSTILE}", inputs=("question", "answer"), criteria=(RIGHT, KIND))
    blind, untouched = (Judge(name, "Look well.", "pairwise") for name in ("blind", "untouched"))
    items = [
        Item(f"c{n}", {"question": f"How many are {n}? {HOSTILE}", "answer": f"{n}. {HOSTILE}"}) for n in range(12)
    ]
    pairs = [Item(f"b{n}", {"input": f"Say {n}.", "output_1": f"{n}!", "output_2": f"It is {n}."}) for n in range(6)]
    reviewing.add_queue(ws, Queue(checked, items, source=HOSTILE))
    reviewing.add_queue(ws, Queue(blind, pairs, systems=("prompt@1", "prompt@2")))
    reviewing.add_queue(ws, Queue(untouched, pairs))
    one = reviewing.open_queue(ws, "checked")
    for author, off in (("Ann Lee", 0), (f"Bo {HOSTILE[:40]}", 1)):
        for number, item in enumerate(one.queue.items[: 12 - 2 * off]):
            levels = {"right": float((number + off * (number % 4 == 0)) % 3), "kind": float(number % 2)}
            reviewing.label(ws, one, item, author, levels, comment=HOSTILE if number == 4 else "")
    two = reviewing.open_queue(ws, "blind")
    for item in two.queue.items[:3]:
        reviewing.label(ws, two, item, "Ann Lee", {"preferred": 1.0})
    reviewing.skip(ws, two, two.queue.items[3], "Ann Lee")
