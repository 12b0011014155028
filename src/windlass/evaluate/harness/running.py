"""The main path: asks a model what an exam's items ask, and scores the replies item by item.

Each distinct request is asked once, in an order in which neighbours share as much of their beginnings as can be: a
model that keeps what it has read pays for instructions and examples once.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, ProviderError, WindlassError
from windlass.core.protocols import LanguageModel
from windlass.core.version import __version__
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results
from windlass.evaluate.harness.benchmark import Benchmark, Scored
from windlass.evaluate.harness.items import Exam, Item
from windlass.evaluate.harness.journal import Journal
from windlass.evaluate.harness.requests import Reply, Request, Write, ask

BATCH, WRITTEN = 512, 32
"""Requests of one call, and those for texts, which take longer: so many may be lost by a kill."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How often and how freely answers are written; log-likelihoods have no chance in them."""

    temperature: float = 0.0
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.temperature < 0:
            raise InputError(f"{self.repeats} repeats at temperature {self.temperature:g} cannot be drawn.")
        if self.repeats > 1 and self.temperature == 0:
            raise InputError(f"{self.repeats} repeats at temperature 0 are all the same.", "Give a --temperature.")


def run(
    exam: Exam,
    model: LanguageModel,
    *,
    sampling: Sampling | None = None,
    journal: Journal | None = None,
    say: Callable[[int, int], None] = lambda done, of: None,
    identity: Mapping[str, Any] | None = None,
) -> Results:
    """The results of a model. `say` is told how many requests are done, and of how many. `identity`: what else its
    scores hang on.

    What one request does wrong stands in its item's errors. Raises what the model raises, when what came before is in
    the journal, and `ProviderError` when an endpoint answers nothing from the first batch on.
    """
    sampling = sampling or Sampling()
    asked = [
        (repeat, item, [_drawn(one, sampling, repeat) for one in item.requests])
        for repeat in range(sampling.repeats)
        for item in exam.items
    ]
    known: dict[str, Reply | WindlassError] = dict(journal.replies) if journal is not None else {}
    distinct = {one.key: one for _, _, requests in asked for one in requests}
    waiting = sorted((one for key, one in distinct.items() if key not in known), key=_order)
    done = len(distinct) - len(waiting)
    say(done, len(distinct))
    for batch in _batches(waiting):
        replies = ask(model, batch)
        _refuse_if_nothing_works({**known, **replies})
        if journal is not None:
            journal.keep({key: one for key, one in replies.items() if not isinstance(one, WindlassError)})
        known |= replies
        done += len(batch)
        say(done, len(distinct))
    return Results(
        variant=model.name,
        digest=model.digest,
        dataset=exam.dataset,
        items=_scored(
            exam.benchmark,
            [(repeat, item, [known[one.key] for one in requests]) for repeat, item, requests in asked],
        ),
        scorers=dict.fromkeys(exam.benchmark.metrics, _code_digest(exam.benchmark)),
        made_with={
            **exam.made_with(),
            "model": dict(identity or {}),
            "temperature": sampling.temperature,
            "repeats": sampling.repeats,
            "sampling_seed": sampling.seed,
            "version": __version__,
        },
    )


def _drawn(request: Request, sampling: Sampling, repeat: int) -> Request:
    if not isinstance(request, Write) or sampling.temperature == 0:
        return request
    return replace(request, temperature=sampling.temperature, seed=sampling.seed + repeat)


def _order(request: Request) -> tuple[Any, ...]:
    """What is asked together stands together."""
    return (type(request).__name__, request.settings if isinstance(request, Write) else (), *request.order)


def _batches(waiting: Sequence[Request]) -> Iterator[Sequence[Request]]:
    written = [one for one in waiting if isinstance(one, Write)]
    scored = [one for one in waiting if not isinstance(one, Write)]
    for requests, size in ((scored, BATCH), (written, WRITTEN)):
        for start in range(0, len(requests), size):
            yield requests[start : start + size]


def _refuse_if_nothing_works(replies: Mapping[str, Reply | WindlassError]) -> None:
    """One bad request is one item's error; nothing but failures is an endpoint that does not work."""
    failed = [one for one in replies.values() if isinstance(one, ProviderError)]
    if 1 < len(failed) == len(replies):
        raise failed[0]


def _scored(
    benchmark: Benchmark, asked: Sequence[tuple[int, Item, Sequence[Reply | WindlassError]]]
) -> tuple[ItemResult, ...]:
    """An item of which one request failed has no value; the others are scored all at once."""
    good = [
        (item.row, [one for one in replies if not isinstance(one, WindlassError)])
        for _, item, replies in asked
        if not any(isinstance(one, WindlassError) for one in replies)
    ]
    scores = iter(benchmark.score_all(good))
    found = []
    for repeat, item, replies in asked:
        failed = next((one for one in replies if isinstance(one, WindlassError)), None)
        scored = Scored({}, None, None) if failed is not None else next(scores)
        found.append(
            ItemResult(
                item.id,
                item.cluster,
                repeat,
                values=scored.values,
                errors={} if failed is None else {OUTPUT: failed.message},
                output=scored.output,
                expected=scored.expected,
                input=benchmark.question(item.row),
                slices=item.slices,
            )
        )
    return tuple(found)


def _code_digest(benchmark: Benchmark) -> str:
    """SHA-256 of the code that makes values of replies: that of its kind, and what reads answers."""
    here = Path(__file__).parent
    files = {Path(inspect.getfile(kind)) for kind in type(benchmark).__mro__ if issubclass(kind, Benchmark)}
    digest = hashlib.sha256()
    for path in sorted({*files, here / "extraction.py", here / "templates.py"}):
        digest.update(path.read_bytes())
    return digest.hexdigest()
