"""Tasks with prompts of files and of the workspace, and what never moves in what they ask."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from windlass.apply.prompts import Prompt, artifact, write_prompt
from windlass.apply.rag.embedding.hashing import HashingEmbedder
from windlass.apply.tasks import Example, Surroundings, surrounded, task
from windlass.apply.tasks.similar import Similar
from windlass.core.errors import InputError, NotFound
from windlass.core.protocols import Embeddings
from windlass.core.workspace import Workspace
from windlass.testing import Scripted


class Deal(BaseModel):
    company: str
    amount: float
    note: str | None = None


@task(temperature=0)
def deal(notes: str, year: int = 2026) -> Deal:
    """Take the deal out of these notes."""
    raise NotImplementedError


@task
def tone(review: str) -> Literal["good", "bad"]:
    """Say how the writer felt."""
    raise NotImplementedError


GOOD = {"company": "Acme", "amount": 1.0, "note": None}
BOLT = {"company": "Bolt", "amount": 5000}


@pytest.fixture
def ws(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path) as made, surrounded(Surroundings(made)):
        yield made


def test_a_version_of_the_workspace_is_used_and_stands_on_every_span(ws: Workspace) -> None:
    stored = artifact.add(ws, "deal", Prompt("Find it.", [Example({"notes": "Bolt, 5k"}, BOLT)], {"top_p": 0.5}))
    model = Scripted({"company": 3}, GOOD)
    used = deal.using(model=model, prompt="deal@1")
    outcome = used.run("Acme")
    first = model.requests[0]
    assert (first.temperature, first.top_p) == (0, 0.5), "what the prompt does not name is the task's"
    assert [m.text for m in first.messages[:2]] == [
        "Find it.", "<notes>\nBolt, 5k\n</notes>\n<year>\n2026\n</year>"
    ]  # fmt: skip
    assert json.loads(first.messages[2].text) == {"company": "Bolt", "amount": 5000.0, "note": None}
    ws.recorder.flush()
    spans = ws.store.trace(outcome.trace_id or "")
    assert len(spans) == 3
    for span in spans:
        marks = [span.attributes[f"gen_ai.prompt.{what}"] for what in ("name", "version")]
        assert [*marks, span.attributes["windlass.prompt.digest"]] == ["deal", "1", stored.digest]
    assert used.digest == deal.using(model=model, prompt=artifact.read(stored)).digest != deal.digest


def test_a_label_is_looked_up_by_every_call(ws: Workspace) -> None:
    one, two = (artifact.add(ws, "tone", Prompt(text)) for text in ("One.", "Two."))
    model = Scripted(*[{"value": "good"}] * 3)
    used = tone.using(model=model, prompt="tone:live")
    with pytest.raises(NotFound, match="no label 'live'"):
        used("x")
    for prompt in (one, two, one):
        artifact.label(ws, prompt, "tone", "live")
        used("x")
    assert [request.messages[0].text for request in model.requests] == ["One.", "Two.", "One."]


def test_streams_and_maps_use_it_too(ws: Workspace, tmp_path: Path) -> None:
    artifact.label(ws, artifact.add(ws, "tone", Prompt("One.")), "tone", "live")
    model = Scripted(*[{"value": "good"}] * 3)
    used = tone.using(model=model, prompt="tone:live")
    streaming = used.stream("x")
    assert list(streaming)[-1] == "good"
    assert len(used.map(["a", "b"], progress=False)) == 2
    assert {request.messages[0].text for request in model.requests} == {"One."}
    ws.recorder.flush()
    spans = [span for trace in ws.store.traces() for span in ws.store.trace(trace.root.trace_id)]
    assert len(spans) == 6 and {span.attributes.get("gen_ai.prompt.version") for span in spans} == {"1"}


def test_the_same_task_in_two_workspaces(tmp_path: Path) -> None:
    model = Scripted(*[{"value": "good"}] * 4)
    used = tone.using(model=model, prompt="tone@1")
    for place in ("a", "b", "a"):
        with Workspace(tmp_path / place) as ws, surrounded(Surroundings(ws)):
            artifact.add(ws, "tone", Prompt(f"In {place}."))
            used("x")
    assert [request.messages[0].text for request in model.requests] == ["In a.", "In b.", "In a."]


def test_words_that_look_like_a_reference(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("classify:tone")
    model = Scripted({"value": "good"})
    tone.using(model=model, prompt=tmp_path / "p.md")("x")
    assert model.last.messages[0].text == "classify:tone"


def test_what_is_set_after_the_prompt_or_beside_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "deal.md"
    write_prompt(path, Prompt("Find it.", [], {"temperature": 0.7, "max_tokens": 50}))
    model = Scripted(*[GOOD] * 4)
    shown = [Example({"notes": "n"}, Deal(company="C", amount=1))]
    variants = [
        deal.using(model=model, prompt=path),
        deal.using(model=model, prompt=path, temperature=0.1),
        deal.using(model=model, prompt=path).using(temperature=0.2),
        deal.using(temperature=0.3, examples=shown).using(model=model, prompt=path),
    ]
    for variant in variants:
        variant("x")
    assert [(r.temperature, r.max_tokens) for r in model.requests] == [(0.7, 50), (0.1, 50), (0.2, 50), (0.7, 50)]
    assert len(model.last.messages) == 2, "a prompt with an empty list of examples shows none"


def test_a_task_says_its_prompt_and_gets_it_back() -> None:
    shown = [Example({"notes": "Bolt, 5k"}, Deal(company="Bolt", amount=5000), "Bolt pays.")]
    own = deal.using(examples=shown, think=True, max_tokens=9, model="openai:gpt-5-mini")
    prompt = own.prompt
    assert prompt.settings == {"max_tokens": 9, "model": "openai:gpt-5-mini", "temperature": 0, "think": True}
    model = Scripted(*[{"reasoning": "So.", "answer": GOOD}] * 2)
    own.using(model=model)("x")
    deal.using(prompt=prompt, model=model)("x")
    assert model.requests[0] != model.requests[1], "an example that has no year says so only when it is read back"
    assert json.loads(model.last.messages[2].text)["reasoning"] == "Bolt pays."
    with pytest.raises(InputError, match="chosen by code"):
        _ = deal.using(examples=lambda inputs: shown).prompt


def test_examples_that_do_not_fit(ws: Workspace) -> None:
    for n, (example, why) in enumerate(
        [
            (
                Example({"nots": "x"}, BOLT),
                "Example 1 of the prompt deal@1: deal.. missing a required argument: 'notes'",
            ),
            (Example({"notes": "x"}, {"company": "C", "amount": "much"}), "deal@2: amount: Input should be"),
            (Example({"notes": 3}, BOLT), "deal@3: the whole: Input should be a valid string"),
        ],
        1,
    ):
        artifact.add(ws, "deal", Prompt("Find it.", [example]))
        with pytest.raises(InputError, match=why):
            deal.using(model=Scripted(), prompt=f"deal@{n}")("x")
    with surrounded(Surroundings()), pytest.raises(NotFound, match="no workspace"):
        deal.using(model=Scripted(), prompt="deal@1")("x")


# the prefix -----------------------------------------------------------------------------------------------------------

QUESTION = re.compile(r"(<notes>\\nNotes .*?</who>)")
PROGRAM = """
import json, sys, time
from dataclasses import dataclass
from typing import Any
from pydantic import BaseModel
from windlass.apply.providers.dialects.anthropic import Anthropic
from windlass.apply.providers.dialects.chat_completions import ChatCompletions
from windlass.apply.providers.dialects.gemini import Gemini
from windlass.apply.tasks import Example, task
from windlass.testing import Scripted

class Deal(BaseModel):
    company: str
    amount: float
    tags: set[str] | None = None

@task(temperature=0.1, max_tokens=100)
def deal(notes: str, year: int, kinds: dict[str, list[frozenset[str]]], who: dict[str, Any]) -> Deal:
    "Take the deal out of these notes."

order = 1 if sys.argv[1] == "1" else -1
letters = set("abcdefgh")
given = [("notes", "Bolt"), ("year", 1), ("kinds", {"x": [frozenset(letters)]}), ("who", {"b": 0.1, "a": 1e-7})]
inputs = dict(given[::order])
shown = [Example(inputs, Deal(company="Bolt", amount=1e22, tags=letters))]
good = json.dumps(dict(company="A", amount=1, tags=None))
model = Scripted(*["{}", good] * 2, structured=sys.argv[2])
for call in range(2):
    used = deal.using(prompt="Find it.", examples=shown, model=model)
    assert used.using(prompt=used.prompt).request(model, **inputs) == used.request(model, **inputs)
    used("Notes %d" % call, 2020 + call, {}, {"n": str(time.time())})
for dialect in (ChatCompletions("m"), Anthropic("m"), Gemini("m")):
    for request in model.requests:
        print(json.dumps(dialect.body(request), ensure_ascii=False))
"""


@pytest.mark.parametrize("structured", ["schema", "tool", "prompt"])
def test_the_prefix_is_the_same_to_the_byte(structured: str) -> None:
    """Over turns and calls, and over processes that hash otherwise and give inputs in another order."""
    said: list[list[str]] = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, seed, structured],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        bodies = done.stdout.splitlines()
        assert len(bodies) == 3 * 4, "three providers, two calls, each with a second attempt"
        said.append([])
        for at in range(0, len(bodies), 2):
            first, second = bodies[at : at + 2]
            before, question, after = QUESTION.split(first)
            assert "Bolt" in before + after and "Find it." in before + after
            said[-1].append(before + after)
            # The second attempt only adds messages at the end of the list; JSON has the rest of the body behind it.
            end = first.index(question) + len(question) + 1
            assert second[:end] == first[:end]
            assert second.endswith(after.partition("]")[2])
    assert said[0] == said[1]
    assert all(said[0][at] == said[0][at + 1] for at in range(0, 6, 2)), "the next call asks alike"


# examples by similarity -----------------------------------------------------------------------------------------------

POOL = [
    Example({"review": text}, "good") for text in ("the hinge squeaks", "soft wool", "the hinge broke", "soft wool")
]


class Counting(HashingEmbedder):
    read = 0

    def embed(self, texts: Any, kind: Any = "passage") -> Embeddings:
        self.read += len(texts)
        return super().embed(texts, kind)


def test_the_nearest_examples_are_shown_the_nearest_last() -> None:
    embedder = Counting()
    nearest = Similar(POOL, embedder, k=2)
    assert nearest({"review": "a hinge that broke"}) == [POOL[0], POOL[2]]
    assert nearest({"review": "wool, soft"}) == [POOL[3], POOL[1]], "of equal ones the earlier is nearer"
    assert embedder.read == len(POOL) + 2, "the pool is read once"
    model = Scripted({"value": "bad"})
    used = tone.using(model=model, examples=nearest)
    used("a hinge that broke")
    assert model.last.messages[3].text == "the hinge broke"
    assert used.digest == tone.using(model=model, examples=Similar(POOL, HashingEmbedder(), k=2)).digest
    assert used.digest != tone.using(model=model, examples=Similar(POOL, HashingEmbedder(), k=3)).digest
    with pytest.raises(InputError, match="from a pool of 0"):
        Similar([], embedder)
