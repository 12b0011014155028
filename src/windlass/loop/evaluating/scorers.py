"""Metrics of a typed task's answers: by name (`evaluate.metrics.catalogue`, and `equal`), or a function of one's own.

A metric takes the wanted and the given answer, as values of the task's own type, and returns a score, or a score and a
sentence on what is wrong. It may ask for the inputs too, by a parameter of that name. None: it does not apply.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from windlass.apply.tasks.loading import load_function
from windlass.core.errors import InputError
from windlass.evaluate.metrics import catalogue
from windlass.evaluate.metrics.measure import values_of

Metric = Callable[..., Any]
"""From the wanted and the given answer to a score, or a score and what is wrong in words; more is better."""


def equal(wanted: Any, given: Any) -> float:
    """1 for the very answer, else 0."""
    return float(wanted == given)


@dataclass(frozen=True, slots=True, repr=False)
class OfTexts:
    """A metric of the catalogue on answers of any type: what is no text is compared as JSON. Several texts that are
    wanted of one are its references. Raises `InputError` for a metric that is of no single answer."""

    known: catalogue.Metric

    def __post_init__(self) -> None:
        if self.known.values is None:
            scores = [one.name for one in catalogue.METRICS.values() if one.values is not None]
            raise InputError(
                f"The metric '{self.known.name}' does not score answers one by one.", f"These do: {', '.join(scores)}."
            )

    @property
    def values(self) -> catalogue.Values:
        assert self.known.values is not None  # checked where it was made
        return self.known.values

    def __call__(self, wanted: Any, given: Any) -> float:
        references = wanted if isinstance(wanted, list | tuple | set) and isinstance(given, str) else [wanted]
        return float(values_of(self.known, [text_of(given)], [[text_of(one) for one in references]])[0])

    def __repr__(self) -> str:
        return self.known.name


@dataclass(frozen=True, slots=True)
class Scorer:
    name: str
    metric: Metric
    digest: str
    """Of its code: results of other code are not compared with its own."""

    def __call__(self, wanted: Any, given: Any, inputs: Mapping[str, Any]) -> tuple[Any, str]:
        """The score and what the metric said. Raises whatever it raises."""
        asks = "inputs" in inspect.signature(self.metric).parameters
        said = self.metric(wanted, given, inputs=inputs) if asks else self.metric(wanted, given)
        return said if isinstance(said, tuple) else (said, "")


def scorer(metric: str | Metric) -> Scorer:
    """By a known name, `FILE.py:NAME` or `module:NAME`, or of a function. Raises `NotFound` for what is not there."""
    if not isinstance(metric, str):
        name = getattr(metric, "__name__", type(metric).__name__)
        return Scorer("score" if name == "<lambda>" else name, metric, code_digest(metric))
    if metric == equal.__name__:
        return Scorer(metric, equal, code_digest(equal))
    if ":" not in metric:
        named = _named(metric)
        if named.name in ("bertscore", "similarity"):
            return _by_encoder(named.name)
        texts = OfTexts(named)
        return Scorer(texts.known.name, texts, code_digest(texts.values))
    found = load_function(metric)
    return Scorer(metric.rpartition(":")[2], found, code_digest(found))


def _by_encoder(name: str) -> Scorer:
    from windlass.loop.evaluating.by_encoder import metric_by

    known, encoder = metric_by(None, name)
    texts = OfTexts(known)
    return Scorer(name, texts, hashlib.sha256(f"{name}\n{code_digest(texts.values)}\n{encoder}".encode()).hexdigest())


def _named(name: str) -> catalogue.Metric:
    try:
        return catalogue.metric(name)
    except InputError as error:
        if difflib.get_close_matches(name, [equal.__name__]):
            raise InputError(error.message, f"Did you mean '{equal.__name__}'?") from error
        raise


def scorers(metrics: Sequence[str | Metric]) -> list[Scorer]:
    """Raises `InputError` for none, and for two of one name."""
    found = [scorer(metric) for metric in metrics]
    names = [one.name for one in found]
    if not found:
        raise InputError("There is no metric to score by.", "Name one, such as 'equal'.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two metrics are called '{name}'.", "Give each a name of its own.")
    return found


def code_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of the text of the file that holds a function: what it calls there may change its scores too.

    Of what has no file (typed at a prompt): of its byte code.
    """
    named = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(type(function)))}"
    body = function if inspect.isroutine(function) else type(function)
    try:
        module = inspect.getsourcefile(body)
        with open(module or "", "rb") as file:
            said = file.read()
    except (TypeError, OSError):
        code = getattr(function, "__code__", None)
        said = repr((code.co_code, code.co_consts, code.co_names)).encode() if code else named.encode()
    return hashlib.sha256(named.rpartition(".")[2].encode() + b"\0" + said).hexdigest()


def text_of(value: Any) -> str:
    """A text as it is; anything else as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()
