"""Questions with known answers, out of a file that a person wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.core.answers import answer_f1
from windlass.core.errors import InputError
from windlass.evaluate.metrics.answers import holds

_RIGHT = 0.5
"""F1 from which words that were read out count as the right answer."""


@dataclass(frozen=True, slots=True)
class Known:
    """A question whose answer is known, by the document that holds it or by its words."""

    question: str
    cluster: str
    document: str | None = None
    answers: tuple[str, ...] | None = None
    """None: only the document is known. Empty: no document holds an answer."""

    def right(self, document: str, quoted: str, *, read: bool) -> bool:
        """Whether a quotation answers it. `read`: it should be nothing but the answer."""
        if self.answers is None:
            return self.document is not None and document == self.document
        if not self.answers:
            return False
        return answer_f1(quoted, self.answers) >= _RIGHT if read else holds(quoted, self.answers)


def read_known(path: Path) -> list[Known]:
    """Reads JSON lines with `question`, and `answers` (texts; none where no document answers) or `document`; `cluster`
    says which questions belong together, else the document, the context or the question itself does."""
    known = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold other ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}.", "Give a file of JSON lines.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            known.append(_known(line, f"{path}, line {number}"))
    if not known:
        raise InputError(f"{path} holds no questions.", "Write one JSON object a line.")
    return known


def _known(line: str, where: str) -> Known:
    try:
        row = json.loads(line)
        question, document, answers = row["question"], row.get("document"), row.get("answers")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: not a question ({error!r}).", 'Write {"question": …, "answers": […]}.') from error
    if not isinstance(question, str) or not question.strip() or ("document" not in row and answers is None):
        raise InputError(f"{where}: a question needs `question`, and `answers` or `document`.")
    if answers is not None:
        texts = [one.get("text") if isinstance(one, Mapping) else one for one in answers]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"{where}: `answers` is {answers!r}, but must be a list of texts.")
        answers = tuple(texts)
    cluster = row.get("cluster") or document or row.get("context") or question
    return Known(question, str(cluster), document, answers)
