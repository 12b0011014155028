"""ROUGE, METEOR and the stemmer beside rouge-score and NLTK; error rates beside jiwer and rapidfuzz."""

from __future__ import annotations

import random
from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from tests.evaluate.metrics.texts_at_hand import WORDS, texts

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.edits import (
    distance,
    edit_counts,
    edit_distance,
    edit_similarity,
    edits,
    match_error_rate,
    word_error_rate,
    word_information_lost,
)
from windlass.evaluate.metrics.text.meteor import meteor, words
from windlass.evaluate.metrics.text.rouge import Rouge, rouge_l, rouge_lsum, rouge_n
from windlass.evaluate.metrics.text.stemming import stem

FOUND, RIGHT = texts(150, seed=3, references=2)
FOUND = [text.replace(" and ", "\n") for text in FOUND]
RIGHT = [[text.replace(" and ", "\n") for text in some] for some in RIGHT]
NO_SYNONYMS = SimpleNamespace(synsets=lambda word: [])


def checked(ours: Rouge, kind: str, found: list[str], right: list[list[str]], stemmed: bool) -> None:
    oracle = RougeScorer([kind], use_stemmer=stemmed)
    for item, (text, some) in enumerate(zip(found, right)):
        theirs = oracle.score_multi(some, text)[kind]
        assert [column[item] for column in ours] == pytest.approx([*theirs]), (text, some)


@pytest.mark.parametrize("stemmed", [False, True])
def test_rouge_is_rouge_scores(stemmed: bool) -> None:
    for n in (1, 2, 3):
        checked(rouge_n(FOUND, RIGHT, n, stemmed=stemmed), f"rouge{n}", FOUND, RIGHT, stemmed)
    checked(rouge_l(FOUND, RIGHT, stemmed=stemmed), "rougeL", FOUND, RIGHT, stemmed)
    checked(rouge_lsum(FOUND, RIGHT, stemmed=stemmed), "rougeLsum", FOUND, RIGHT, stemmed)


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.text("ab \n", max_size=20)] * 2), min_size=1, max_size=3))
def test_rouge_of_few_words_in_all_orders(pairs: list[tuple[str, str]]) -> None:
    """Where many subsequences are longest, which one is read back decides Lsum."""
    found = [" ".join(one) for one, _ in pairs]
    right = [[" ".join(one)] for _, one in pairs]
    checked(rouge_l(found, right), "rougeL", found, right, False)
    checked(rouge_lsum(found, right), "rougeLsum", found, right, False)


def test_stems_are_nltks() -> None:
    oracle = PorterStemmer()
    draw = random.Random(0)
    ends = "ational tional enci izer bli alli entli eli ousli ization ator alism iveness aliti logi fulli icate ative"
    ends += " ical ful ness al ance er able ement ment ent ion ou ism ate iti ous ive ize e ll s ies ied eed ed ing y"
    starts = "gener tri fal hop siz a y rel fe ye agr conflat troubl fil sky b tanne geo archaeolog contro"
    made = [draw.choice(starts.split()) + draw.choice(ends.split()) for _ in range(3_000)]
    for word in [*WORDS, *made]:
        assert stem(word) == oracle.stem(word), word


@settings(max_examples=300)
@given(st.text("abeilnsyzt", max_size=9))
def test_stems_of_any_word_are_nltks(word: str) -> None:
    assert stem(word) == PorterStemmer().stem(word)


def test_meteor_is_nltks_without_synonyms() -> None:
    for text, some, score in zip(FOUND, RIGHT, meteor(FOUND, RIGHT)):
        theirs = meteor_score([words(one) for one in some], words(text), wordnet=NO_SYNONYMS)
        assert score == pytest.approx(theirs), (text, some)


@settings(max_examples=100)
@given(st.text("abcabc", max_size=20), st.text("abcdef", max_size=20))
def test_distance_and_edits_are_rapidfuzzes(one: str, other: str) -> None:
    assert distance(one, other) == distance(other, one) == Levenshtein.distance(one, other)
    tags = [op.tag for op in Levenshtein.editops(one, other)]
    found = edits(one, other)
    assert [*found[1:]] == [tags.count("replace"), tags.count("delete"), tags.count("insert")]
    assert found.hits + found.substitutions + found.deletions == len(one)
    assert found.hits + found.substitutions + found.insertions == len(other)


def test_distances_of_long_texts() -> None:
    draw = random.Random(5)
    for size in (63, 64, 65, 1_000):
        one = "".join(draw.choices("acgt", k=size))
        other = "".join(draw.choices("acgt", k=size + draw.randrange(40)))
        assert distance(one, other) == Levenshtein.distance(one, other)
        tags = [op.tag for op in Levenshtein.editops(one, other)]
        assert edits(one, other).substitutions == tags.count("replace")


@settings(max_examples=100)
@given(*[st.text("ab", max_size=8)] * 3)
def test_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c)


def test_error_rates_are_jiwers() -> None:
    single = [some[0] for some in RIGHT]
    right = [[one] for one in single]
    theirs = jiwer.process_words([" ".join(one.split()) for one in single], [" ".join(one.split()) for one in FOUND])
    counts = edit_counts(FOUND, right)
    total = counts.sum(axis=0)
    assert total.tolist() == [theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions]
    assert word_error_rate(total) == pytest.approx(theirs.wer)
    assert match_error_rate(total) == pytest.approx(theirs.mer)
    assert word_information_lost(total) == pytest.approx(theirs.wil)
    assert word_error_rate(edit_counts(FOUND, right, characters=True).sum(axis=0)) == pytest.approx(
        jiwer.cer(single, FOUND)
    )


@pytest.mark.parametrize(("said", "wanted"), [("", ""), ("a b", ""), ("", "a"), ("a", "a"), ("b c", "a")])
def test_error_rates_at_the_edges_are_jiwers(said: str, wanted: str) -> None:
    theirs = jiwer.process_words([wanted], [said])
    counts = edit_counts([said], [[wanted]])[0]
    ours = [float(rate(counts)) for rate in (word_error_rate, match_error_rate, word_information_lost)]
    assert ours == pytest.approx([theirs.wer, theirs.mer, theirs.wil])


def test_the_nearest_reference_counts() -> None:
    assert edit_distance(["abc", ""], [["xyz", "abd"], [""]]).tolist() == [1, 0]
    assert edit_similarity(["abc", ""], [["xyz", "abd"], [""]]) == pytest.approx([2 / 3, 1])
    assert edit_counts(["a b"], [["x y", "a b c d"]]).tolist() == [[2, 0, 2, 0]]


def test_what_is_the_same_is_best() -> None:
    right = [some for some in RIGHT if any(c.isascii() and c.isalnum() for c in some[0])]
    same = [some[0] for some in right]
    for rouge in (rouge_n(same, right, 1), rouge_l(same, right), rouge_lsum(same, right)):
        assert np.allclose(rouge.f1, 1)
    assert not edit_distance(same, right).any()
    assert (meteor(same, right) > 0.49).all()


def test_rouge_is_symmetric_but_for_the_names() -> None:
    one, other = FOUND, [[text] for text in FOUND[::-1]]
    there = rouge_l(one, other)
    back = rouge_l([some[0] for some in other], [[text] for text in one])
    assert there.precision == pytest.approx(back.recall) and there.f1 == pytest.approx(back.f1)


def test_no_grams_of_nothing() -> None:
    with pytest.raises(InputError, match="n-grams of 0 words"):
        rouge_n(["a"], [["a"]], 0)
