"""Near duplicates: MinHash proposes, exact Jaccard decides. The reference: sets of word tuples."""

from __future__ import annotations

import random
import re
from contextlib import closing
from pathlib import Path

import pytest
from corpus_world import WORDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windlass.build.corpus import CorpusSettings, duplicates
from windlass.build.corpus.duplicates import Duplicates, Twin
from windlass.build.corpus.judging import Judge
from windlass.build.corpus.shingles import HASHES, MISSED, jaccard, rows_per_band, shingles, signature, words
from windlass.build.corpus.staging import Stage
from windlass.core.documents import Document
from windlass.core.errors import ConfigError


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
    assert spread < 1.5 * (0.25 / HASHES) ** 0.5  # as good as 120 independent draws


def twins(folder: Path, documents: list[Document], threshold: float = 0.8) -> list[Twin]:
    folder.mkdir(exist_ok=True)
    work = folder / str(len(list(folder.iterdir())))
    work.mkdir()
    judged = Judge(CorpusSettings(near=threshold, rules={"min_chars": 1}))(documents)
    assert not judged.drops
    with closing(Stage(work / "stage")) as stage:
        stage.append(judged)
        stage.seal()
        filed = Duplicates(work / "duplicates")
        filed.add(judged.keys)
        return list(filed.find(stage, threshold))


def document(id: int, text: str, kind: str = "page") -> Document:
    return Document(f"{id}", "", "", text, metadata={"kind": kind, "cluster": f"{id}"})


def test_planted_near_duplicates_are_found_and_named(tmp_path: Path) -> None:
    """Recall on 300 pairs of similarity 0.8 to 0.9; expected by the banding formula: at least 0.998 each."""
    rng = random.Random(2)
    pairs = [planted(rng, 0.8, 0.9) for _ in range(300)]
    texts = [a for a, _, _ in pairs] + [b for _, b, _ in pairs]
    found = twins(tmp_path, [document(number, text) for number, text in enumerate(texts)])
    assert len(found) >= 298
    for twin in found:
        assert twin.number == twin.of + 300 and twin.reason == "near duplicate"
        assert twin.similarity == pytest.approx(pairs[twin.of][2], abs=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_few_pairs_at_the_threshold_are_missed_whatever_it_is(tmp_path: Path, threshold: float) -> None:
    rows = rows_per_band(threshold)
    assert HASHES % rows == 0 and (1 - threshold**rows) ** (HASHES // rows) <= MISSED
    rng = random.Random(5)
    pairs = [planted(rng, threshold, threshold + 0.05, 200)[:2] for _ in range(60)] if threshold < 0.95 else []
    found = (
        twins(tmp_path, [document(n, text) for n, text in enumerate(sum(zip(*pairs), ()))], threshold) if pairs else []
    )
    assert len(found) >= len(pairs) - 2


def test_less_similar_documents_are_never_removed(tmp_path: Path) -> None:
    rng = random.Random(3)
    pairs = [planted(rng, 0.6, 0.8) for _ in range(100)]
    assert not twins(
        tmp_path, [document(n, text) for n, text in enumerate(text for a, b, _ in pairs for text in (a, b))]
    )


def brute_force(texts: list[str], threshold: float) -> list[tuple[int, int]]:
    """(removed, its twin), comparing everything with everything that was kept."""
    kept: list[int] = []
    removed = []
    for number, text in enumerate(texts):
        scores = [(jaccard(shingles(text), shingles(texts[other])), -other) for other in kept]
        if scores and max(scores)[0] >= threshold:
            removed.append((number, -max(scores)[1]))
        else:
            kept.append(number)
    return removed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_removes_what_comparing_all_pairs_removes(tmp_path: Path, data: st.DataObject) -> None:
    """Chains, crowds in one bucket, exact repetitions; similarities where the search misses less than 1 in 10,000."""
    base = WORDS[:60]
    edits = st.lists(st.sampled_from([0, 1, 2, 57, 58, 59]), max_size=3, unique=True)
    texts = []
    for places in data.draw(st.lists(edits, min_size=1, max_size=12)):
        words = base.copy()
        for place in places:
            words[place] = data.draw(st.sampled_from(["x", "y"]))
        texts.append(" ".join(words))
    found = twins(tmp_path, [document(n, text) for n, text in enumerate(texts)], 0.85)
    assert [(twin.number, twin.of) for twin in found] == brute_force(texts, 0.85)
    gone = {twin.number for twin in found}
    assert not twins(tmp_path, [document(n, text) for n, text in enumerate(texts) if n not in gone], 0.85)


def test_the_same_words_are_an_exact_duplicate_only_in_the_same_group(tmp_path: Path) -> None:
    text = "one two  three\nfour five six"
    rows = [document(0, text), document(1, " ".join(text.split())), document(2, text, "source"), document(0, "another")]
    assert [(twin.number, twin.of, twin.reason) for twin in twins(tmp_path, rows)] == [
        (1, 0, "exact duplicate"),
        (3, 0, "repeated id"),
    ]


def test_a_crowd_of_copies_costs_one_comparison_each(tmp_path: Path) -> None:
    rows = [document(number, "the same page again and again") for number in range(3000)]
    found = twins(tmp_path, rows)
    assert len(found) == 2999 and {twin.of for twin in found} == {0}


def test_pages_of_one_template_are_compared_with_few_others_and_exact_repetitions_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_CROWD", 4)
    monkeypatch.setattr(duplicates, "_COMPARED", 3)
    compared = []
    monkeypatch.setattr(duplicates, "jaccard", lambda a, b: compared.append(1) or jaccard(a, b))
    rng = random.Random(6)
    texts = [" ".join(WORDS[:160] + rng.choices(WORDS, k=30)) for _ in range(300)]  # similarity about 0.7
    rows = [document(n, text) for n, text in enumerate(texts)]
    rows += [document(1000 + n, text) for n, text in enumerate(texts)]
    rows += [document(n, " ".join(rng.choices(WORDS, k=50))) for n in range(300)]
    found = twins(tmp_path, rows)
    assert [(twin.number, twin.of, twin.reason) for twin in found] == [
        *((300 + n, n, "exact duplicate") for n in range(300)),
        *((600 + n, n, "repeated id") for n in range(300)),
    ]
    assert 300 < len(compared) <= 3 * 300


def test_scripts_without_spaces_have_shingles_too() -> None:
    text = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で泣いていた。"
    assert len(shingles(text)) > 20
    assert jaccard(shingles(text), shingles(text.replace("猫", "犬"))) > 0.7


def test_words_do_not_depend_on_where_a_long_text_is_cut() -> None:
    rng = random.Random(4)
    texts = [" ".join(rng.choices(WORDS, k=30_000)), "\n".join(rng.choices(["é", "Ünï", "猫", "w_1"], k=60_000))]
    for text in texts:
        parts = re.findall("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\\w+", text.lower())
        assert len(text) > 4 * (1 << 15) or len(parts) == 60_000
        known = {word: int(words(word)[0]) for word in set(parts)}
        assert words(text).tolist() == [known[word] for word in parts]
        assert len(set(known.values())) == len(known)


@pytest.mark.parametrize("threshold", [0.4, 1.1])
def test_a_threshold_the_search_cannot_honour_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="between"):
        CorpusSettings(near=threshold)
