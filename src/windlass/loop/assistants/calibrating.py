"""When the assistant should rather say nothing: a threshold that keeps a promise.

Half of some questions with known answers fit the rule that says how likely an answer is right; the other half choose
the threshold above which it is given, so that of the answers given at most a stated share is wrong, with a stated
confidence (`evaluate.statistics.risk`). Which half a question falls into depends on its cluster alone:
what was written together stays together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.assistant import Assistant, AssistantSettings
from windlass.apply.rag.answers.abstention import fit
from windlass.apply.rag.answers.answering import Found
from windlass.apply.rag.answers.reading import Reading, fit_reading
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.protocols import Embedder
from windlass.core.trace import Recorder
from windlass.core.workspace import Workspace
from windlass.evaluate.exam.items import load_items
from windlass.evaluate.metrics.selective import RiskCoverage, aurc, auroc, risk_coverage
from windlass.evaluate.statistics.risk import Guarantee, guaranteed
from windlass.loop.assistants.assemble import TASK, load_assistant, reader_artifact
from windlass.loop.assistants.evaluation import LIVE, exam_of, find_variant
from windlass.loop.assistants.known import Known, read_known
from windlass.loop.assistants.variant import make_variant, parts, read_variant, reader_of
from windlass.loop.releasing.releases import promote
from windlass.loop.training.chart import chart


@dataclass(frozen=True, slots=True)
class Calibrated:
    settings: AssistantSettings
    guarantee: Guarantee
    curve: RiskCoverage
    """On the half that chose the threshold."""
    aurc: float
    auroc: float | None
    """Whether the confidence tells right answers from wrong ones; None where all were of one kind."""
    fitted: int
    """Questions that the rule was fitted on."""

    def render(self) -> str:
        promise = self.guarantee
        points = [*zip(self.curve.coverage.tolist(), self.curve.risk.tolist())]
        lines = [
            chart({"wrong answers among those given": points}, x_label="share of questions answered"),
            "",
            f"answers with a confidence of at least {promise.threshold:.3f}: "
            f"{100 * promise.coverage:.1f} % of the questions",
            f"wrong among them: {100 * promise.risk:.1f} %, and with {100 * promise.level:g} % confidence at most "
            f"{100 * promise.bound:.1f} %",
            f"chosen by {promise.n:,} questions, worth {promise.effective:,.0f} independent ones; the rule was "
            f"fitted on {self.fitted:,} others",
            f"area under the curve {self.aurc:.3f}" + ("" if self.auroc is None else f", AUROC {self.auroc:.3f}"),
        ]
        return "\n".join(lines)


def calibrate(assistant: Assistant, questions: Sequence[Known], risk: float, level: float = 0.95) -> Calibrated:
    """Fits the rule of what answers here (the reader's, or that of the search) and chooses its threshold.

    Without a reader an answer counts as right when the best passage is of the right document, or the passages hold the
    words of the answer; whether a language model makes the best of them is not asked. Raises `InputError` where the
    questions do not prove the promise for any threshold.
    """
    seen = [_seen(assistant, known) for known in questions]
    fitting = np.array([_first_half(known.cluster) for known in questions])
    if not fitting.any() or fitting.all():
        raise InputError(
            f"{len(questions)} questions of {len({k.cluster for k in questions})} clusters are too few for this.",
            "Give questions about more documents.",
        )
    settings = _fitted(assistant.settings, [one for one, mine in zip(seen, fitting) if mine])
    choosing = [(one, known.cluster) for one, known, mine in zip(seen, questions, fitting) if not mine]
    confidence = np.array([one.judged(settings)[0] for one, _ in choosing])
    wrong = np.array([not one.judged(settings)[1] for one, _ in choosing])
    promise = guaranteed(confidence, wrong, risk, level, [cluster for _, cluster in choosing])
    if promise is None:
        raise InputError(_unproved(wrong, risk, level), "Allow a higher risk, or give more questions.")
    if assistant.reader is not None:
        settings = replace(settings, reading=replace(settings.reading, threshold=promise.threshold))
    else:
        settings = replace(settings, abstention=replace(settings.abstention, threshold=promise.threshold))
    both = bool(wrong.any() and not wrong.all())
    return Calibrated(
        settings,
        promise,
        risk_coverage(confidence, wrong),
        aurc(confidence, wrong),
        auroc(~wrong, confidence) if both else None,
        int(fitting.sum()),
    )


def calibrate_variant(
    ws: Workspace,
    ref: str = LIVE,
    *,
    risk: float,
    level: float = 0.95,
    questions: Path | None = None,
    task: str = TASK,
    embedder: Embedder | None = None,
) -> tuple[Artifact, Calibrated]:
    """A variant that keeps the promise, and what it rests on.

    The questions are those of the exam's dev split, or of a file. The reader that it was calibrated with is a part of
    it from then on.
    """
    variant = find_variant(ws, ref, task)
    assistant = load_assistant(ws, variant, embedder=embedder, recorder=Recorder(None))
    known = read_known(questions) if questions is not None else exam_questions(ws, variant)
    found = calibrate(assistant, known, risk, level)
    index, adapter = parts(ws, variant)
    reader = (reader_of(ws, variant) or reader_artifact(ws)) if assistant.reader is not None else None
    card: Mapping[str, Any] = {"calibrated": asdict(found.guarantee), "risk": risk, "aurc": found.aurc}
    spec = replace(read_variant(variant), settings=found.settings)
    return make_variant(ws, spec, index, adapter, reader=reader, name=variant.record.name, card=card), found


def release(ws: Workspace, variant: Artifact, found: Calibrated, task: str = TASK) -> None:
    """Makes the calibrated variant what the task serves."""
    promise = found.guarantee
    reason = (
        f"at most {100 * promise.bound:.1f} % of the answers given are wrong with {100 * promise.level:g} % "
        f"confidence, by {promise.n:,} questions"
    )
    promote(ws, task, variant, None, reason)


def exam_questions(ws: Workspace, variant: Artifact) -> list[Known]:
    return [Known(item.question, item.cluster, item.document) for item in load_items(exam_of(ws, variant), "dev")]


# what was seen of a question ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    found: Found
    right: bool
    """Whether what was found answers the question."""
    readings: Sequence[Reading] | None
    readings_right: Sequence[bool] = ()

    def judged(self, settings: AssistantSettings) -> tuple[float, bool]:
        """The confidence by the rules of `settings`, and whether the answer would be right."""
        if self.readings is None:
            return float(settings.abstention.probabilities(self.found.features[None])[0]), self.right
        if not self.readings:
            return 0.0, False
        evidence = np.array([one.evidence for one in self.readings])
        probabilities: NDArray[np.float64] = settings.reading.probabilities(evidence)
        best = int(np.argmax(probabilities))
        return float(probabilities[best]), self.readings_right[best]


def _seen(assistant: Assistant, known: Known) -> _Seen:
    found = assistant.find(known.question)
    cited = found.passages[: 1 if known.answers is None else None]
    right = any(known.right(one.document, one.quote, read=False) for one in cited)
    if assistant.reader is None:
        return _Seen(found, right, None)
    readings = assistant.readings(found)
    flags = [known.right(one.answer.document, one.answer.quote, read=True) for one in readings]
    return _Seen(found, right, readings, flags)


def _fitted(settings: AssistantSettings, seen: Sequence[_Seen]) -> AssistantSettings:
    if any(one.readings is not None for one in seen):
        rule = fit_reading([one.readings or () for one in seen], [one.readings_right for one in seen])
        return replace(settings, reading=rule)
    features = np.stack([one.found.features for one in seen])
    return replace(settings, abstention=fit(features, [one.right for one in seen]))


def _first_half(cluster: str) -> bool:
    return hashlib.sha256(cluster.encode("utf-8", "replace")).digest()[0] % 2 == 0


def _unproved(wrong: NDArray[np.bool_], risk: float, level: float) -> str:
    least = math.ceil(math.log(1 - level) / math.log(1 - risk))
    return (
        f"{wrong.size:,} questions ({int(wrong.sum()):,} answered wrong) prove for no threshold that at most "
        f"{100 * risk:g} % of the answers given are wrong, with {100 * level:g} % confidence; even without any wrong "
        f"answer it takes {least:,} or more."
    )
