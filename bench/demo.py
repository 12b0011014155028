"""The turn, repeated: how much a candidate gains, how often it is promoted, and how often the gate errs.

For each seed the documentation of this Python is divided anew into harvest, dev and test files, the assistant is asked
the harvest questions by simulated users, and a turn is made: once as it is, once with shuffled answers (deliberately
worse). The gain is the ratio of held-out nDCG@10, candidate / incumbent, with a bootstrap over files that keeps all
questions of a file, of all seeds, together. The incumbent is the default hybrid search.

Wrong promotions are counted on A/A comparisons: which of the two systems is called the candidate is drawn by lot, file
by file, so that neither is better by construction, while the scores stay real ones.

    python -m bench.demo [--seeds 5] [--workspace FOLDER]     with a folder, vectors are kept and a second run is quick
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from windlass.apply.assistant import AssistantSettings
from windlass.apply.rag.answers.quoting import QuoteSettings
from windlass.apply.rag.index import build_index
from windlass.build.corpus import build_corpus
from windlass.core.protocols import Embedder
from windlass.core.readers import PythonDocs
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.deriving import derive_exam
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.experiments.experiment import Experiment
from windlass.evaluate.experiments.pairing import paired
from windlass.evaluate.experiments.stored import read_experiment
from windlass.evaluate.gate import Rule, decide, superiority
from windlass.evaluate.repeated import error_rate
from windlass.evaluate.statistics.intervals import wilson_interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.assistants.assemble import cached, load_assistant
from windlass.loop.assistants.variant import VariantSpec
from windlass.loop.releasing import releases
from windlass.loop.turning.candidate import Recipe, first_variant
from windlass.loop.turning.one_recipe import TurnReport, turn
from windlass.loop.turning.users import simulate_users

KINDS = ("topic", "docstring")
AA_TRIALS = 400
"""A/A comparisons for each seed."""


@dataclass(frozen=True)
class Scores:
    """nDCG@10 of the answerable test questions of one turn, and the file of each."""

    incumbent: NDArray[np.float64]
    candidate: NDArray[np.float64]
    files: list[str]

    @classmethod
    def of(cls, experiment: Experiment) -> Scores:
        column = paired(experiment.pairs, "ndcg@10")
        return cls(column.before, column.after, list(column.clusters))


def prepared(home: Path, seed: int, embedder: Embedder, users: int | None) -> Workspace:
    """A workspace in which the first variant is live and its users have spoken."""
    ws = Workspace(home)
    corpus = ws.artifacts.find("corpus") or build_corpus(ws, PythonDocs())
    exam = ws.artifacts.find("exam") or derive_exam(ws, corpus, seed=seed)
    index = ws.artifacts.find("index") or build_index(ws, corpus, embedder, exam=exam, kinds=KINDS)
    if releases.live(ws, "assistant") is None:
        brief = VariantSpec(settings=AssistantSettings(quotes=QuoteSettings(quotes=1, passages=1)))
        first = first_variant(ws, index, exam, cached(ws, embedder), spec=brief)
        releases.promote(ws, "assistant", first, None, "the first")
    asked = [item for item in load_items(exam, "harvest") if item.answerable][:users]
    live = ws.artifacts.get(releases.history(ws, "assistant")[-1].variant)
    assistant = load_assistant(ws, live, embedder=cached(ws, embedder), writes=False)
    assistant.index.embed([item.question for item in asked])  # all at once is quicker; the vectors are kept
    simulate_users(ws, assistant, asked)
    return ws


def wrong_promotions(scores: Scores, rule: Rule, trials: int, seed: int) -> int:
    """How often the gate says GO when, file by file, a coin decides which system is called the candidate."""
    rng = np.random.default_rng(seed)
    files, codes = np.unique(scores.files, return_inverse=True)
    wrong = 0
    for _ in range(trials):
        swap = rng.random(len(files))[codes] < 0.5
        a = np.where(swap, scores.candidate, scores.incumbent)
        b = np.where(swap, scores.incumbent, scores.candidate)
        difference = paired_difference(a, b, scores.files, rule.level).difference
        wrong += decide(difference, rule=rule).decision == "GO"
    return wrong


def ratio_interval(all_scores: list[Scores], resamples: int = 4999, seed: int = 0) -> tuple[float, float, float]:
    """Candidate's mean / incumbent's over all turns, with a 95 % interval from resampled files."""
    files = sorted({file for scores in all_scores for file in scores.files})
    place = {file: i for i, file in enumerate(files)}
    before, after = np.zeros(len(files)), np.zeros(len(files))
    for scores in all_scores:
        codes = [place[file] for file in scores.files]
        np.add.at(before, codes, scores.incumbent)
        np.add.at(after, codes, scores.candidate)
    drawn = np.random.default_rng(seed).integers(0, len(files), (resamples, len(files)))
    ratios = after[drawn].sum(1) / before[drawn].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(after.sum() / before.sum()), float(low), float(high)


def show(seed: int, kind: str, report: TurnReport, took: float) -> None:
    experiment = read_experiment(report.experiment)
    main = experiment.comparison("ndcg@10").difference
    compared = experiment.comparison("ndcg@10")
    before, after = compared.incumbent.estimate, compared.candidate.estimate
    said = "promoted" if report.promoted else f"refused ({report.decision})"
    print(
        f"{seed:>4}  {kind:<9} {before:>9.4f} {after:>9.4f}  {main.estimate:+.4f} [{main.low:+.4f}, {main.high:+.4f}]"
        f"  {report.error_rate:<8g} {said:<20} {took:>6.1f} s",
        flush=True,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--users", type=int, default=None, help="questions asked in each turn; default: all there are")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of the embedder")
    arguments = parser.parse_args(argv)
    from windlass.serve.encoders.embedder import MiniLM

    embedder = MiniLM.load(precision=arguments.precision)
    temporary = None if arguments.workspace else tempfile.TemporaryDirectory()
    folder = arguments.workspace or Path(temporary.name if temporary else ".")
    all_scores: list[Scores] = []
    verdicts: Counter[str] = Counter()
    wrong, rule = 0, superiority(error_rate=error_rate(1))
    print("seed  candidate incumbent candidate  difference of nDCG@10     error     verdict              training+test")
    for seed in range(arguments.seeds):
        home = folder / f"seed{seed}"
        cache = Path(".windlass") / "cache" / "vectors.db"
        if seed and not (home / cache).exists():  # most passages are the same: their vectors are known
            (home / cache).parent.mkdir(parents=True)
            shutil.copyfile(folder / f"seed{seed - 1}" / cache, home / cache)
        with prepared(home, seed, embedder, arguments.users) as ws:
            for kind in ("learned", "shuffled"):
                started = time.perf_counter()
                report = turn(ws, recipe=Recipe(kind=kind, seed=seed), embedder=embedder)
                show(seed, kind, report, time.perf_counter() - started)
                verdicts[f"{kind} {'promoted' if report.promoted else 'refused'}"] += 1
                if kind == "learned":
                    all_scores.append(Scores.of(read_experiment(report.experiment)))
        wrong += wrong_promotions(all_scores[-1], rule, AA_TRIALS, seed)
    trials = AA_TRIALS * arguments.seeds
    aa = wilson_interval(wrong, trials)
    ratio, low, high = ratio_interval(all_scores)
    print(f"\nnDCG@10 of the candidate / of the incumbent: {ratio:.4f} [{low:.4f}, {high:.4f}]")
    print(f"promoted {verdicts['learned promoted']} of {arguments.seeds} learned candidates,")
    print(f"refused {verdicts['shuffled refused']} of {arguments.seeds} deliberately worse ones")
    print(f"A/A: {wrong} of {trials} wrongly promoted = {aa.estimate:.4f} [{aa.low:.4f}, {aa.high:.4f}],")
    print(f"stated error rate {rule.error_rate:g}")
    if temporary is not None:
        temporary.cleanup()
    result = {
        "bench": "demo",
        "ratio": round(ratio, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "against": "incumbent",
        "seeds": arguments.seeds,
        "promoted": verdicts["learned promoted"],
        "worse_refused": verdicts["shuffled refused"],
        "aa_trials": trials,
        "aa_wrong": wrong,
        "aa_rate": round(aa.estimate, 4),
        "aa_low": round(aa.low, 4),
        "aa_high": round(aa.high, 4),
        "error_rate": rule.error_rate,
    }
    print(json.dumps(result))
    return int(verdicts["shuffled promoted"] > 0 or aa.low > rule.error_rate)


if __name__ == "__main__":
    sys.exit(main())
