"""Candidates for a better prompt: demonstrations from the task's own good runs, and instructions that a model rewrites.

Two ways, one after the other, on the same items. *Demonstrations* (bootstrap few-shot with random search; Khattab et
al. 2023, https://arxiv.org/abs/2310.03714): the task is run on the training items, runs that the metric finds good
become examples with their reasoning, and random sets of these are tried. *Instructions* (reflective evolution after
GEPA; Agrawal et al. 2025, https://arxiv.org/abs/2507.19457): a model reads failures of a candidate and rewrites its
instructions; a child that does better on those items joins the pool. Which one is rewritten next is drawn from the
Pareto front, where each item speaks for the candidates that do best on it: the best on average alone would soon be the
parent of all.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from windlass.apply.prompts.value import Prompt
from windlass.apply.providers.budget import OverBudget
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, Message
from windlass.loop.prompting.items import Item, Result, Trial

Tell = Callable[[str], object]
_FENCED = re.compile(r"```[a-z]*[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Search:
    """How far to search."""

    sets: int = 8
    """Random sets of demonstrations that are tried; 0: none."""
    shots: int = 4
    """Demonstrations in a set, at most."""
    good: float = 1.0
    """The score from which on a run is a demonstration."""
    rounds: int = 8
    """How often instructions are rewritten; 0: never."""
    read: int = 4
    """Training items whose answers are read for one rewriting."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    prompt: Prompt
    scores: Sequence[float | None]
    """On the choosing items."""
    origin: str

    @property
    def mean(self) -> float:
        """Over the items that have a score; none at all is the worst there is."""
        known = [score for score in self.scores if score is not None]
        return sum(known) / len(known) if known else float("-inf")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a search works on. `train` items are learned from, `choose` items decide between candidates."""

    trial: Trial
    model: ChatModel
    reflector: ChatModel
    train: Sequence[Item]
    choose: Sequence[Item]

    def tried(self, prompt: Prompt, origin: str) -> Candidate:
        return Candidate(prompt, [r.score for r in self.run(prompt, self.choose)], origin)

    def run(self, prompt: Prompt, items: Sequence[Item]) -> list[Result]:
        return self.trial.run(prompt, self.model, items)


def search(ground: Ground, start: Prompt, settings: Search, tell: Tell = lambda _: None) -> list[Candidate]:
    """All candidates that were tried to the end, `start` first. Ends early when the budget is used up.

    Raises `OverBudget` when not even `start` could be tried.
    """
    rng = random.Random(settings.seed)
    pool = [ground.tried(start, "the incumbent")]
    tell(f"{pool[0].origin}: {pool[0].mean:.3f} on {len(ground.choose):,} items")
    try:
        for step in (_demonstrations, _instructions):
            step(ground, pool, settings, rng, tell)
    except OverBudget as spent:
        tell(f"the search ends here: {spent.message}")
    return pool


def best(pool: Sequence[Candidate]) -> Candidate:
    """Of equally good ones the earlier: the incumbent stays unless something is better."""
    return max(pool, key=lambda candidate: candidate.mean)


def _demonstrations(ground: Ground, pool: list[Candidate], settings: Search, rng: random.Random, tell: Tell) -> None:
    if not settings.sets:
        return
    start = pool[0].prompt
    runs = ground.run(start, ground.train)
    good = [run.example for run in runs if run.score is not None and run.score >= settings.good]
    tell(f"{len(good):,} of {len(runs):,} runs are good enough to be shown")
    tried = {repr(start.examples)}
    for number in range(1, settings.sets + 1 if good else 1):
        shown = rng.sample(good, rng.randint(1, min(settings.shots, len(good))))
        prompt = replace(start, examples=shown)
        if repr(prompt.examples) in tried:
            continue
        tried.add(repr(prompt.examples))
        pool.append(ground.tried(prompt, f"set {number} of {len(shown)} demonstrations"))
        tell(f"{pool[-1].origin}: {pool[-1].mean:.3f}")


def _instructions(ground: Ground, pool: list[Candidate], settings: Search, rng: random.Random, tell: Tell) -> None:
    for number in range(1, settings.rounds + 1):
        parent = drawn(pool, rng)
        items = rng.sample(list(ground.train), min(settings.read, len(ground.train)))
        before = ground.run(parent.prompt, items)
        failed = [run for run in before if run.score is not None and run.score < settings.good]
        if not failed:
            continue  # nothing to learn from these
        words = rewritten(ground.reflector, parent.prompt.instructions, failed)
        try:
            prompt = replace(parent.prompt, instructions=words)
        except InputError:
            tell(f"rewriting {number}: no instructions came back")
            continue
        after = ground.run(prompt, items)
        if _sum(after) <= _sum(before):
            tell(f"rewriting {number}: no better on the items it was made for")
            continue
        pool.append(ground.tried(prompt, f"rewriting {number}"))
        tell(f"{pool[-1].origin}: {pool[-1].mean:.3f}")


def drawn(pool: Sequence[Candidate], rng: random.Random) -> Candidate:
    """A candidate of the Pareto front, the likelier the more items it does best on."""
    weights = [0] * len(pool)
    for scores in zip(*(candidate.scores for candidate in pool)):
        known = [score for score in scores if score is not None]
        for at, score in enumerate(scores):
            weights[at] += bool(known) and score == max(known)
    return rng.choices(pool, weights)[0] if any(weights) else pool[0]


def rewritten(model: ChatModel, instructions: str, failed: Sequence[Result]) -> str:
    """New instructions, from what went wrong with the old ones. Empty when the model wrote none."""
    told = resources.files(__package__).joinpath("reflection.md").read_text(encoding="utf-8")
    cases = "\n".join(_case(run) for run in failed)
    asked = f"<instructions>\n{instructions}\n</instructions>\n{cases}"
    said = model.complete(ChatRequest([Message("system", told), Message("user", asked)])).message.text
    fenced = _FENCED.search(said)
    return (fenced[1] if fenced else said).strip()


def _case(run: Result) -> str:
    given = run.problem or json.dumps(run.answer, ensure_ascii=False)
    rows = {"inputs": json.dumps(run.item.inputs, ensure_ascii=False), "answer": given, "reasoning": run.reasoning}
    rows["wanted"] = json.dumps(run.item.answer, ensure_ascii=False)
    inside = "\n".join(f"<{name}>{text}</{name}>" for name, text in rows.items() if text)
    return f"<case>\n{inside}\n</case>"


def _sum(runs: Sequence[Result]) -> float:
    return sum(run.score or 0.0 for run in runs)
