"""Candidates for a better prompt: demonstrations from the task's own good runs, and instructions that a model writes.

Three ways, one after the other, on the same items. *Demonstrations* (bootstrap few-shot with random search; Khattab et
al. 2023, https://arxiv.org/abs/2310.03714): the task is run on the training items, runs that the metric finds good
become examples with their reasoning, and random sets of these are tried. Items that went wrong are shown with the
answers that were wanted, unless reasoning belongs to an example: nobody wrote that down. *Proposals* (after COPRO and
MIPROv2; Opsahl-Ong et al. 2024, https://arxiv.org/abs/2406.11695): a model that sees items with their answers, and how
well the instructions so far did, writes new ones, each time with another advice; they are tried with the best
demonstrations. *Rewritings* (reflective evolution after GEPA; Agrawal et al. 2025, https://arxiv.org/abs/2507.19457): a
model reads failures of a candidate and rewrites its instructions; a child that does better on those items joins the
pool. Which one is rewritten next is drawn from the Pareto front, where each item speaks for the candidates that do best
on it: the best on average alone would soon be the parent of all.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from windlass.apply.prompts.example import Example
from windlass.apply.prompts.value import Prompt
from windlass.apply.wrappers.budget import OverBudget
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import ChatModel
from windlass.core.values import ChatRequest, Message
from windlass.loop.evaluating.items import Item
from windlass.loop.prompting.trial import Result, Trial

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
    proposals: int = 4
    """How often instructions are written anew; 0: never."""
    rounds: int = 8
    """How often instructions are rewritten; 0: never."""
    read: int = 4
    """Training items that are read for one proposal or rewriting."""
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
    """Writes instructions."""
    train: Sequence[Item]
    choose: Sequence[Item]
    teacher: ChatModel | None = None
    """Its runs become demonstrations; None: those of `model`."""

    def tried(self, prompt: Prompt, origin: str) -> Candidate:
        return Candidate(prompt, [r.score for r in self.run(prompt, self.choose)], origin)

    def run(self, prompt: Prompt, items: Sequence[Item]) -> list[Result]:
        return self.trial.run(prompt, self.model, items)


def search(ground: Ground, start: Prompt, settings: Search, tell: Tell = lambda _: None) -> list[Candidate]:
    """All candidates that were tried to the end, `start` first. Ends early when the budget is used up.

    Raises `OverBudget` when not even `start` could be tried, `ProviderError` when nobody answered.
    """
    rng = random.Random(settings.seed)
    pool = [ground.tried(start, "the incumbent")]
    if all(score is None for score in pool[0].scores):
        raise ProviderError(
            f"{ground.model.name} failed on all of the {len(ground.choose)} items to choose by.",
            "Search again when it answers: what was paid for is kept.",
        )
    tell(f"{pool[0].origin}: {pool[0].mean:.3f} on {len(ground.choose):,} items")
    try:
        for step in (_demonstrations, _proposals, _rewritings):
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
    runs = ground.trial.run(start, ground.teacher or ground.model, ground.train)
    good = [run.score is not None and run.score >= settings.good for run in runs]
    tell(f"{sum(good):,} of {len(runs):,} runs are good enough to be shown")
    written = not ground.trial.thinks(start)
    examples = [
        run.example if is_good else Example(run.item.inputs, run.item.answer)
        for run, is_good in zip(runs, good, strict=True)
        if is_good or written
    ]
    tried = {repr(start.examples)}
    for number in range(1, settings.sets + 1 if examples else 1):
        shown = rng.sample(examples, rng.randint(1, min(settings.shots, len(examples))))
        prompt = replace(start, examples=shown)
        if repr(prompt.examples) in tried:
            continue
        tried.add(repr(prompt.examples))
        pool.append(ground.tried(prompt, f"set {number} of {len(shown)} demonstrations"))
        tell(f"{pool[-1].origin}: {pool[-1].mean:.3f}")


ADVICE = (
    "Be brief: say only what nobody would do right unsaid.",
    "Lay down the steps by which the answer is found.",
    "Write down the rules by which doubtful cases are decided, as the answers show them.",
    "Say who is asking, for what the answer is used, and what it must not get wrong.",
)


def _proposals(ground: Ground, pool: list[Candidate], settings: Search, rng: random.Random, tell: Tell) -> None:
    for number in range(1, settings.proposals + 1):
        parent = best(pool)
        items = rng.sample(list(ground.train), min(settings.read, len(ground.train)))
        words = proposed(ground.reflector, pool, items, ADVICE[(number - 1) % len(ADVICE)])
        try:
            prompt = replace(parent.prompt, instructions=words)
        except InputError:
            tell(f"proposal {number}: no instructions came back")
            continue
        if any(prompt == candidate.prompt for candidate in pool):
            tell(f"proposal {number}: as before")
            continue
        pool.append(ground.tried(prompt, f"proposal {number}"))
        tell(f"{pool[-1].origin}: {pool[-1].mean:.3f}")


def _rewritings(ground: Ground, pool: list[Candidate], settings: Search, rng: random.Random, tell: Tell) -> None:
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
    cases = "\n".join(_case(run) for run in failed)
    return _written(model, "reflection.md", f"<instructions>\n{instructions}\n</instructions>\n{cases}")


def proposed(model: ChatModel, pool: Sequence[Candidate], items: Sequence[Item], advice: str) -> str:
    """New instructions, from items with their answers and from how well others did. Empty when there are none."""
    tried = {candidate.prompt.instructions: candidate.mean for candidate in sorted(pool, key=lambda one: one.mean)}
    parts = [f'<instructions score="{mean:.2f}">\n{words}\n</instructions>' for words, mean in tried.items()]
    parts += [_case(Result(item, None)) for item in items]
    return _written(model, "proposal.md", "\n".join([*parts, f"<advice>{advice}</advice>"]))


def _written(model: ChatModel, told: str, asked: str) -> str:
    """The instructions that a model writes, told by the file `told`."""
    rules = resources.files(__package__).joinpath(told).read_text(encoding="utf-8")
    said = model.complete(ChatRequest([Message("system", rules), Message("user", asked)])).message.text
    fenced = _FENCED.search(said)
    return (fenced[1] if fenced else said).strip()


def _case(run: Result) -> str:
    answered = run.score is not None
    rows = {"inputs": json.dumps(run.item.inputs, ensure_ascii=False)}
    rows["answer"] = run.problem or (json.dumps(run.answer, ensure_ascii=False) if answered else "")
    rows |= {"reasoning": run.reasoning, "feedback": run.feedback}
    rows["wanted"] = json.dumps(run.item.answer, ensure_ascii=False)
    inside = "\n".join(f"<{name}>{text}</{name}>" for name, text in rows.items() if text)
    return f"<case>\n{inside}\n</case>"


def _sum(runs: Sequence[Result]) -> float:
    return sum(run.score or 0.0 for run in runs)
