"""Prompts as a week of use leaves them, made through the public API, for the studio's tests and screenshots."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

from studio_seed import HOSTILE

from windlass.apply.prompts import Example, Prompt, artifact
from windlass.apply.tasks import task
from windlass.apply.tasks.outcome import NoAnswer
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget
from windlass.core.values import ChatRequest
from windlass.core.workspace import Workspace
from windlass.loop.evaluating.items import Item
from windlass.loop.harvesting.feedback import give_feedback
from windlass.loop.prompting.optimising import Optimised, optimise
from windlass.loop.prompting.searching import Search
from windlass.testing import Scripted

BREAKING = "</textarea><script>document.title='owned'</script>\n\n  +++\n&lt;b&gt; " + HOSTILE
"""Words that would end their box, were they not data."""

REVIEWS = [
    ("Lovely hinges, and they never squeak.", "good"),
    ("The door fell off on the second day.", "bad"),
    ("Came late, but it closes well.", "good"),
    ("The paint smells, the lock is stiff.", "bad"),
]
FIRST = """You read reviews of doors that customers wrote in our shop.

Say how the writer felt about it: good or bad."""
SECOND = """You read reviews of doors that customers wrote in our shop.

Say how the writer felt about the product, not about the delivery or the shop: good or bad.

When a review says both, let what is said last decide."""


@task
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""


@task
def parity(number: str) -> Literal["even", "odd"]:
    """Say what this number is."""


def _play(request: ChatRequest) -> Any:
    """Is right once it is told how; writes that down when it sees its failures."""
    if request.schema is None:
        return "```\nSay whether the last digit is even or odd.\n```"
    number = int(request.messages[-1].text)
    knows = "last digit" in request.messages[0].text
    return {"value": ["even", "odd"][number % 2] if knows or number % 3 else "odd"}


def seed_prompts(ws: Workspace) -> None:
    """`tone` with three versions, labels and traces; `breaking`, which no page may obey."""
    shown = [Example({"review": review}, answer) for review, answer in REVIEWS]
    one = artifact.add(ws, "tone", Prompt(FIRST))
    two = artifact.add(ws, "tone", Prompt(SECOND, None, {"temperature": 0.2}))
    artifact.add(ws, "tone", Prompt(SECOND, shown, {"temperature": 0.2, "max_tokens": 20}))
    artifact.label(ws, one, "tone", "live", "the first that we trusted")
    artifact.label(ws, two, "tone", "staging", "tells product and delivery apart")
    artifact.add(ws, "breaking", Prompt(BREAKING, [Example({"text": BREAKING}, BREAKING)], {"stop": [BREAKING]}))
    with ws.artifacts.build("dataset", "reviews") as draft:
        rows = [{"inputs": {"review": review}, "answer": answer} for review, answer in REVIEWS]
        (draft.path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with surrounded(Surroundings(ws)):
        for number, (review, answer) in enumerate(REVIEWS):
            model = Scripted({"value": answer}, name="small-model", cost_usd=0.0004)
            outcome = tone.using(model=model, prompt="tone@2")(review)
            assert outcome == answer, number
        said = tone.using(model=Scripted({"value": "good"}), prompt="tone:live").run("It closes.")
        with contextlib.suppress(NoAnswer):
            tone.using(model=Scripted("?", "??", "???"), prompt="tone@2")("…")
    ws.recorder.flush()
    assert said.trace_id is not None
    give_feedback(ws, said.trace_id, good=True, correct_document=None, comment="", author="tests")


def search(ws: Workspace) -> Optimised:
    """A search for `parity` that finds the rule, and passes the gate."""
    items = [Item({"number": str(n)}, ["even", "odd"][n % 2]) for n in range(200)]
    model = Scripted(*[_play] * 2000, cost_usd=0.0001)
    settings = Search(sets=1, shots=2, proposals=0, rounds=1)
    return optimise(ws, parity.using(model=model), items, Budget(dollars=1.0, per="ever"), settings=settings)
