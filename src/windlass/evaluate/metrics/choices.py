"""Multiple choice: the letter that an answer gives, and the option that a model finds likeliest."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.texts import References, paired


def letter_in(text: str, letters: str = "ABCD") -> str | None:
    """The letter that an answer chooses; None where it chooses none, or where more than one could be meant.

    In this order: the last that is said to be the answer, as in `the answer is (B)`, `Answer: B`, `**B**` and
    `\\boxed{B}`; one that the text begins with, as `B` or `(B) because`; the only one that stands alone in it.
    """
    one = f"([{re.escape(letters)}])"
    said = [
        match
        for pattern in (
            rf"(?i:answer|choice|option)(?i:\s+is)?\s*:?\s*[*(\[]*{one}\b",
            rf"\\boxed\{{\(?{one}\)?\}}",
            rf"\*\*\(?{one}\)?\W?\*\*",
        )
        for match in re.finditer(pattern, text)
    ]
    if said:
        return max(said, key=lambda match: match.start(1))[1]
    begins = re.match(rf"\s*[(\[]?{one}(?:[)\].:,]|\s*$|\s*\n)", text)
    if begins:
        return begins[1]
    text = re.sub(r"(^|[.!?]\s+)[AI](?= [a-z])", r"\1", text)  # the words
    alone = set(re.findall(rf"(?<![\w']){one}(?![\w'])", text))
    return alone.pop() if len(alone) == 1 else None


def chosen(found: Sequence[str], right: References, letters: str = "ABCD") -> NDArray[np.float64]:
    """Per item 1.0 where the answer chooses a right letter. Raises `InputError` as `paired`, and naming an item whose
    right answer is none of the letters."""
    if not letters or len(set(letters)) < len(letters):
        raise InputError(f"The letters {letters!r} are not told apart.", 'Give them once each, as "ABCD".')
    scores = []
    for number, (text, references) in enumerate(paired(found, right), start=1):
        for one in references:
            if one.strip() not in list(letters):
                raise InputError(f"Item {number}: the right answer {one[:80]!r} is none of {', '.join(letters)}.")
        scores.append(float(letter_in(text, letters) in [one.strip() for one in references]))
    return np.array(scores)


def likeliest(
    log_likelihoods: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]] | None = None
) -> NDArray[np.int64]:
    """Per item the number of the option with the highest log-likelihood; of equal ones the first.

    lengths: of each option, in bytes or tokens: then the log-likelihood per unit decides ("acc_norm" of lm-eval), which
    takes from short options what they owe to being short. Items may differ in how many options they have. Raises
    `InputError` naming an item without options, with NaN, or with lengths that do not fit.
    """
    if not len(log_likelihoods) or (lengths is not None and len(lengths) != len(log_likelihoods)):
        raise InputError("There are no items to choose for, or not as many lengths as items.")
    best = []
    for number, row in enumerate(log_likelihoods):
        logs = np.asarray(row, dtype=np.float64)
        if logs.ndim != 1 or not logs.size or np.isnan(logs).any():
            raise InputError(f"Item {number + 1} has no options, or one whose log-likelihood is NaN.")
        if lengths is not None:
            units = np.asarray(lengths[number], dtype=np.float64)
            if units.shape != logs.shape or not (units >= 1).all():
                raise InputError(f"Item {number + 1}: {logs.size} options need as many lengths of 1 or more.")
            logs = logs / units
        best.append(int(np.argmax(logs)))
    return np.array(best)
