"""Decontamination: exactly the shared runs of words, found where they stand and traced to the text they come from."""

from __future__ import annotations

import itertools
import pickle
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.decontamination import SHORTEST, Contamination, EvaluationText, Overlap, without
from windlass.core.errors import InputError

QUESTION = "What did the engineer of the old lighthouse write into his log on the night before the great storm?"
SHORT = "Eight words are just enough to be found."


def evaluation(*texts: str) -> list[EvaluationText]:
    return [EvaluationText(f"set{i}.jsonl", f"row {i}", text) for i, text in enumerate(texts)]


def test_case_and_punctuation_do_not_hide_an_overlap() -> None:
    index = Contamination(
        evaluation("Something else that nobody would ever write in a document of this kind.", QUESTION)
    )
    quoted = "what did the engineer — of the old lighthouse — WRITE into his log, on the night before?"
    text = f"An exercise. {quoted} Think about it."
    (overlap,) = index.find(text)
    assert text[overlap.start : overlap.end] == quoted[:-1]
    assert (overlap.words, overlap.set, overlap.item) == (16, "set1.jsonl", "row 1")
    assert without(text, [overlap]) == "An exercise.\n\nThink about it."


def test_thirteen_words_are_an_overlap_and_twelve_are_not() -> None:
    index = Contamination(evaluation(QUESTION))
    words = QUESTION.split()
    assert not index.find("Once more: " + " ".join(words[3:15]) + " something new")
    assert index.find("Once more: " + " ".join(words[3:16]) + " something new")[0].words == 13
    assert not index.find(" ".join(reversed(words))) and not index.find("")


def test_texts_too_short_for_a_run_are_found_whole_or_counted() -> None:
    index = Contamination(evaluation(SHORT, "Paris", "yes", QUESTION))
    assert (index.texts, index.too_short) == (4, 2)
    assert [o.item for o in index.find(f"{SHORT} And {SHORT.lower()} {QUESTION}")] == ["row 0", "row 0", "row 3"]
    assert not index.find("Eight words are just enough to be lost.")


@pytest.mark.parametrize("texts", [[], ["no", "short ones"]])
def test_nothing_to_look_for_is_an_error(texts: list[str]) -> None:
    with pytest.raises(InputError, match="nothing to look for"):
        Contamination(evaluation(*texts))
    with pytest.raises(InputError, match="Runs of 3 words"):
        Contamination(evaluation(QUESTION), n=3)


def test_letters_that_grow_when_folded_do_not_move_the_offsets() -> None:
    for question in (QUESTION, QUESTION.replace("engineer", "İstanbul")):
        text = "İstanbul'da İyi " * 3 + question
        (overlap,) = Contamination(evaluation(question)).find(text)
        assert text[overlap.start : overlap.end] == question[:-1]


def test_a_word_longer_than_a_block_and_scripts_without_spaces() -> None:
    chinese = "这个城市的人们一直为他们的桥梁和面包感到自豪而且从来没有忘记"
    index = Contamination(evaluation(QUESTION, chinese))
    text = "x" * 70_000 + " " + QUESTION + " " + chinese
    assert [text[o.start : o.end] for o in index.find(text)] == [QUESTION[:-1], chinese]


def naive(texts: list[str], document: str, n: int) -> set[int]:
    """The numbers of the document's words that lie in a run which an evaluation text holds: by comparing words."""
    word = re.compile(r"[^\W_]+")
    wanted: dict[int, set[tuple[str, ...]]] = {}
    for text in texts:
        words = word.findall(text.lower())
        size = min(n, len(words))
        if size >= SHORTEST:
            wanted.setdefault(size, set()).update(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
    words = word.findall(document.lower())
    return {
        i + j
        for size, runs in wanted.items()
        for i in range(len(words) - size + 1)
        if tuple(words[i : i + size]) in runs
        for j in range(size)
    }


WORDS = st.lists(st.sampled_from(["a", "B", "cc,", "d.", "a\n"]), max_size=40).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.integers(8, 10))
def test_what_is_found_is_what_comparing_all_words_finds(texts: list[str], document: str, n: int) -> None:
    try:
        index = Contamination(evaluation(*texts), n)
    except InputError:
        assert not naive(texts, document, n)
        return
    spans = [match.span() for match in re.finditer(r"[^\W_]+", document)]
    overlaps = index.find(document)
    covered = {i for i, (start, end) in enumerate(spans) for o in overlaps if o.start <= start and end <= o.end}
    assert covered == naive(texts, document, n)
    assert sum(o.words for o in overlaps) == len(covered)
    assert all(a.end <= b.start for a, b in itertools.pairwise(overlaps))
    rest = without(document, overlaps)
    assert re.findall(r"[^\W_]+", rest) == [document[s:e] for i, (s, e) in enumerate(spans) if i not in covered]


def test_memory_is_as_stated_and_the_index_travels() -> None:
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(5000)}" for _ in range(200)) for _ in range(100)]
    index = Contamination(evaluation(*texts))
    assert 20 * 18_000 <= index.bytes <= 28.1 * 18_800
    copy = pickle.loads(pickle.dumps(index))
    document = "before " + texts[42][100:400] + " after"
    assert copy.find(document) == index.find(document) != []


def test_datatrove_finds_the_same_documents() -> None:
    """Its index is a list of hashes of simplified runs; here with its own simplification and its own hash function."""
    pytest.importorskip("datatrove")
    from datatrove.utils.hashing import HashConfig, create_hash_func
    from datatrove.utils.text import ngrams, simplify_text

    hashed = create_hash_func(HashConfig())
    draw = random.Random(1)
    vocabulary = [f"{a}{b}" for a in ("ba", "co", "di", "fu", "ge") for b in ("lom", "ner", "sip", "tuv", "wax", "zed")]
    texts = [" ".join(draw.choices(vocabulary, k=40)) + "." for _ in range(30)]

    def runs(text: str) -> set[int]:
        return {hashed(" ".join(run).encode()) for run in ngrams(simplify_text(text).split(), 13)}

    index, theirs = Contamination(evaluation(*texts)), set().union(*map(runs, texts))
    documents = []
    for number in range(200):
        filler = " ".join(draw.choices(vocabulary, k=60))
        quoted = draw.choice(texts).split()[draw.randrange(10) :][: draw.choice([8, 12, 13, 20])]
        documents.append(f"{filler}, {' '.join(quoted).title()}; {filler}" if number % 2 else filler)
    found = [bool(index.find(document)) for document in documents]
    assert found == [not theirs.isdisjoint(runs(document)) for document in documents]
    assert 20 < np.sum(found) < 100


def test_without_keeps_what_stands_between() -> None:
    text = "One. CUT two. CUT"
    cuts = [Overlap(5, 8, 1, "s", "i"), Overlap(14, 17, 1, "s", "i")]
    assert (
        without(text, cuts) == "One.\n\ntwo."
        and without(text, []) == text
        and without("CUT", [Overlap(0, 3, 1, "s", "i")]) == ""
    )
