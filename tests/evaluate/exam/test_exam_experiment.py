"""Exams as experiments: asking, pairing, errors that are no zeros, storage, and the rate of wrong promotions."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from windlass.core.errors import InputError
from windlass.evaluate.exam.items import ExamItem
from windlass.evaluate.exam.outcomes import Answer, Outcome, ask, outcomes_from_arrays, rank_of
from windlass.evaluate.exam.results import POLICY, SHOWN, report, results
from windlass.evaluate.exam.tables import render_report
from windlass.evaluate.experiments.experiment import Experiment, code_digests
from windlass.evaluate.experiments.experiment import compare as compared
from windlass.evaluate.experiments.reports import rendered
from windlass.evaluate.experiments.stored import from_json, read_file, to_json, write_experiment
from windlass.evaluate.gate import non_inferiority, superiority
from windlass.evaluate.metrics.selective import best_threshold, right_outcome
from windlass.evaluate.policy import Policy


def exam(n: int = 300, cluster_size: int = 6, unanswerable: int = 7) -> list[ExamItem]:
    items = []
    for i in range(n):
        cluster = i // cluster_size
        document = None if cluster % unanswerable == 0 else f"doc{i}"
        items.append(ExamItem(f"q{i}", f"What is {i}?", document, "test", f"c{cluster}", f"doc{i}", 0, 9, "H", "page"))
    return items


ITEMS = exam()


def outcomes(skill: float, seed: int = 0, items: list[ExamItem] | None = None) -> list[Outcome]:
    """Noisy ranks around a hardness that both systems of a pair share."""
    items = items or ITEMS
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    hardness = shared.normal(size=len(items)) + rng.normal(0, 0.5, len(items)) - skill
    rank = np.where(hardness < 2, np.ceil(np.exp(np.clip(hardness, -3, 3))), 0).astype(int)
    can = np.array([item.answerable for item in items])
    confidence = np.where(can, 1.0, -1.0) + shared.normal(size=len(items)) + rng.normal(0, 0.2, len(items))
    return outcomes_from_arrays(np.where(can, rank, 0), confidence < -0.3, confidence, rng.gamma(4, 2, len(items)))


def compare(
    items: list[ExamItem],
    before: list[Outcome],
    after: list[Outcome],
    policy: Policy = POLICY,
    names: tuple[str, str] = ("incumbent", "candidate"),
) -> Experiment:
    sides = (results(items, one, variant=name, dataset="d") for name, one in zip(names, (before, after)))
    return compared(*sides, policy)


def test_asking_records_ranks_and_failures() -> None:
    def system(question: str) -> Answer:
        if "2" in question:
            raise ValueError("no twos")
        return Answer(["doc9", "doc7", "doc9", "doc8"], abstained=False, confidence=0.5)

    items = ITEMS[7:13]
    seen: list[int] = []
    found = ask(items, system, seen.append)
    assert [o.rank for o in found] == [2, 3, 1, 0, 0, 0]
    assert found[5].error == "ValueError: no twos"
    assert found[0].latency_ms is not None
    assert seen == [1, 2, 3, 4, 5, 6]


def test_an_interrupt_is_not_an_outcome() -> None:
    def system(question: str) -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(ITEMS[:1], system)


def test_rank_counts_documents_not_passages() -> None:
    assert rank_of(ITEMS[7], ["a", "a", "b", "doc7"]) == 3
    assert rank_of(ITEMS[7], ["a"]) == 0
    assert rank_of(ITEMS[0], ["doc0"]) == 0, "an unanswerable question has no right document"


def test_report_averages_over_the_items_a_metric_applies_to() -> None:
    found = report(ITEMS, outcomes(0.0), name="A")
    answerable = sum(item.answerable for item in ITEMS)
    assert found.metrics["ndcg@10"].n == answerable
    assert found.metrics["right_decision"].n == len(ITEMS) == 300
    assert found.metrics["ndcg@10"].clusters == sum(c % 7 != 0 for c in range(50))
    assert found.auroc is not None
    assert 0.8 < found.auroc.low < found.auroc.estimate < found.auroc.high <= 1
    assert found.aurc is not None and 0 <= found.aurc < 1
    text = render_report(found)
    assert "nDCG@10" in text
    assert "abstentions that were right" in text


def test_a_better_candidate_goes_a_worse_one_does_not() -> None:
    better = compare(ITEMS, outcomes(0.0), outcomes(0.8, 1))
    assert better.verdict.decision == "GO"
    assert better.comparison("ndcg@10").difference.low > 0
    assert better.comparison("ndcg@10").p_holm < 0.025
    worse = compare(ITEMS, outcomes(0.0), outcomes(-0.8, 1))
    assert worse.verdict.decision == "NO-GO"
    same = compare(ITEMS, outcomes(0.0), outcomes(0.0))
    assert same.verdict.decision == "NO-GO"
    assert "the same on every item" in same.verdict.reason


def test_a_guard_stops_a_candidate_that_ranks_better_but_never_answers() -> None:
    mute = [dataclasses.replace(o, abstained=True) for o in outcomes(0.8, 1)]
    experiment = compare(ITEMS, outcomes(0.0), mute)
    assert dict(experiment.verdict.checks)["ndcg@10"].decision == "GO"
    assert experiment.verdict.decision == "NO-GO"


def test_lower_latency_is_better() -> None:
    slow = [dataclasses.replace(o, latency_ms=(o.latency_ms or 0) + 50) for o in outcomes(0.8, 1)]
    policy = Policy("ndcg@10", guards={"latency_ms": non_inferiority(20, better="lower")})
    assert compare(ITEMS, outcomes(0.0), slow, policy).verdict.decision == "NO-GO"
    assert compare(ITEMS, slow, outcomes(0.8, 1), policy).comparison("latency_ms").better == 300


def test_errors_leave_as_pairs_and_are_no_zeros() -> None:
    broken = outcomes(0.8, 1)
    for i in (8, 20):
        broken[i] = Outcome(error="Timeout: 30 s")
    whole, partly = (compare(ITEMS, outcomes(0.0), o) for o in (outcomes(0.8, 1), broken))
    assert (partly.excluded, whole.excluded) == (2, 0)
    assert partly.comparison("right_decision").difference.n == 298
    assert partly.comparison("ndcg@10").difference.n == whole.comparison("ndcg@10").difference.n - 2
    assert partly.comparison("ndcg@10").reasons == {"Timeout: 30 s": 2}
    assert partly.verdict.decision == "GO"
    assert "2 left out" in rendered(partly)


def test_too_many_errors_decide_nothing() -> None:
    broken = [Outcome(error="down") if i % 10 == 0 else o for i, o in enumerate(outcomes(0.8, 1))]
    verdict = compare(ITEMS, outcomes(0.0), broken).verdict
    assert verdict.decision == "INCONCLUSIVE"
    assert "items have no ndcg@10 (" in verdict.reason and "times: down)" in verdict.reason


def test_a_system_that_always_fails_is_recorded_not_raised() -> None:
    dead = compare(ITEMS, outcomes(0.0), [Outcome(error="down")] * len(ITEMS))
    assert (dead.verdict.decision, dead.excluded, len(dead.comparisons)) == ("INCONCLUSIVE", 300, 0)
    assert from_json(json.loads(json.dumps(to_json(dead)))) == dead
    assert "INCONCLUSIVE" in rendered(dead)
    alone = report(ITEMS, [Outcome(error="down")] * len(ITEMS), name="dead")
    assert (alone.items, alone.errors) == (0, 300)
    assert "failed on every question" in render_report(alone)


def test_an_experiment_survives_json(tmp_path: Path) -> None:
    made = compare(ITEMS, outcomes(0.0), outcomes(0.5, 1), names=("A", "B"))
    write_experiment(tmp_path, made)
    text = (tmp_path / "experiment.json").read_text(encoding="utf-8")
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read_file(tmp_path / "experiment.json") == made
    assert row["items"][8]["candidate"][0]["output"]["rank"] == made.candidate.items[8].output["rank"]
    assert "| nDCG@10 |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert row["code"] == code_digests() and set(row["candidate"]["scorers"]) == set(SHOWN)
    assert {"gate.py", "experiments/pairing.py", "statistics/paired.py"} <= set(row["code"])


def test_the_table_lines_up() -> None:
    text = rendered(compare(ITEMS, outcomes(0.0), outcomes(0.5, 1), names=("live", "new")))
    lines = text.splitlines()
    header = next(line for line in lines if line.startswith("metric"))
    rows = [line for line in lines if line.startswith(("nDCG@10", "recall@", "MRR"))]
    assert len(rows) == 5
    assert {line.index("[") for line in rows} == {rows[0].index("[")}
    assert len(header) == len(rows[0])
    assert lines[-1].startswith(("GO:", "NO-GO:", "INCONCLUSIVE:"))


def test_what_does_not_belong_together_is_refused() -> None:
    good = outcomes(0.0)
    with pytest.raises(InputError, match="300 items but 299"):
        compare(ITEMS, good, good[1:])
    with pytest.raises(InputError, match="hold no items"):
        compare([], [], [])
    mixed = [dataclasses.replace(ITEMS[0], split="dev"), *ITEMS[1:]]
    with pytest.raises(InputError, match="dev, test"):
        compare(mixed, good, good)
    with pytest.raises(InputError, match="both the primary"):
        Policy("ndcg@10", guards={"ndcg@10": superiority()})
    with pytest.raises(InputError, match="one length"):
        outcomes_from_arrays([1, 2], [False], [0.1, 0.2])
    with pytest.raises(InputError, match="whole number from 0"):
        outcomes_from_arrays([-1], [False], [0.1])


def test_the_policy_s_strictest_rule_sets_the_level() -> None:
    policy = Policy("ndcg@10", superiority(error_rate=0.005))
    experiment = compare(ITEMS, outcomes(0.0), outcomes(0.8, 1), policy)
    assert experiment.comparison("ndcg@10").difference.level == pytest.approx(0.99)


def test_every_metric_is_between_its_bounds() -> None:
    experiment = compare(ITEMS, outcomes(0.0), outcomes(0.3, 1))
    assert [c.metric for c in experiment.comparisons][:2] == ["ndcg@10", "right_decision"]
    assert {c.metric for c in experiment.comparisons} == set(SHOWN)
    for one in experiment.comparisons:
        if one.metric != "latency_ms":
            assert 0 <= one.candidate.low <= one.candidate.estimate <= one.candidate.high <= 1
    assert {(one.by, one.name) for one in experiment.slices} == {("kind", "page"), ("answerable", "yes")}


def test_best_threshold_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        can, right = rng.random(40) < 0.7, rng.random(40) < 0.6
        confidence = np.round(can + rng.normal(0, 1, 40), 1)
        chosen = best_threshold(can, confidence, right)
        served = right_outcome(can, confidence < chosen, right).mean()
        tried = [right_outcome(can, confidence < t, right).mean() for t in (-math.inf, *(confidence + 0.01), math.inf)]
        assert served == pytest.approx(max(tried))
    assert best_threshold([True] * 3, [0.1, 0.2, 0.3], [True] * 3) == -math.inf
    with pytest.raises(InputError):
        best_threshold([True], [math.nan], [True])


@pytest.mark.slow
def test_a_against_a_is_promoted_at_most_at_the_stated_rate_end_to_end() -> None:
    """The same system with other noise, 2,000 times through `compare`: questions of a cluster drift together."""
    items = exam(200, cluster_size=5)
    can = np.array([item.answerable for item in items])
    rng = np.random.default_rng(5)
    cluster = np.array([int(item.cluster[1:]) for item in items])
    go = 0
    repetitions = 2000
    for _ in range(repetitions):
        hardness = rng.normal(size=200)
        sides = []
        for _ in range(2):
            logit = hardness + rng.normal(0, 0.7, 40)[cluster] + rng.normal(0, 0.5, 200)
            rank = np.where(can & (logit < 2), np.ceil(np.exp(np.clip(logit, -3, 3))), 0).astype(int)
            sides.append([Outcome(int(r), bool(a)) for r, a in zip(rank, rng.random(200) < 0.1)])
        experiment = compare(items, *sides, Policy("ndcg@10"))
        go += experiment.verdict.decision == "GO"
    assert go / repetitions <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / repetitions)
    assert go / repetitions >= 0.005, "the gate is not so strict that the stated rate means nothing"
