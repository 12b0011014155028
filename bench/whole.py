"""A long text read whole against the passages that a search finds in it: how good the answers are, and what they cost.

    python -m bench.whole                                  CC BY-SA 4.0, as examples/legal_code says
    python -m bench.whole --text code.txt --questions q.jsonl --reader reader --model openai:gpt-5-mini

Questions are JSON lines with `question` and `answers`, words that stand in the text; no answers where it has none. Who
answers: the sentence that is nearest; with `--reader` an extractive reader; with `--model` a language model, whose
quotations are checked word for word. Each answers once from the whole text and once from the `--k` passages found.
Quality is SQuAD's exact match and F1 of the words quoted first; intervals are paired, over the questions. Tokens are
those that were read (a provider's own count, where one was asked, else an estimate), dollars those of the price table.
A last table says what providers of that table would take for the same prompts, with their cache and without.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench._data import data_folder
from bench.retrieval import opened
from numpy.typing import NDArray

from windlass.apply.providers import known
from windlass.apply.rag.answers.answering import written
from windlass.apply.rag.answers.grounded import grounded_request
from windlass.apply.rag.index import HybridIndex
from windlass.apply.rag.sentences import sentence_spans
from windlass.apply.wrappers.tokens import count, estimated
from windlass.core import pricing
from windlass.core.documents import Document
from windlass.core.errors import InputError, WindlassError
from windlass.core.progress import Progress
from windlass.core.protocols import ChatModel, Embedder, Extracting, Hit
from windlass.core.tables import table
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, Usage
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.answers import exact, f1
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.assistants.assemble import load_reader
from windlass.loop.embedders import embedder_named

LICENCE = Path("licenses") / "google-research-datasets__dstc8-schema-guided-dialogue__LICENSE.txt"
"""As Creative Commons gives it out."""
QUESTIONS = Path(__file__).parents[1] / "examples" / "legal_code" / "questions.jsonl"
PRICED = (("openai", "gpt-5-mini"), ("anthropic", "claude-haiku-4-5"), ("google", "gemini-3.5-flash"))
ANSWER = 80
"""Tokens of an answer, for what is only reckoned: a sentence and a quotation."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    answers: Sequence[str]


@dataclass(frozen=True, slots=True)
class Answer:
    words: str
    """"" where none was given."""
    tokens: int
    usd: float | None = None


Answering = Callable[[str, Sequence[Hit]], Answer]
"""Answers a question out of hits: those of a search, or all passages in the order of the text."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one way of answering did with all questions."""

    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    tokens: float
    usd: float | None
    """Tokens and dollars of a question on average; None where no price is known, or nobody is paid."""
    seconds: float
    """The median."""


def asked_in(path: Path) -> list[Question]:
    """Raises `InputError` naming the line that is no question."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            question, answers = row["question"], row["answers"]
            if not isinstance(question, str) or not question.strip() or not isinstance(answers, list):
                raise ValueError("`question` must be a text and `answers` a list")
            if not all(isinstance(answer, str) for answer in answers):
                raise ValueError("`answers` must be texts")
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: not a question ({error}).",
                'Write {"question": "...", "answers": ["words of the text"]}.',
            ) from error
        found.append(Question(question, answers))
    if len(found) < 2:
        raise InputError(f"{path} holds {len(found)} questions.", "Give at least two, better some dozens.")
    return found


def checked(questions: Sequence[Question], text: str) -> None:
    """Raises `InputError` for an answer that does not stand in the text, in capitals or not: nobody could find it."""
    words = " ".join(text.casefold().split())
    for question in questions:
        if question.answers and not any(" ".join(one.casefold().split()) in words for one in question.answers):
            raise InputError(
                f"'{question.answers[0]}', the answer to '{question.text}', does not stand in the text.",
                "Copy it letter by letter.",
            )


# who answers ---------------------------------------------------------------------------------------------------------


class BestSentence:
    """The sentence nearest to the question, by the embedder of the search: what can be said without any other model."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, NDArray[np.float32]] = {}
        """Vectors of sentences: a text does not change from question to question."""

    def __call__(self, question: str, hits: Sequence[Hit]) -> Answer:
        texts = [hit.citation.quote for hit in hits]
        sentences = [text[start:stop] for text in texts for start, stop in sentence_spans(text)]
        if not sentences:
            return Answer("", 0)
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._known]
        if new:
            self._known |= zip(new, self._embedder.embed(new).vectors, strict=True)
        likeness = (
            np.array([self._known[one] for one in sentences]) @ self._embedder.embed([question], "query").vectors[0]
        )
        return Answer(sentences[int(np.argmax(likeness))], sum(map(estimated, texts)) + estimated(question))


def by_reader(reader: Extracting, question: str, hits: Sequence[Hit]) -> Answer:
    """The words of which the reader is surest, against silence in their passage."""
    texts = [hit.citation.quote for hit in hits]
    found = [one for one in reader.find(question, texts) if one is not None]
    best = max(found, key=lambda one: one.margin, default=None)
    return Answer("" if best is None else best.text, sum(estimated(question) + estimated(text) for text in texts))


def by_model(model: ChatModel, question: str, hits: Sequence[Hit]) -> Answer:
    """The first quotation of a language model's answer that stands where the model says it does."""
    passages = [hit.citation for hit in hits]
    saying = written(model, question, passages, ChatRequest([]), "delimit", (), Recorder(None), streamed=False)
    while True:
        try:
            next(saying)
        except StopIteration as ended:
            said = ended.value
            break
    read = said.usage.prompt if said.usage is not None else None
    asked = grounded_request(question, passages, ChatRequest([]))
    words = said.citations[0].quote if said.citations else ""
    return Answer(words, read if read is not None else count(asked).tokens, said.cost)


# measuring -----------------------------------------------------------------------------------------------------------


def measured(
    said: str, answering: Answering, questions: Sequence[Question], given: Sequence[Sequence[Hit]]
) -> Measured:
    answers, took = [], []
    with Progress(said, len(questions), "questions") as progress:
        for question, hits in zip(questions, given, strict=True):
            began = time.perf_counter()
            answers.append(answering(question.text, hits))
            took.append(time.perf_counter() - began)
            progress.update(len(answers))
    words, right = [one.words for one in answers], [question.answers for question in questions]
    paid = [one.usd for one in answers if one.usd is not None]
    usd = sum(paid) / len(paid) if len(paid) == len(answers) else None
    tokens = sum(one.tokens for one in answers) / len(answers)
    return Measured(exact(words, right), f1(words, right), tokens, usd, float(np.median(took)))


def _figures(one: Measured) -> dict[str, Any]:
    return {
        "exact": round(float(one.exact.mean()), 4), "f1": round(float(one.f1.mean()), 4),
        "tokens": round(one.tokens, 1), "usd": one.usd, "seconds": round(one.seconds, 4),
    }  # fmt: skip


# what it would cost --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prompts:
    """Tokens of the prompts of a question, on average, as estimated."""

    whole: int
    shared: int
    """What of it stands before the question, the same to the byte for all of them."""
    passages: int

    @classmethod
    def of(cls, questions: Sequence[Question], whole: Sequence[Hit], found: Sequence[Sequence[Hit]]) -> Prompts:
        asked = [question.text for question in questions]
        longs = [_tokens(question, whole) for question in asked]
        shorts = [_tokens(question, hits) for question, hits in zip(asked, found, strict=True)]
        return cls(round(np.mean(longs)), _tokens("", whole), round(np.mean(shorts)))

    def dollars(self, price: pricing.Price, questions: int) -> tuple[float | None, float | None, float | None]:
        """Of a question with the whole text, when it is asked alone, and on average over so many that are asked while
        the provider has the text in its cache; and with the passages found. None where it is not sold."""
        alone = price.of(Usage(input=self.whole, output=ANSWER))
        later = price.of(Usage(input=self.whole - self.shared, cache_read=self.shared, output=ANSWER))
        cached = None if alone is None or later is None else (alone + (questions - 1) * later) / questions
        return alone, cached, price.of(Usage(input=self.passages, output=ANSWER))


def _tokens(question: str, hits: Sequence[Hit]) -> int:
    return count(grounded_request(question, [hit.citation for hit in hits], ChatRequest([]))).tokens


def priced(prompts: Prompts, questions: int) -> dict[str, dict[str, float | None]]:
    """By provider and model, dollars of 1,000 questions."""
    made = {}
    for seller, name in PRICED:
        if (price := pricing.find(name, seller)) is not None:
            dollars = (None if usd is None else round(1000 * usd, 3) for usd in prompts.dollars(price, questions))
            made[f"{seller}:{name}"] = dict(zip(("whole", "whole_cached", "passages"), dollars, strict=True))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a file (default: CC BY-SA 4.0 of the data folder)")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, help="JSON lines (default: those of the example)")
    parser.add_argument("--reader", help="an extractive reader: a folder, or a model of the workspace")
    parser.add_argument("--model", help="a language model, provider:name; each question is asked twice, and paid for")
    parser.add_argument("--base-url", help="of the model, where it is not the provider's own")
    parser.add_argument("--k", type=int, default=6, help="passages that the search brings (default: %(default)s)")
    parser.add_argument("--embedder", default="minilm", help="of the search (default: %(default)s)")
    parser.add_argument("--workspace", type=Path, help="whose reader it is (default: a temporary folder)")
    args = parser.parse_args(argv)
    path = args.text or data_folder() / LICENCE
    result: dict[str, Any] = {"bench": "whole", "ratio": None, "against": "the passages found: F1 of the last reader"}
    if args.text is None and not path.is_file():
        print(f"skipped: no {path}; set WINDLASS_DATA, or give --text and --questions", file=sys.stderr)
        print(json.dumps({**result, "skipped": "no data"}))
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder, Workspace(args.workspace or Path(folder)) as ws:
            result |= compared(ws, path, args)
    except (WindlassError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


def compared(ws: Workspace, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    text, questions = path.read_text(encoding="utf-8"), asked_in(args.questions)
    checked(questions, text)
    embedder = embedder_named(None, args.embedder)
    index = opened(ws, [Document("text", path.name, "", text)], "whole", embedder)
    whole = [Hit(number, 0.0, citation) for number, citation in enumerate(index.passages())]
    began = time.perf_counter()
    found = [index.search(question.text, args.k) for question in questions]
    searching = (time.perf_counter() - began) / len(questions)
    silent = sum(not question.answers for question in questions)
    print(
        f"{path.name}: {len(text):,} characters, {len(index)} passages; {len(questions)} questions, {silent} without "
        f"an answer; a search for {args.k} passages takes {1000 * searching:.0f} ms"
    )
    lines, figures = [], {}
    for name, answering in contenders(ws, index, args).items():
        read = measured(f"{name}, whole", answering, questions, [whole] * len(questions))
        searched = measured(f"{name}, passages", answering, questions, found)
        searched = replace(searched, seconds=searched.seconds + searching)
        lines += [_line(name, "whole", read), _line(name, "passages", searched), _gained(read, searched)]
        gain = paired_difference(searched.f1, read.f1).difference
        figures[name] = {
            "whole": _figures(read),
            "passages": _figures(searched),
            "f1_of_whole_more": [round(value, 4) for value in (gain.estimate, gain.low, gain.high)],
        }
    print(table(("who", "reads", "exact", "F1", "tokens", "$ / 1,000", "ms"), lines, right=range(2, 7)))
    prompts = Prompts.of(questions, whole, found)
    costs = priced(prompts, len(questions))
    print(
        f"\nPrompts of {prompts.whole:,} tokens (whole, {prompts.shared:,} of them shared) and {prompts.passages:,} "
        f"(passages), answers of {ANSWER}: dollars of 1,000 questions, {len(questions)} asked in a row"
    )
    print(
        table(("model", "whole", "whole, cached", "passages"), ((name, *row.values()) for name, row in costs.items()))
    )
    last = list(figures.values())[-1]
    ratio = last["whole"]["f1"] / last["passages"]["f1"] if last["passages"]["f1"] else None
    sizes = {"questions": len(questions), "characters": len(text), "passages": len(index)}
    return {"ratio": ratio and round(ratio, 4), **sizes, "read": figures, "usd_per_1000": costs}


def contenders(ws: Workspace, index: HybridIndex, args: argparse.Namespace) -> Mapping[str, Answering]:
    made: dict[str, Answering] = {"best sentence": BestSentence(index.embedder)}
    if args.reader is not None:
        made["reader"] = partial(by_reader, load_reader(ws, args.reader))
    if args.model is not None:
        made[args.model] = partial(by_model, known.model(args.model, base_url=args.base_url))
    return made


def _line(name: str, way: str, one: Measured) -> tuple[object, ...]:
    shares = (f"{100 * float(values.mean()):.1f} %" for values in (one.exact, one.f1))
    usd = None if one.usd is None else f"{1000 * one.usd:.3g}"
    return name, way, *shares, round(one.tokens), usd, f"{1000 * one.seconds:.0f}"


def _gained(whole: Measured, passages: Measured) -> tuple[object, ...]:
    gains = (paired_difference(b, a).difference for a, b in ((whole.exact, passages.exact), (whole.f1, passages.f1)))
    said = (f"{100 * one.estimate:+.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]" for one in gains)
    return "", "whole - passages", *said, "", "", ""


if __name__ == "__main__":
    sys.exit(main())
