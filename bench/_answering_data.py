"""Public questions with the passages that answer them, or do not: to train an extractive reader on, and to test it.

    learned()    rows with `question`, `context`, `answers`: AdversarialQA as the T0 prompts hold it, half of XQuAD's
                 English part, which is SQuAD 1.1, and half of QED
    tests()      {"XQuAD": the other half, of other articles, "QED": the other half}

To every second question a row is added that asks it of another passage, the one that shares most of its rare words and
none of its answers: a question that the passage does not answer, and that looks as if it did.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench._data import data_folder

Row = dict[str, Any]
SEED = 0
_PROMPTS = (
    r'Given the following passage\s+"(?P<context>.+)",\s+answer the following question\..*?Question: (?P<question>.+)',
    r"Extract the answer to the question from the following context\.\s*Question: (?P<question>.+?)\nContext: "
    r"(?P<context>.+)",
    r'Question: "(?P<question>.+?)"\s+Context: "(?P<context>.+)"\s+Answer:',
    r'I know that the answer to the question "(?P<question>.+?)" is in "(?P<context>.+)"\. Can you tell me .+',
)
"""How T0's templates put a question, its passage, and what is to be said into one text."""


def learned() -> list[Row]:
    return _with_unanswerable([*_adversarial(), *_halves(_xquad())[0], *_halves(_qed())[0]])


def tests() -> Mapping[str, list[Row]]:
    return {name: _with_unanswerable(_halves(rows)[1]) for name, rows in (("XQuAD", _xquad()), ("QED", _qed()))}


def _adversarial() -> list[Row]:
    """Questions that models of 2020 could not answer (Bartolo et al., arXiv 2002.00293), where the answer stands."""
    found: dict[tuple[str, str], Row] = {}
    for row in _lines("sft/t0_prompts/adversarial_qa.jsonl.gz"):
        match = next((m for one in _PROMPTS if (m := re.fullmatch(one, row["prompt"].strip(), re.DOTALL))), None)
        if match is None:
            continue
        question, context, answer = match["question"].strip(), match["context"], row["completion"].strip()
        if answer and answer in context:
            found[question, context] = _row(question, context, [(answer, _nearest(question, context, answer))])
    return list(found.values())


def _nearest(question: str, context: str, answer: str) -> int:
    """The prompts do not say which occurrence is meant: the one with most of the question's words around it."""
    asked = set(words(question))
    starts = [found.start() for found in re.finditer(re.escape(answer), context)]
    return max(starts, key=lambda start: len(asked & set(words(context[max(0, start - 150) : start + 150]))))


def _qed() -> dict[str, list[Row]]:
    """Questions of Natural Questions (Lamm et al., arXiv 2009.06354), by article."""
    articles: dict[str, list[Row]] = defaultdict(list)
    for row in _lines("qa/qed/qed.jsonl.gz"):
        context = row["paragraph_text"]
        answers = [(one["string"], one["start"]) for (one, *more) in row["original_nq_answers"] if not more]
        answers = [(text, start) for text, start in answers if context[start : start + len(text)] == text]
        if answers:
            articles[row["title_text"]].append(_row(row["question_text"] + "?", context, answers))
    return articles


def _xquad() -> dict[str, list[Row]]:
    with gzip.open(data_folder() / "qa/xquad/xquad.en.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return {
        f"article {number}": [
            _row(asked["question"], part["context"], [(one["text"], one["answer_start"]) for one in asked["answers"]])
            for part in article["paragraphs"]
            for asked in part["qas"]
        ]
        for number, article in enumerate(articles)
    }


def _row(question: str, context: str, answers: Sequence[tuple[str, int]]) -> Row:
    held = [{"text": text, "answer_start": start} for text, start in answers]
    return {"question": question, "context": context, "answers": held}


def _halves(articles: Mapping[str, list[Row]]) -> tuple[list[Row], list[Row]]:
    """No article is in both."""
    names = sorted(articles)
    random.Random(SEED).shuffle(names)
    middle = len(names) // 2
    first, second = ([row for name in part for row in articles[name]] for part in (names[:middle], names[middle:]))
    return first, second


def _with_unanswerable(rows: list[Row]) -> list[Row]:
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    ranked = Ranked(contexts)
    more = []
    for row in rows[::2]:
        answers = [one["text"].lower() for one in row["answers"]]
        for place in ranked.best(row["question"]):
            other = contexts[place]
            if other != row["context"] and not any(answer in other.lower() for answer in answers):
                more.append(_row(row["question"], other, []))
                break
    return rows + more


class Ranked:
    """Texts by BM25 (Robertson & Zaragoza 2009)."""

    def __init__(self, texts: Sequence[str], k: float = 1.2, b: float = 0.75) -> None:
        counts = [Counter(words(text)) for text in texts]
        mean = sum(one.total() for one in counts) / len(counts)
        holding = Counter(word for one in counts for word in one)
        self._weights: dict[str, dict[int, float]] = defaultdict(dict)
        for place, one in enumerate(counts):
            length = k * (1 - b + b * one.total() / mean)
            for word, count in one.items():
                idf = math.log(1 + (len(counts) - holding[word] + 0.5) / (holding[word] + 0.5))
                self._weights[word][place] = idf * count * (k + 1) / (count + length)
        self._count = len(texts)

    def best(self, query: str) -> list[int]:
        """The numbers of all texts, the likeliest first."""
        scores = [0.0] * self._count
        for word in set(words(query)):
            for place, weight in self._weights.get(word, {}).items():
                scores[place] += weight
        return sorted(range(self._count), key=lambda place: -scores[place])


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _lines(path: str) -> Iterator[Any]:
    with gzip.open(data_folder() / path, "rt", encoding="utf-8", newline="\n") as file:
        yield from map(json.loads, file)
