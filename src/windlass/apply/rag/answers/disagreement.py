"""Sentences that cannot both be right: the same thing said with another number, another date, or a "not".

A rule over words, meant to be silent rather than wrong. Two sentences are about the same thing when one says hardly
anything that the other does not; then a number with the same unit, or the year of the same event, must agree, and one
of them may not deny what the other says. Sentences that differ in what they are about (the red pump, the blue pump), or
when (in 2019, in 2020), or under which condition (for members) agree as far as this rule knows.

A model that judges pairs of sentences sees more: `by_classes` asks one that was trained on inference pairs, `by_model`
a language model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from windlass.apply.prompts import prompt
from windlass.apply.rag.answers.claims import DATE, OPPOSITES, YEAR, Claim
from windlass.apply.rag.answers.untrusted import Suspect, part, within
from windlass.apply.rag.sentences import sentence_spans
from windlass.apply.tasks.running import asked, note
from windlass.core import semconv
from windlass.core.errors import InputError
from windlass.core.protocols import ChatModel, Classifying
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, Citation, Message

PROMPT = "disagreement"
Contradictions = Literal["rule", "model", "off"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    first: Citation
    """A sentence that was cited, or holds what was."""
    second: Citation
    """A sentence of another passage."""
    what: str
    """What is not the same, as it can be shown to a person."""


_HEADINGS = re.compile(r"(?:#{1,6}[ \t][^\n]*\n\s*)*")
Pair = tuple[Citation, Citation]
Disagreeing = Callable[[Sequence[Pair]], Sequence[str | None]]
"""What is not the same in each pair of sentences; None where they agree, or are about different things."""


def disagreements(
    cited: Sequence[Citation],
    passages: Sequence[Citation],
    judge: Disagreeing | None = None,
    *,
    barred: Sequence[Suspect] = (),
    most: int = 3,
) -> list[Disagreement]:
    """Between the sentences that quotations stand in and all sentences of other passages, at most `most`.

    `judge` looks at pairs that share words; None means the rule. What is `barred` says nothing.
    """
    pairs = [(a, b) for a, b in _pairs(cited, passages) if not within(b, barred)]
    found = (judge or by_rule)(pairs) if pairs else ()
    told = [Disagreement(a, b, what) for (a, b), what in zip(pairs, found, strict=True) if what]
    return told[:most]


def by_rule(pairs: Sequence[Pair]) -> list[str | None]:
    return [_differing(Claim.of(a.quote), Claim.of(b.quote)) for a, b in pairs]


def by_classes(classifier: Classifying, least: float = 0.8) -> Disagreeing:
    """A model that sorts pairs of texts into entailment, neutral and contradiction; `least`: from which probability."""
    labels = [label.lower() for label in classifier.labels]
    if "contradiction" not in labels:
        raise InputError(
            f"{classifier.name} knows no contradictions: its labels are {', '.join(classifier.labels)}.",
            "Give a model that was trained on inference pairs.",
        )
    place = labels.index("contradiction")

    def judge(pairs: Sequence[Pair]) -> list[str | None]:
        found = classifier.classify([(a.quote, b.quote) for a, b in pairs]).probabilities[:, place]
        return ["they contradict each other" if one >= least else None for one in found.tolist()]

    return judge


def by_model(model: ChatModel, recorder: Recorder | None = None) -> Disagreeing:
    """A language model, asked once for all pairs. What it says is shown only if it is one line of a pair's number."""

    def judge(pairs: Sequence[Pair]) -> list[str | None]:
        told = "\n".join(f"{n}. A: {_line(a)}\n   B: {_line(b)}" for n, (a, b) in enumerate(pairs, start=1))
        rules, digest = prompt(PROMPT)
        request = ChatRequest([Message("system", rules), Message("user", told)])
        with asked(recorder or Recorder(None), model, request) as span:
            span[semconv.PROMPT_NAME], span[semconv.PROMPT_DIGEST] = PROMPT, digest
            response = model.complete(request)
            note(span, response)
        reply = response.message.text
        lines = {int(m[1]): m[2].strip()[:200] for m in re.finditer(r"^\s*(\d+)\s*[:.]\s*(.+)$", reply, re.MULTILINE)}
        return [lines.get(number) for number in range(1, len(pairs) + 1)]

    return judge


def _line(citation: Citation) -> str:
    return " ".join(citation.quote.split())


def _pairs(cited: Sequence[Citation], passages: Sequence[Citation]) -> Iterator[Pair]:
    """Each cited sentence with the sentences of other passages that share two words of weight with it."""
    sentences = [(number, one) for number, passage in enumerate(passages) for one in _sentences(passage)]
    words = [Claim.of(one.quote).words for _, one in sentences]
    seen: set[frozenset[tuple[str, int]]] = set()
    for (owner, sentence), mine in zip(sentences, words):
        if not any(_touch(sentence, quoted) for quoted in cited):
            continue
        for (other, against), theirs in zip(sentences, words):
            places = frozenset({(sentence.document, sentence.start), (against.document, against.start)})
            if other != owner and len(places) == 2 and places not in seen and len(mine & theirs) >= 2:
                seen.add(places)
                yield sentence, against


def _touch(sentence: Citation, quoted: Citation) -> bool:
    return sentence.document == quoted.document and quoted.start < sentence.end and sentence.start < quoted.end


def _sentences(passage: Citation) -> list[Citation]:
    """Without the headings that stand right above them."""
    found = []
    for start, end in sentence_spans(passage.quote):
        heading = _HEADINGS.match(passage.quote, start, end)
        found.append(part(passage, heading.end() if heading else start, end))
    return found


def _differing(a: Claim, b: Claim) -> str | None:
    if a.question or b.question:
        return None
    opposite = next(
        (
            pair
            for pair in OPPOSITES
            if len(pair & a.words) == 1 == len(pair & b.words) and pair & a.words != pair & b.words
        ),
        frozenset[str](),
    )
    only_a, only_b = a.words - b.words - opposite, b.words - a.words - opposite
    if only_a and only_b:
        return None  # each is about something that the other is not about
    if (only_a & a.bound) or (only_b & b.bound) or len(only_a | only_b) > max(2, len(a.words & b.words)):
        return None
    if len(a.words & b.words) < 2:
        return None
    if not (a.loose or b.loose):
        for unit in a.numbers.keys() & b.numbers.keys():
            mine, other = a.numbers[unit], b.numbers[unit]
            written = f"{a.shown[unit]} / {b.shown[unit]}"
            if mine & other or ("." in written and _thousandfold(mine, other)):
                continue
            if unit != YEAR and a.numbers.get(YEAR) != b.numbers.get(YEAR):
                continue  # of another time
            if unit == YEAR and _besides(a, b):
                continue  # the year says when, and not what
            return written
    if a.numbers.keys() & b.numbers.keys() and any(a.numbers.get(u) != b.numbers.get(u) for u in a.numbers):
        return None
    if (a.denied != b.denied) != bool(opposite):
        return f"{' / '.join(sorted(opposite))}" if opposite else "one of them says not"
    return None


def _besides(a: Claim, b: Claim) -> bool:
    return any(unit not in (YEAR, DATE) for unit in a.numbers.keys() & b.numbers.keys())


def _thousandfold(some: Collection[float], others: Collection[float]) -> bool:
    """Whether they may be the same number, its thousands set apart by a point in one of them."""
    return any(min(x, y) > 0 and abs(max(x, y) / min(x, y) - 1000) < 1e-6 for x in some for y in others)
