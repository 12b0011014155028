"""Metrics on files of answers: by name, of texts and of other forms, by an encoder, and functions of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.evaluate.experiments.results import split_values
from windlass.evaluate.metrics.catalogue import Metric, metric
from windlass.evaluate.metrics.forms import Rows, apply, read_rows
from windlass.evaluate.metrics.measure import difference, measured
from windlass.evaluate.metrics.pairs import Pairs, read_pairs
from windlass.evaluate.metrics.text.meteor import meteor
from windlass.evaluate.metrics.text.synonyms import read_synonyms
from windlass.evaluate.metrics.trec import read_trec
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.evaluate.statistics.shares import score_interval
from windlass.loop.evaluating.by_encoder import NAMES, metric_by
from windlass.loop.evaluating.scorers import Scorer, scorer


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric on a file, and how much more that is than on another one's answers to the same items."""

    name: str
    better: str
    score: Interval
    gain: Interval | None = None
    errors: Mapping[str, str] | None = None
    """Of a metric of one's own: line -> why it has no value there."""


@dataclass(frozen=True)
class Answers:
    """A file, read as its metrics need it."""

    path: Path
    judgements: Path | None = None
    """Of a run of trec_eval's form."""

    @cached_property
    def texts(self) -> Pairs:
        if self.judgements is not None:
            raise InputError(f"{self.path} is a run: it holds no texts.", "Leave out --qrels.")
        return read_pairs(self.path)

    @cached_property
    def rows(self) -> Rows:
        return read_rows(self.path) if self.judgements is None else read_trec(self.path, self.judgements)


@dataclass(frozen=True, slots=True)
class Options:
    level: float = 0.95
    seed: int = 0
    positive: str | None = None
    """Of two labels, the one that an AUROC is of."""
    synonyms: Path | None = None
    """For METEOR."""
    encoder: str = "minilm"
    """For BERTScore and similarity; as `embedder_named` takes it."""


def measure(
    ws: Workspace | None,
    names: Sequence[str],
    file: Answers,
    against: Answers | None = None,
    how: Options | None = None,
) -> list[Figure]:
    """Raises `InputError` for a metric that is not known or not of such a file, and naming the line that is none."""
    how = how or Options()
    if how.synonyms is not None and "meteor" not in [name.lower() for name in names]:
        raise InputError("--synonyms belongs to meteor.", "Name that metric, or leave the option out.")
    found = [scorer(name) if ":" in name else _known(ws, name, how) for name in names]  # before anything is read
    return [
        _own(one, file, against, how)
        if isinstance(one, Scorer)
        else _of_texts(one, file, against, how)
        if one.values is not None or one.pooled is not None
        else _of_rows(one, file, against, how)
        for one in found
    ]


def _known(ws: Workspace | None, name: str, how: Options) -> Metric:
    found = metric(name)
    if found.name == "meteor" and how.synonyms is not None:
        return replace(found, values=partial(meteor, synonyms=read_synonyms(how.synonyms)))
    return metric_by(ws, found.name, how.encoder)[0] if found.name in NAMES else found


def _of_texts(one: Metric, file: Answers, against: Answers | None, how: Options) -> Figure:
    ours, gain = file.texts, None
    if against is not None:
        ours.same_items(against.texts)
        theirs = against.texts.found
        gain = difference(one, theirs, ours.found, ours.right, ours.clusters, level=how.level, seed=how.seed)
    score = measured(one, ours.found, ours.right, ours.clusters, level=how.level, seed=how.seed)
    return Figure(one.name, one.better, score, gain)


def _of_rows(one: Metric, file: Answers, against: Answers | None, how: Options) -> Figure:
    ours, gain = file.rows, None
    applied, n = apply(one, ours, how.positive), len(ours.found)
    if against is not None:
        ours.same_items(against.rows)
        other = apply(one, against.rows, how.positive)
        gain = applied.less(other, ours.clusters, n, how.level, how.seed)
    score = applied.measured(ours.clusters, n, how.level, how.seed).within(*one.bounds)
    return Figure(one.name, one.better, score, gain)


def _own(one: Scorer, file: Answers, against: Answers | None, how: Options) -> Figure:
    """Lines on which it raises or gives no number are counted apart, with the reason, and are in no figure."""
    values, errors = _values(one, file.rows)
    gain = None
    if against is not None:
        file.rows.same_items(against.rows)
        others, more = _values(one, against.rows)
        errors |= more
        both = np.isfinite(values) & np.isfinite(others)
        gain = paired_difference(others[both], values[both], _kept(file.rows.clusters, both), how.level).difference
    there = np.isfinite(values)
    if not there.any():
        raise InputError(f"The metric '{one.name}' has no value on any line; the first: {next(iter(errors.values()))}.")
    score = score_interval(values[there], _kept(file.rows.clusters, there), how.level)
    return Figure(one.name, "higher", score, gain, errors)


def _values(one: Scorer, rows: Rows) -> tuple[NDArray[np.float64], dict[str, str]]:
    values, errors = np.full(len(rows.found), np.nan), {}
    for place, (found, right, where) in enumerate(zip(rows.found, rows.right, rows.where)):
        try:
            said, wrong = split_values({one.name: one(right, found, {})[0]})
        except Exception as error:  # noqa: BLE001 - whatever it raises is counted, and told with the figure
            said, wrong = {}, {one.name: f"raised {type(error).__name__}: {error}"}
        if wrong or not said:
            errors[where] = wrong.get(one.name, "it does not apply")
        else:
            values[place] = said[one.name]
    return values, errors


def _kept(clusters: Sequence[str] | None, there: NDArray[np.bool_]) -> list[str] | None:
    return None if clusters is None else [one for one, kept in zip(clusters, there) if kept]
