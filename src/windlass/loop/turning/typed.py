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
from dataclasses import asdict, dataclass, field, replace
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
from windlass.evaluate.gate import Check, Rule, Verdict, decide_all, superiority
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import PairedDifference, paired_difference
from windlass.loop.prompting.items import Item, Metric, Result, Trial, equal, lines, parted
from windlass.loop.prompting.journal import Journal
from windlass.loop.prompting.metering import Meter, Metered
from windlass.loop.prompting.optimising import (
    FAILED,
    KIND,
    Weighed,
    live_prompt,
    model_of,
    named,
    searches_before,
    stored,
    stored_items,
)
from windlass.loop.prompting.searching import Ground as SearchGround
from windlass.loop.prompting.searching import Search, best, search
from windlass.loop.release import live_variant
from windlass.loop.tasks import LOCAL, surroundings
from windlass.loop.turn import TOTAL_ERROR, error_rate, made
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
_VALUES = ("score", "cost_usd", "latency_ms")
"""What a call is measured by."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a candidate must show, the primary metric first: `score`, `cost_usd`, `latency_ms`."""

    rules: Mapping[str, Rule] = field(default_factory=lambda: {"score": superiority()})

    def __post_init__(self) -> None:
        for name in self.rules:
            if name not in _VALUES:
                raise InputError(f"A typed task has no metric '{name}'.", f"It has {', '.join(_VALUES)}.")
        if not self.rules:
            raise InputError("An aim without a rule would let everything through.", "Name at least `score`.")

    def at(self, rate: float) -> dict[str, Rule]:
        return {name: replace(rule, error_rate=rate) for name, rule in self.rules.items()}


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
        aim: Aim | None = None,
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
        self._metric, self._aim = metric, aim or Aim()
        self._settings, self._teaching, self._reflector = settings or Search(), teaching or Teaching(), reflector
        self._trial = Trial(task, [*heard.items, *heard.taught], metric, at_once=at_once)
        rest, self._held = parted(heard.items, 1 - HELD_OUT, "held out")
        self._learn, self._choose = parted(rest, LEARN, "train")
        # An exam is no traffic: nothing of it is recorded.
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

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._around.close()

    @cached_property
    def lesson(self) -> str:
        rules = {name: asdict(rule) for name, rule in self._aim.rules.items()}
        settings = [rules, named(self._metric), asdict(self._settings), asdict(self._teaching), self._total]
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
        return {} if meter is None else {"usd": meter.usd, "tokens": meter.tokens, "calls": meter.calls}

    def go_on(self, spent: Mapping[str, float]) -> None:
        if self._meter is not None:
            self._meter.usd += spent.get("usd", 0.0)
            self._meter.tokens += int(spent.get("tokens", 0))
            self._meter.calls += int(spent.get("calls", 0))

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

    # what judges them -----------------------------------------------------------------------------------------------

    def score(self, variant: Artifact) -> Score:
        def values(positions: Positions) -> NDArray[np.float64]:
            if (seen := self._seen.get(variant.digest)) is not None:  # the search asked all of them: not paid twice
                return np.array([np.nan if seen[at] is None else seen[at] for at in positions.tolist()], np.float64)
            results = self._run(variant, [self._choose[at] for at in positions.tolist()])
            return _column(results, "score")

        return values

    def compare(self, name: str, candidate: Artifact, key: str, lesson: str) -> Compared:
        own = sha256_json([key, candidate.digest])
        experiment = made(self._ws, KIND, own)
        if experiment is None:
            number = searches_before(self._ws, self._held) + 1
            rate = error_rate(number, self._total)
            results = (self._run(self.incumbent, self._held), self._run(candidate, self._held))
            differences, verdict, whole = weighed(results, self._aim.at(rate))
            primary = next(iter(self._aim.rules))
            card = {
                "turn": own,
                "lesson": lesson,
                "of": key,
                "origin": name,
                "number": number,
                "error_rate": rate,
                "total_error": self._total,
                "metric": primary,
                "differences": {metric: one.difference.to_json() for metric, one in differences.items()},
                "means": {one: [float(np.nanmean(_column(side, one))) for side in results] for one in differences},
            }
            if not whole:
                raise InputError(
                    verdict.reason, "Run the turn again when the provider answers: it goes on where it was."
                )
            both = tuple(prompts.prompt_of(self._ws, one) for one in (self.incumbent, candidate))
            told = Weighed(results, differences.get("score"), verdict)
            data = stored_items(self._ws, self.task, self._held)
            experiment = stored(self._ws, self.task, (both[0], both[1]), data, told, (), card)
        return self.compared(experiment)

    def compared(self, experiment: Artifact) -> Compared:
        card = experiment.card
        gains = [
            Gain(_SAID[name], card["means"][name][0], card["means"][name][1], Interval.from_json(row), name == "score")
            for name, row in card["differences"].items()
        ]
        candidate = self._ws.artifacts.get(experiment.parent("candidate"))
        number, rate = card["number"], card["error_rate"]
        return Compared(card["verdict"], card["reason"], number, rate, experiment, card["origin"], candidate, gains)


_SAID: Mapping[str, str] = {
    "score": "Calls that are answered rightly",
    "cost_usd": "US dollars a call",
    "latency_ms": "Milliseconds a call",
}


def weighed(
    results: tuple[Sequence[Result], Sequence[Result]], rules: Mapping[str, Rule]
) -> tuple[dict[str, PairedDifference], Verdict, bool]:
    """The paired differences of all metrics that both sides have, the verdict by these rules, and whether the provider
    answered to almost all items."""
    level = max(rule.level for rule in rules.values())
    found = {}
    for name in dict.fromkeys((*rules, *_VALUES)):
        before, after = (_column(side, name) for side in results)
        kept = np.flatnonzero(np.isfinite(before) & np.isfinite(after))
        if len(kept):
            clusters = [results[0][at].item.group for at in kept.tolist()]
            found[name] = paired_difference(before[kept], after[kept], clusters, level)
    total = len(results[0])
    failed = total - (found["score"].difference.n if "score" in found else 0)
    if failed > FAILED * total:
        reason = f"The provider failed on {failed} of {total} items; at most {FAILED:.0%} may."
        return found, Verdict("INCONCLUSIVE", reason), False
    missing = [name for name in rules if name not in found]
    if missing:
        return found, Verdict("INCONCLUSIVE", f"No call of both variants has a known {', '.join(missing)}."), True
    return found, decide_all([Check(name, found[name].difference, rule) for name, rule in rules.items()]), True


def _column(results: Sequence[Result], name: str) -> NDArray[np.float64]:
    """NaN where a result has no such value."""
    values = [getattr(one, name) for one in results]
    return np.array([np.nan if value is None else float(value) for value in values])
