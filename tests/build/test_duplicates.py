"""Near duplicates: MinHash proposes, exact Jaccard decides. The reference: sets of word tuples."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.build.corpus.duplicates import BANDS, ROWS, Duplicates, jaccard, shingles, signature
from windlass.core.errors import InputError

WORDS = [f"w{i}" for i in range(3000)]


def reference(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    size = min(5, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if words else set()


def planted(rng: random.Random, low: float, high: float, length: int = 400) -> tuple[str, str, float]:
    """Two texts whose exact similarity lies in [low, high)."""
    while True:
        words = rng.choices(WORDS, k=length)
        other = words.copy()
        for place in rng.sample(range(length), rng.randint(1, max(2, int((1 - low) * length / 6)))):
            other[place] = rng.choice(WORDS)
        a, b = " ".join(words), " ".join(other)
        similarity = len(reference(a) & reference(b)) / len(reference(a) | reference(b))
        if low <= similarity < high:
            return a, b, similarity


@given(st.text(alphabet="ab c\n.B", max_size=80), st.text(alphabet="ab c\n.B", max_size=80))
def test_jaccard_equals_that_of_sets_of_words(a: str, b: str) -> None:
    first, second = reference(a), reference(b)
    expected = len(first & second) / max(len(first | second), 1)
    assert jaccard(shingles(a), shingles(b)) == expected
    assert len(shingles(a)) == len(first)


def test_signatures_estimate_the_similarity() -> None:
    rng = random.Random(1)
    errors = []
    for _ in range(60):
        a, b, similarity = planted(rng, 0.5, 0.95)
        agree = (signature(shingles(a)) == signature(shingles(b))).mean()
        errors.append(agree - similarity)
    mean = sum(errors) / len(errors)
    spread = (sum(e * e for e in errors) / len(errors)) ** 0.5
    assert abs(mean) < 0.02  # unbiased (standard error 0.006)
    assert spread < 1.5 * (0.25 / (BANDS * ROWS)) ** 0.5  # as good as 120 independent draws


def test_planted_near_duplicates_are_found_and_named() -> None:
    """Recall on 300 pairs of similarity 0.8 to 0.9; expected by the banding formula: at least 0.998 each."""
    rng = random.Random(2)
    pairs = [planted(rng, 0.8, 0.9) for _ in range(300)]
    texts = [a for a, _, _ in pairs]
    duplicates = Duplicates(texts.__getitem__)
    for key, text in enumerate(texts):
        twin, keep = duplicates.find(text)
        assert twin is None
        keep(key)
    found = [duplicates.find(b)[0] for _, b, _ in pairs]
    assert sum(twin is not None for twin in found) >= 298
    for key, (twin, (_, _, similarity)) in enumerate(zip(found, pairs, strict=True)):
        if twin is not None:
            assert twin.key == key and not twin.exact
            assert twin.similarity == pytest.approx(similarity, abs=1e-12)


def test_less_similar_documents_are_never_removed() -> None:
    rng = random.Random(3)
    for _ in range(100):
        a, b, _ = planted(rng, 0.6, 0.8)
        duplicates = Duplicates({0: a}.__getitem__)
        duplicates.find(a)[1](0)
        assert duplicates.find(b)[0] is None


def test_the_same_words_are_an_exact_duplicate_only_in_the_same_group() -> None:
    duplicates = Duplicates({7: "one two  three\nfour five six"}.__getitem__)
    duplicates.find("one two  three\nfour five six", "page")[1](7)
    twin, _ = duplicates.find("one two three four five six", "page")
    assert twin is not None and twin.exact and twin.key == 7
    assert duplicates.find("one two three four five six", "source")[0] is None


def test_scripts_without_spaces_have_shingles_too() -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。"
    assert len(shingles(text)) > 20
    assert jaccard(shingles(text), shingles(text.replace("猫", "犬"))) > 0.7


@pytest.mark.parametrize("threshold", [0.4, 1.1])
def test_a_threshold_the_search_cannot_honour_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="between"):
        Duplicates(str, threshold)
