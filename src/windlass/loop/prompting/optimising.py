"""A better prompt for a task, or the news that there is none: search, compare on unseen items, promote or refuse.

**What the verdict is worth.** The items are divided by cluster into three: the search learns from the first, chooses
by the second, and never sees the third, on which what it chose is compared with what is live, item by item. The gate
decides on the interval. Several searches on the same held-out items share one error rate as turns do
(`loop/turning/comparison.py`): all of them together ever promote a prompt that is no better with probability at most
`total_error`.

The budget holds for everything. What the comparison will take is known from what the incumbent took in the search, and
is kept back for it. A search that was stopped, by Ctrl-C, a kill or its budget, is gone on with by the same call, with
a larger budget if need be: its journal gives back every answer that was paid for (`journal.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.running import Model
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.apply.wrappers.budget import Budget
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import exclusive, sha256_json, write_json
from windlass.core.protocols import ChatModel
from windlass.core.records import ReleaseRecord
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments import stored
from windlass.evaluate.experiments.experiment import Experiment, compare
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results
from windlass.evaluate.gate import Rule, Verdict, superiority
from windlass.evaluate.policy import Policy
from windlass.evaluate.repeated import TOTAL_ERROR, error_rate
from windlass.loop.evaluating.items import Item, lines, parted
from windlass.loop.evaluating.running import evaluation_of
from windlass.loop.evaluating.scorers import Metric, equal
from windlass.loop.evaluating.tracing import recorded
from windlass.loop.journal import Journal
from windlass.loop.metering import Meter, Metered, identity
from windlass.loop.prompting.searching import Candidate, Ground, Search, Tell, best, search
from windlass.loop.prompting.trial import Result, Trial
from windlass.loop.releasing.releases import live, promote

SEARCH = "search.json"
"""Beside the experiment: what else was tried."""
SCORE = "score"
HELD_OUT, TRAIN = 0.5, 0.5
"""Shares: of all items for the comparison, and of the others for learning; the rest chooses."""
FAILED = 0.02
"""Share of the held-out items on which the provider may fail before nothing is decided."""


@dataclass(frozen=True, slots=True)
class Optimised:
    verdict: Verdict
    incumbent: Artifact
    candidate: Artifact | None
    """The prompt that was compared; None: the search found nothing that it prefers to the incumbent."""
    experiment: Artifact | None
    release: ReleaseRecord | None
    """The promotion; None when it was refused."""
    pool: Sequence[Candidate]
    """All that were tried, the incumbent first."""
    usd: float
    """What all of it took, earlier runs included."""
    tokens: int
    calls: int
    repeated: int
    """Calls of earlier runs, which were not paid again."""


Watch = Callable[[Meter], object]


def optimise(
    ws: Workspace,
    task: Task[..., Any],
    items: Sequence[Item],
    budget: Budget,
    *,
    metric: Metric = equal,
    settings: Search | None = None,
    reflector: str | ChatModel | None = None,
    teacher: str | ChatModel | None = None,
    at_once: int = 1,
    total_error: float = TOTAL_ERROR,
    around: Surroundings | None = None,
    tell: Tell = lambda _: None,
    watch: Watch = lambda _: None,
) -> Optimised:
    """Searches for a better prompt for what `task` serves, and promotes it if the held-out items say that it is.

    reflector: the model that writes instructions; None: the task's own.
    teacher: the model whose runs become demonstrations; None: the task's own.
    at_once: how many items are asked for at the same time.
    around: who answers for models by name; by default as tasks find them.
    tell: gets a line for each step; `watch` the meter after each call.

    The first time, the task's own prompt becomes what is live. Raises `InputError` before anything is spent for items
    that do not fit the task or are too few, `OverBudget` for a budget that does not cover the comparison,
    `WorkspaceBusy` when another search runs.
    """
    settings, name = settings or Search(), task.__name__
    trial = Trial(task, items, metric, at_once=at_once)
    rest, held = parted(items, 1 - HELD_OUT, "held out")
    train, choose = parted(rest, TRAIN, "train")
    meter = Meter(budget, watch)
    # A search is no traffic: of it only what the comparison asks is recorded, and kept apart.
    silent = Surroundings(ws, recorder=Recorder(None), resolve=around.model if around else None)
    with exclusive(ws.root / f"prompt-{name}.lock", f"a search for '{name}'"), surrounded(silent):
        began_with = live_prompt(ws, task)
        model = model_of(task.using(prompt=prompts.read(began_with)).settled(silent).settings.model, silent)
        writer, shower = (model_of(wanted or model, silent) for wanted in (reflector, teacher))
        said_by = [identity(one) for one in (model, writer, shower)]
        what = [task.digest, said_by, [asdict(item) for item in items], named(metric), asdict(settings), total_error]
        journal, incumbent = _journal(ws, name, sha256_json(what), began_with, tell)
        try:
            metered, reflecting, showing = (Metered(one, meter, journal) for one in (model, writer, shower))
            ground = Ground(trial, metered, reflecting, train, choose, showing)
            tell(f"{len(train):,} items to learn from, {len(choose):,} to choose by, {len(held):,} held out")
            found = _Work(ws, name, ground, held, settings, total_error, meter, journal, tell).done(incumbent)
            if found.experiment is None or journal.fact("experiment"):
                journal.remove()
            return found
        finally:
            journal.close()


@dataclass(frozen=True, slots=True)
class _Work:
    """One search, from the incumbent to the verdict."""

    ws: Workspace
    name: str
    ground: Ground
    held: Sequence[Item]
    settings: Search
    total_error: float
    meter: Meter
    journal: Journal
    tell: Tell

    def done(self, incumbent: Artifact) -> Optimised:
        candidate = experiment = row = None
        pool = self._searched(prompts.read(incumbent))
        chosen = best(pool)
        if chosen is pool[0]:
            many = f"None of {len(pool) - 1} candidates did better on {len(self.ground.choose)} items."
            verdict = Verdict("NO-GO", many)
            self.tell(f"{verdict.decision}: {verdict.reason}")
        else:
            candidate = prompts.add(self.ws, self.name, chosen.prompt, parents=[("incumbent", incumbent)])
            experiment = self._compared((incumbent, candidate), pool)
            verdict = Verdict(experiment.card["verdict"], experiment.card["reason"])
            if verdict.decision == "GO":
                variant = prompts.variant_of(self.ws, self.name, candidate)
                row = promote(self.ws, self.name, variant, experiment, verdict.reason)
            self.tell(f"{verdict.decision}: {'promoted' if row else 'refused'}. {verdict.reason}")
        meter = self.meter
        return Optimised(
            verdict, incumbent, candidate, experiment, row, pool, meter.usd, meter.tokens, meter.calls, self.journal.had
        )

    def _searched(self, start: Prompt) -> list[Candidate]:
        """The pool, with what the comparison takes kept back from the search."""
        ground, meter = self.ground, self.meter
        ground.run(start, ground.train[:1])  # one call, to see what one takes
        first = meter.share / max(1, meter.calls)
        # Demonstrations make the candidate's requests longer: half as much again for its side.
        meter.kept_back = min(1.0, first * len(self.held) * 2.5)
        self.tell(f"{meter.kept_back:.0%} of the budget are kept for the comparison")
        pool = search(ground, start, self.settings, self.tell)
        meter.kept_back = 0.0
        return pool

    def _compared(self, both: tuple[Artifact, Artifact], pool: Sequence[Candidate]) -> Artifact:
        """The experiment on the held-out items. A search that went as far before is given the one it made."""
        if (made := self.journal.fact("experiment")) is not None:
            return self.ws.artifacts.get(made)
        data = stored_items(self.ws, self.name, self.held)
        number = self.journal.settled("number", lambda: searches_before(self.ws, self.held) + 1)
        rule = superiority(error_rate=error_rate(number, self.total_error))
        origin = best(pool).origin
        self.tell(f"compare on {len(self.held):,} items that the search has not seen: {origin}")
        with recorded(self.ws):
            weighed = weigh(self.ground.trial, self.ground.model, self.held, _named_prompts(both), data.digest, rule)
        spent = {"usd": self.meter.usd, "tokens": self.meter.tokens, "calls": self.meter.calls}
        card = {"number": number, "search": asdict(self.settings), "origin": origin, "total_error": self.total_error}
        experiment = stored_experiment(self.ws, self.name, both, data, weighed, pool, {**card, "spent": spent})
        if weighed.excluded <= FAILED * len(self.held):
            # Else what the provider failed on is asked again by the next run, and all is decided then.
            self.journal.settled("experiment", lambda: experiment.digest)
        return experiment


def weigh(
    trial: Trial,
    model: ChatModel,
    held: Sequence[Item],
    both: tuple[tuple[str, Prompt], tuple[str, Prompt]],
    dataset: str,
    rule: Rule,
) -> Experiment:
    """Runs incumbent and candidate, each with its name, on the held-out items and decides by the difference."""
    before, after = (
        results_of(
            name,
            dataset,
            trial.run(prompt, model, held, evaluation_of(name, dataset)),
            scorers={SCORE: trial.scorer.digest},
            made_with={"prompt": prompts.digest(prompt), "task": trial.task.digest, "model": identity(model)},
        )
        for name, prompt in both
    )
    return compare(before, after, Policy(SCORE, rule, guards={}, error_limit=FAILED))


def results_of(name: str, dataset: str, runs: Sequence[Result], **said: Any) -> Results:
    """As comparisons take them. `said`: further fields of `Results`."""
    return Results(name, None, dataset, tuple(_row(run) for run in runs), **said)


def _row(run: Result) -> ItemResult:
    return ItemResult(
        run.item.key,
        run.item.group,
        values={} if run.score is None else {SCORE: run.score},
        errors={OUTPUT: run.problem} if run.score is None else {},
        output={"no answer": run.problem} if run.problem else run.answer,
        slices=run.item.slices,
        trace=run.trace,
        input=run.item.inputs,
        expected=run.item.answer,
    )


def _named_prompts(both: tuple[Artifact, Artifact]) -> tuple[tuple[str, Prompt], tuple[str, Prompt]]:
    before, after = both
    return (before.ref, prompts.read(before)), (after.ref, prompts.read(after))


def searches_before(ws: Workspace, held: Sequence[Item]) -> int:
    """How many comparisons have used any of these held-out items."""
    keys = {item.key for item in held}
    records = ws.store.artifacts(stored.KIND, limit=100_000)
    return sum(not keys.isdisjoint(record.card.get("items", ())) for record in records)


def live_prompt(ws: Workspace, task: Task[..., Any]) -> Artifact:
    """The prompt that is live; the task's own, when none is."""
    name = task.__name__
    if live(ws, name) is None:
        own = task.using(prompt=None) if task.settings.prompt == f"{name}:{prompts.LIVE}" else task
        prompts.label(ws, prompts.add(ws, name, own.prompt), name, prompts.LIVE, "the task's own prompt")
    return prompts.find(ws, f"{name}:{prompts.LIVE}")


def _journal(ws: Workspace, name: str, key: str, live_prompt: Artifact, tell: Tell) -> tuple[Journal, Artifact]:
    """The journal of this search, and the prompt that was live when it began."""
    path = ws.root / "prompting" / f"{name}-{key[:16]}.jsonl"
    journal = Journal(path)
    began = journal.settled("incumbent", lambda: live_prompt.digest)
    row = live(ws, name)
    promoted = row is not None and row.experiment is not None and row.experiment == journal.fact("experiment")
    if began != live_prompt.digest and not promoted:  # promoted: killed between that and its report
        tell("what is live has changed since this search was stopped: it begins anew")
        journal.remove()
        journal = Journal(path)
        began = journal.settled("incumbent", lambda: live_prompt.digest)
    if journal.had:
        tell(f"goes on: {journal.had:,} answers of an earlier run are not paid again ({path.name})")
    return journal, ws.artifacts.get(began)


def model_of(wanted: str | Model | None, around: Surroundings) -> ChatModel:
    model = around.model(wanted) if wanted is None or isinstance(wanted, str) else wanted
    if not isinstance(model, ChatModel):
        raise InputError(f"{model.name} can be asked on an event loop only.", "Give a model that can be waited for.")
    return model


def named(metric: Metric) -> str:
    return f"{getattr(metric, '__module__', '')}.{getattr(metric, '__qualname__', repr(metric))}"


def stored_items(ws: Workspace, name: str, held: Sequence[Item]) -> Artifact:
    with ws.artifacts.build("dataset", f"{name}-held-out") as draft:
        (draft.path / "items.jsonl").write_text(lines(held), encoding="utf-8")
        draft.card = {"items": len(held)}
    return draft.done


def stored_experiment(
    ws: Workspace,
    name: str,
    both: tuple[Artifact, Artifact],
    data: Artifact,
    weighed: Experiment,
    pool: Sequence[Candidate],
    card: dict[str, Any],
) -> Artifact:
    """The card says what came of it; the files also what each item got, and what else was tried."""
    variants = [prompts.variant_of(ws, name, prompt) for prompt in both]
    with ws.artifacts.build(stored.KIND, f"{name}-prompt-search") as draft:
        tried = [
            {
                "origin": one.origin,
                "mean": one.mean if math.isfinite(one.mean) else None,
                "items": len(one.scores),
                "instructions": one.prompt.instructions,
                "examples": len(one.prompt.examples or ()),
            }
            for one in pool
        ]
        stored.write_experiment(draft.path, weighed)
        write_json(draft.path / SEARCH, {"pool": tried, **card})
        draft.add_parent("dataset", data)
        for role, variant in zip(("incumbent", "candidate"), variants):
            draft.add_parent(role, variant)
        draft.card = {
            **card,
            "verdict": weighed.verdict.decision,
            "reason": weighed.verdict.reason,
            "metric": SCORE,
            "difference": weighed.comparison(SCORE).difference.to_json() if weighed.comparisons else None,
            "items": list(dict.fromkeys(one.item for one in weighed.incumbent.items)),
        }
    return draft.done
