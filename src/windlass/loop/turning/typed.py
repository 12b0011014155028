"""Candidates for a better typed task: prompts that a search finds, and small models that learn from its traces.

| name       | is                                                                                                  |
|------------|-----------------------------------------------------------------------------------------------------|
| `prompt`   | the best of a prompt search (`loop/prompting`): demonstrations, new and rewritten instructions       |
| `student`  | a small encoder that learned the answers that people approved or wrote (`students.py`)               |
| `balanced` | the same, with rare answers shown more often                                                         |
| `taught`   | the same, from what the live variant answered and nobody judged as well                              |

Items are divided by the hash of their cluster, so that more traffic moves none: most to learn from, some that race, and
those held out. Searches for prompts (`windlass prompt search`) and turns count each other's comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.prompts import artifact as prompts
from windlass.apply.prompts.value import Prompt
from windlass.apply.tasks.functions import Task
from windlass.apply.tasks.surroundings import Surroundings, surrounded
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import ChatModel
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.results import Results
from windlass.evaluate.experiments.stored import KIND, read_experiment, write_experiment
from windlass.evaluate.policy import Policy
from windlass.evaluate.repeated import TOTAL_ERROR, at_rate, error_rate
from windlass.loop.evaluating.items import Item, lines, parted
from windlass.loop.evaluating.running import evaluation_of
from windlass.loop.evaluating.scorers import Metric, equal
from windlass.loop.evaluating.tracing import recorded
from windlass.loop.journal import Journal
from windlass.loop.metering import Meter, Metered
from windlass.loop.prompting.optimising import (
    SCORE,
    live_prompt,
    model_of,
    named,
    results_of,
    searches_before,
    stored_items,
)
from windlass.loop.prompting.searching import Ground as SearchGround
from windlass.loop.prompting.searching import Search, best, search
from windlass.loop.prompting.trial import Result, Trial
from windlass.loop.releasing.releases import live_variant
from windlass.loop.tasks import LOCAL, surroundings
from windlass.loop.turning.comparison import made
from windlass.loop.turning.ground import Compared, Gain, Proposal, Tell
from windlass.loop.turning.heard import Heard
from windlass.loop.turning.race import Positions, Score
from windlass.loop.turning.spending import Limits
from windlass.loop.turning.students import (
    LEAST,
    Teaching,
    balanced,
    labels_of,
    student_prompt,
    taught_student,
    teachable,
)

HELD_OUT, LEARN = 0.3, 0.8
"""Shares: of all items for the comparison, and of the others for learning; the rest races."""
MEASURED = (SCORE, "latency_ms", "cost_usd")
"""What a policy of a typed task may name."""
POLICY = Policy(SCORE)
"""More right answers."""


class Typed:
    """The `Ground` of a typed task. Made for one turn; `close` it.

    The first time, the task's own prompt becomes what is live. Raises `InputError` for items that do not fit the task
    or are too few, and where the live model must be paid and no budget is given.
    """

    def __init__(
        self,
        ws: Workspace,
        task: Task[..., Any],
        heard: Heard,
        *,
        limits: Limits,
        metric: Metric = equal,
        policy: Policy = POLICY,
        settings: Search | None = None,
        teaching: Teaching | None = None,
        reflector: str | ChatModel | None = None,
        at_once: int = 1,
        around: Surroundings | None = None,
        total_error: float = TOTAL_ERROR,
        tell: Tell = lambda _: None,
    ) -> None:
        """`reflector`: the model that writes instructions; None: the task's own. `around`: who answers for models by
        name; None: as the command line finds them."""
        self.task = task.__name__
        self._ws, self._function, self._heard, self._tell, self._total = ws, task, heard, tell, total_error
        self._metric, self._policy = metric, policy
        self._settings, self._teaching, self._reflector = settings or Search(), teaching or Teaching(), reflector
        self._trial = Trial(task, [*heard.items, *heard.taught], metric, at_once=at_once)
        rest, self._held = parted(heard.items, 1 - HELD_OUT, "held out")
        self._learn, self._choose = parted(rest, LEARN, "train")
        # An exam is no traffic: of it only what the comparison asks is recorded, and kept apart.
        self._around = Surroundings(ws, recorder=Recorder(None), resolve=(around or surroundings(ws)).model)
        self._prompt = live_prompt(ws, task)
        self.incumbent = live_variant(ws, self.task)
        self._meter, self._journal = self._metered(limits)
        self._seen: dict[str, Sequence[float | None]] = {}
        """Scores of variants on all questions that race, where a search has asked them."""

    def _metered(self, limits: Limits) -> tuple[Meter | None, Journal | None]:
        wanted = self._wanted(prompts.read(self._prompt))
        if limits.budget is None:
            if wanted is None or (isinstance(wanted, str) and not wanted.startswith(LOCAL)):
                calls = len(self._choose) + len(self._held)
                raise InputError(
                    f"'{self.task}' is carried out by a provider's model, which a turn asks {calls:,} times or more.",
                    "Say what it may spend: --dollars N, or --tokens N.",
                )
            return None, None
        path = self._ws.root / "turning" / f"{self.task}-{self.lesson[:16]}.jsonl"
        return Meter(limits.budget), Journal(path)

    def close(self, *, ended: bool) -> None:
        """`ended`: what was paid for is in the workspace now, and the journal is not needed any more."""
        if self._journal is not None:
            (self._journal.remove if ended else self._journal.close)()
        self._around.close()

    @cached_property
    def lesson(self) -> str:
        settings = [
            asdict(self._policy),
            named(self._metric),
            asdict(self._settings),
            asdict(self._teaching),
            self._total,
        ]
        items = [[asdict(item) for item in some] for some in (self._heard.items, self._heard.taught)]
        return sha256_json([str(self._function.signature), items, settings])

    @cached_property
    def dataset(self) -> Artifact:
        heard = self._heard
        with self._ws.artifacts.build("dataset", f"{self.task}-heard") as draft:
            (draft.path / "items.jsonl").write_text(lines(heard.items), encoding="utf-8")
            (draft.path / "taught.jsonl").write_text(lines(heard.taught), encoding="utf-8")
            draft.card = {
                "description": f"Inputs of '{self.task}' with the right answers, from users' feedback.",
                "items": len(heard.items),
                "taught": len(heard.taught),
                "answers": heard.answers,
                "left_out": dict(heard.left_out),
                "masked": dict(heard.masked),
            }
        return draft.done

    @property
    def clusters(self) -> Sequence[str]:
        return [item.group for item in self._choose]

    @property
    def test_questions(self) -> int:
        return len(self._held)

    def spent(self) -> dict[str, float]:
        meter = self._meter
        return {} if meter is None else {
            "usd": meter.usd, "tokens": meter.tokens, "calls": meter.calls, "unpriced": meter.unpriced,
        }  # fmt: skip

    def go_on(self, spent: Mapping[str, float]) -> None:
        if self._meter is not None:
            self._meter.usd += spent.get("usd", 0.0)
            self._meter.tokens += int(spent.get("tokens", 0))
            self._meter.calls += int(spent.get("calls", 0))
            self._meter.unpriced += int(spent.get("unpriced", 0))

    # candidates -----------------------------------------------------------------------------------------------------

    def proposals(self) -> list[Proposal]:
        found = []
        if self._meter is not None:
            found.append(Proposal("prompt", "other instructions and examples for the same model", self._searched))
        if labels_of(self._function) is None or len(teachable(self._learn)) < LEAST:
            return found
        items, taught = teachable(self._learn), self._taught()
        found.append(self._student("student", "a small model of our own that learned the approved answers", items))
        counts = Counter(map(str, (item.answer for item in items)))
        if min(counts.values()) * 4 < max(counts.values()):
            what = "the small model, with rare answers shown more often"
            found.append(self._student("balanced", what, balanced(items)))
        if len(taught) > len(items) / 4:
            what = "the small model, which learned unchecked answers of the live one as well"
            found.append(self._student("taught", what, teachable([*items, *taught])))
        return found

    def _student(self, name: str, what: str, items: Sequence[Item]) -> Proposal:
        return Proposal(name, what, partial(self._teach, name, what, items), self._teaching.minutes(len(items)))

    def _taught(self) -> list[Item]:
        """Not those whose cluster is held out, or races."""
        apart = {item.group for item in (*self._held, *self._choose)}
        return [item for item in self._heard.taught if item.group not in apart]

    def _teach(self, name: str, what: str, items: Sequence[Item], key: str) -> Artifact:
        model = taught_student(
            self._ws, self._function, items, self._teaching, kind=what, source=self.dataset, say=self._say
        )
        return self._variant(student_prompt(prompts.read(self._prompt), model), model)

    def _say(self, line: str) -> None:
        self._tell(line)

    def _searched(self, key: str) -> Artifact | None:
        assert self._meter is not None, "without a budget there is no such proposal"
        start = prompts.read(self._prompt)
        model = self._model(start)
        reflector = model if self._reflector is None else self._paid(model_of(self._reflector, self._around))
        ground = SearchGround(self._trial, model, reflector, self._learn, self._choose)
        with surrounded(self._around):
            ground.run(start, self._learn[:1])  # one call, to see what one takes
            share = self._meter.share / max(1, self._meter.calls)
            self._meter.kept_back = min(1.0, share * (2 * len(self._choose) + 2.5 * len(self._held)))
            pool = search(ground, start, self._settings, self._tell)
            self._meter.kept_back = 0.0
        chosen = best(pool)
        self._seen[self.incumbent.digest] = pool[0].scores
        if chosen is pool[0]:
            return None
        variant = self._variant(chosen.prompt)
        self._seen[variant.digest] = chosen.scores
        return variant

    def _variant(self, prompt: Prompt, model: Artifact | None = None) -> Artifact:
        parents = [("incumbent", self._prompt), *([("model", model)] if model else [])]
        return prompts.variant_of(self._ws, self.task, prompts.add(self._ws, self.task, prompt, parents=parents))

    # who answers ----------------------------------------------------------------------------------------------------

    def _wanted(self, prompt: Prompt) -> Any:
        return self._function.using(prompt=prompt).settled(self._around).settings.model

    def _model(self, prompt: Prompt) -> ChatModel:
        return self._paid(model_of(self._wanted(prompt), self._around))

    def _paid(self, model: ChatModel) -> ChatModel:
        if self._meter is None or model.name.startswith(LOCAL):
            return model
        return Metered(model, self._meter, self._journal)

    def _run(self, variant: Artifact, items: Sequence[Item]) -> list[Result]:
        prompt = prompts.read(prompts.prompt_of(self._ws, variant))
        with surrounded(self._around):
            return self._trial.run(prompt, self._model(prompt), items)

    def _examined(self, variant: Artifact, data: Artifact) -> Results:
        """On the held-out items, each with its trace."""
        prompt = prompts.read(prompts.prompt_of(self._ws, variant))
        with surrounded(self._around), recorded(self._ws):
            runs = self._trial.run(prompt, self._model(prompt), self._held, evaluation_of(variant.ref, data.digest))
        return results(self._ws, variant, data, runs)

    # what judges them -----------------------------------------------------------------------------------------------

    def score(self, variant: Artifact) -> Score:
        def values(positions: Positions) -> NDArray[np.float64]:
            if (seen := self._seen.get(variant.digest)) is not None:  # the search asked all of them: not paid twice
                return np.array([np.nan if seen[at] is None else seen[at] for at in positions.tolist()], np.float64)
            results = self._run(variant, [self._choose[at] for at in positions.tolist()])
            return np.array([np.nan if one.score is None else one.score for one in results])

        return values

    def compare(self, name: str, candidate: Artifact, key: str, lesson: str) -> Compared:
        own = sha256_json([key, candidate.digest])
        return self.compared(made(self._ws, KIND, own) or self._weighed(name, candidate, own, key, lesson))

    def _weighed(self, name: str, candidate: Artifact, own: str, key: str, lesson: str) -> Artifact:
        number = searches_before(self._ws, self._held) + 1
        rate = error_rate(number, self._total)
        data = stored_items(self._ws, self.task, self._held)
        both = (self.incumbent, candidate)
        before, after = (self._examined(one, data) for one in both)
        found = compare(before, after, at_rate(self._policy, rate))
        if found.excluded > self._policy.error_limit * len(self._held):
            raise InputError(found.verdict.reason, "Run the turn again when it answers: it goes on where it was.")
        card = {"turn": own, "lesson": lesson, "of": key, "origin": name, "number": number, "error_rate": rate}
        with self._ws.artifacts.build(KIND, f"{self.task}-turn") as draft:
            write_experiment(draft.path, found)
            for role, parent in (("dataset", data), ("incumbent", self.incumbent), ("candidate", candidate)):
                draft.add_parent(role, parent)
            primary = found.comparison(self._policy.primary)
            draft.card = {
                **card,
                "total_error": self._total,
                "verdict": found.verdict.decision,
                "reason": found.verdict.reason,
                "metric": self._policy.primary,
                "difference": primary.difference.to_json(),
                "items": [item.key for item in self._held],
            }
        return draft.done

    def compared(self, experiment: Artifact) -> Compared:
        gains = [
            Gain(_SAID.get(one.metric, one.label), one.incumbent.estimate, one.candidate.estimate, one.difference,
                 one.metric == SCORE, one.direction)
            for one in read_experiment(experiment).comparisons
        ]  # fmt: skip
        return Compared.of(self._ws, experiment, gains)


_SAID: Mapping[str, str] = {
    SCORE: "Calls that are answered rightly",
    "cost_usd": "US dollars a call",
    "latency_ms": "Milliseconds a call",
}


def results(ws: Workspace, variant: Artifact, data: Artifact, runs: Sequence[Result]) -> Results:
    """What a variant did with held-out items: right or not, milliseconds, and dollars where somebody knows them."""
    found = results_of(variant.ref, data.digest, runs)
    costs = ({name: getattr(run, name) for name in ("latency_ms", "cost_usd")} for run in runs)
    items = [
        one if one.failed else replace(one, values={**one.values, **{n: v for n, v in cost.items() if v is not None}})
        for one, cost in zip(found.items, costs, strict=True)
    ]
    return replace(found, digest=variant.digest, items=tuple(items))
