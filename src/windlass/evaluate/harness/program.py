"""Programs that the model writes: does one pass its tests? They run in a sandbox (`evaluate.metrics.code`).

    pass@1     share of programs that pass; with --repeats n also pass@k for k up to n, without bias

Source: Chen et al., arXiv 2107.03374.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Measure, Scored
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Reply, Request, Write
from windlass.evaluate.harness.rows import Row
from windlass.evaluate.metrics.code import humaneval, mbpp, pass_at_k, run_programs
from windlass.evaluate.statistics.betting import betting_interval
from windlass.evaluate.statistics.shares import share_interval

_FORMS = {"humaneval": humaneval, "mbpp": mbpp}
_KS = (1, 5, 10, 100)
PASSED = "pass@1"


@dataclass(frozen=True, kw_only=True)
class Program(Benchmark):
    prompt: str
    form: Literal["humaneval", "mbpp"]
    """How a row says its tests, and how a program is made of what was written."""
    shown: str
    """What an example is shown with: a template of the right program."""
    stop: tuple[str, ...] = ()
    max_tokens: int = 512

    texts: ClassVar[tuple[str, ...]] = ("prompt", "shown")

    @property
    def metrics(self) -> Sequence[str]:
        return (PASSED,)

    def example(self, row: Row) -> Example:
        return Example(templates.text(self.prompt, row), templates.text(self.shown, row))

    def check(self, row: Row) -> None:
        self.example(row)
        _FORMS[self.form](row, "")

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        return [Write(frame.prompt(templates.text(self.prompt, row)), self.max_tokens, self.stop)]

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        (scored,) = self.score_all([(row, replies)])
        return scored

    def score_all(self, asked: Sequence[tuple[Row, Sequence[Reply]]]) -> list[Scored]:
        """Several at once, each in a process of its own."""
        said = [str(reply) for _, (reply,) in asked]
        programs = [_FORMS[self.form](row, text) for (row, _), text in zip(asked, said, strict=True)]
        ran = run_programs(programs) if programs else []
        return [
            Scored({PASSED: float(one.passed)}, {"text": text, "why": one.why}, None)
            for text, one in zip(said, ran, strict=True)
        ]

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        """Per problem over its programs; a problem has as many as its repeats that did not fail. Problems are taken for
        independent: these benchmarks know no clusters."""
        passed: dict[str, list[float]] = {}
        for one in items:
            if PASSED in one.values:
                passed.setdefault(one.item, []).append(one.values[PASSED])
        if not passed:
            return []
        samples, right = [len(one) for one in passed.values()], [sum(one) for one in passed.values()]
        found = []
        for k in (k for k in _KS if k <= min(samples)):
            chances = pass_at_k(samples, right, k)
            whole = np.isin(chances, (0.0, 1.0)).all()
            interval = share_interval(chances, None, level) if whole else betting_interval(chances, level=level)
            found.append(Measure(f"pass@{k}", interval))
        return found
