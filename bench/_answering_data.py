"""Public questions with the passages that answer them, or do not: to train an extractive reader on, and to test it.

    learned()    rows with `question`, `context`, `answers`: AdversarialQA, Quoref, DuoRC and SciQ as the T0 prompts
                 hold them, where the passage has the answer word for word, half of XQuAD's English part, which is
                 SQuAD 1.1, and half of QED
    gaps()       questions made from the passages of `learned` by rules: a sentence with a gap, to begin with
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

from windlass.apply.rag.sentences import sentence_spans

Row = dict[str, Any]
SEED = 0
_SAID = {
    "adversarial_qa": (
        r'Given the following passage\s+"(?P<context>.+)",\s+answer the following question\..*?Question: '
        r"(?P<question>.+)",
        r"Extract the answer to the question from the following context\.\s*Question: (?P<question>.+?)\nContext: "
        r"(?P<context>.+)",
        r'Question: "(?P<question>.+?)"\s+Context: "(?P<context>.+)"\s+Answer:',
        r'I know that the answer to the question "(?P<question>.+?)" is in "(?P<context>.+)"\. Can you tell me .+',
    ),
    "quoref": (
        r"A friend asked me to answer this question: (?P<question>.+?), using the article: (?P<context>.+), what would "
        r"be the answer \?",
        r"Given the following context:\s+(?P<context>.+)\s+answer the following question:\s+(?P<question>.+)",
        r"I have a test where I am given the following article, what is an answer for the question: (?P<question>.+?) ?"
        r"\?\n\n(?P<context>.+)",
        r"This article: (?P<context>.+) contains an answer for the question: (?P<question>.+?), what is it \?",
        r"The following article contains an answer for the question: (?P<question>.+?) ?, can you please find it\?\s+"
        r"(?P<context>.+)",
        r"Found the following article online, use it to answer the question: (?P<question>.+?)\n\n(?P<context>.+)",
        r"(?P<question>[^\n]+)\s+Answer the above question based on the context below:\s+(?P<context>.+)",
        r"The answer to the question: (?P<question>.+?) is inside the article: (?P<context>.+), can you guess it \?",
        r"Read the following paragraph and extract the answer for the question: (?P<question>.+?)\n\n(?P<context>.+)",
        r"What is the answer for the question: (?P<question>.+?) from the following article \?\s+(?P<context>.+)",
    ),
    "duorc_SelfRC": (
        r"(?:Please answer|Extract the answer) .+?Question: (?P<question>[^\n]+)\n.+?Movie plot: (?P<context>.+)",
        r"I am trying to decide .+?Question: (?P<question>[^\n]+)\n.+?Movie plot: (?P<context>.+)",
        r"I am a movie director .+?Movie plot: (?P<context>.+)\nMy question: (?P<question>[^\n]+)",
        r"Question: (?P<question>[^\n]+)\n.+?Movie plot: (?P<context>.+)",
    ),
    "sciq": (
        r"Answer the following question given this paragraph:\s+(?P<context>.+)\s+Q: (?P<question>[^\n]+)\s+.*A:",
        r"Q: (?P<question>[^\n]+)\s+Read this paragraph and choose .+? answers:\s+(?P<context>.+)\s+Choices:.+",
    ),
}
"""How T0's templates of each set put a question, its passage, and what is to be said into one text."""


def learned() -> list[Row]:
    return _with_unanswerable([*_prompted(), *_halves(_xquad())[0], *_halves(_qed())[0]])


def gaps(each: int = 4) -> list[Row]:
    """Sentences of which a name, a number or what a clause ends with is asked for, and some other words are missing:
    questions that nobody had to write (after Lewis et al., arXiv 1906.04980)."""
    draw = random.Random(SEED)
    passages = dict.fromkeys(row["context"] for row in learned() if row["answers"])
    rows = []
    for passage in passages:
        asked = [row for span in sentence_spans(passage) if (row := _gap(passage, *span, draw)) is not None]
        rows += draw.sample(asked, min(each, len(asked)))
    return _with_unanswerable(rows)


_ASKED: Sequence[tuple[str, Sequence[str]]] = (
    (r"(?<=[a-z,;] )[A-Z][\w'-]+(?: (?:(?:of|the|de|and) )?[A-Z][\w'-]+)*", ("who", "what", "where", "which")),
    (r"\b[12]\d{3}\b", ("when", "in what year")),
    (r"\b\d[\d,.]*\d(?: (?:million|billion|percent|%))?|\b\d\b", ("how many", "how much")),
    (r"(?<= (?:of|by|in|to|as) )(?:the |a |an )?[a-z][\w-]+(?: [a-z][\w-]+){0,2}(?=[,.;])", ("what",)),
)
"""What may be asked for, and how."""


def _gap(passage: str, start: int, stop: int, draw: random.Random) -> Row | None:
    sentence = passage[start:stop]
    found = [(m, how) for pattern, how in _ASKED for m in re.finditer(pattern, sentence)]
    if not found or not 8 <= len(sentence.split()) <= 60:
        return None
    match, how = draw.choice(found)
    around = [
        [w for w in part.split() if draw.random() > 0.25]
        for part in (sentence[: match.start()], sentence[match.end() :])
    ]
    question = " ".join([*around[0], draw.choice(how), *around[1]]).rstrip(" .,;") + "?"
    return _row(question, passage, [(match[0], start + match.start())])


def tests() -> Mapping[str, list[Row]]:
    return {name: _with_unanswerable(_halves(rows)[1]) for name, rows in (("XQuAD", _xquad()), ("QED", _qed()))}


def _prompted() -> list[Row]:
    """Questions that models of 2020 could not answer (Bartolo et al., arXiv 2002.00293), that ask who is meant (Dasigi
    et al., arXiv 1908.05803), of plots of films (Saha et al., arXiv 1804.07927) and of science (Welbl et al., arXiv
    1707.06209)."""
    found: dict[tuple[str, str], Row] = {}
    for name, templates in _SAID.items():
        for row in _lines(f"sft/t0_prompts/{name}.jsonl.gz"):
            prompt = row["prompt"].strip()
            match = next((m for one in templates if (m := re.fullmatch(one, prompt, re.DOTALL))), None)
            if match is None:
                continue
            question, context = match["question"].strip(), match["context"].strip()
            answer = re.search(re.escape(row["completion"].strip().removesuffix(".") or "\0"), context, re.IGNORECASE)
            if answer is not None:
                found[question, context] = _row(question, context, [_nearest(question, context, answer[0])])
    return list(found.values())


def _nearest(question: str, context: str, answer: str) -> tuple[str, int]:
    """The prompts do not say which occurrence is meant: the one with most of the question's words around it."""
    asked = set(words(question))
    starts = [found.start() for found in re.finditer(re.escape(answer), context)]
    best = max(starts, key=lambda start: len(asked & set(words(context[max(0, start - 150) : start + 150]))))
    return answer, best


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
