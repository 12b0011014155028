"""Word counts: exact while the table is large enough, unbiased and bounded when it is not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from windlass.build.tokenizer import counting
from windlass.build.tokenizer.bpe import BPE
from windlass.build.tokenizer.counting import DELIMITER, count_words, pieces
from windlass.build.tokenizer.kind import split_at_delimiters
from windlass.build.tokenizer.training import KINDS

SPLIT = pre_tokenizers.WhitespaceSplit()


def zipf(words: int, times: int) -> list[str]:
    """A text in which word n occurs times/n times, at least once."""
    return [" ".join(f"w{n}" for n in range(1, words) for _ in range(max(1, times // n)))]


def test_counts_are_exact_when_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_CHUNK", 100)
    texts = ["the cat and the dog", "a cat " * 50, "x\ny z\t z"]
    found = count_words(texts, None, SPLIT)
    assert dict(found.counts) == Counter(" ".join(texts).split())
    assert list(found.counts) == sorted(found.counts)
    assert found.thinned == 0 and found.unit == 1 and found.words == sum(found.counts.values())


def test_the_table_stays_small_and_sums_keep_their_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_CHUNK", 20_000)
    words = [f"{prefix}{n}" for prefix in "abcd" for n in range(4000)]  # each word once: all of it is rare
    texts = [" ".join(words[start : start + 50] + ["common"] * 10) for start in range(0, len(words), 50)]
    found = count_words(texts, None, SPLIT, distinct=1000)
    assert len(found.counts) <= 1000 and found.thinned > 10_000 and found.words == len(words) + 10 * len(texts)
    assert found.counts["common"] == 10 * len(texts)  # frequent words are counted exactly
    by_prefix = Counter[str]()
    for word, count in found.counts.items():
        by_prefix[word[0]] += count
    for prefix in "abd":
        assert by_prefix[prefix] == pytest.approx(4000, rel=0.25)
    assert mean(by_prefix[prefix] for prefix in "abd") == pytest.approx(4000, rel=0.15)
    assert dict(count_words(texts, None, SPLIT, distinct=1000).counts) == dict(found.counts)


def test_a_trainer_is_never_fed_more_than_its_counters_hold() -> None:
    texts = zipf(300, 2000)
    exact = count_words(texts, None, SPLIT)
    found = count_words(texts, None, SPLIT, occurrences=1000)
    assert found.unit == 16 and sum(found.counts.values()) == pytest.approx(exact.words / 16, rel=0.1)
    assert found.counts["w1"] == pytest.approx(exact.counts["w1"] / 16, abs=1)
    assert found.words == exact.words


def test_what_is_fed_is_what_was_counted() -> None:
    found = count_words(zipf(50, 10_000), None, SPLIT)
    fed = Counter[str]()
    for text in found.texts():
        fed.update(piece for piece, _ in split_at_delimiters().pre_tokenize_str(text))
    assert dict(fed) == dict(found.counts) and DELIMITER not in fed


@given(st.text(alphabet="ab é漢12 \n.", max_size=300), st.integers(1, 40))
def test_pieces_make_up_the_text(text: str, size: int) -> None:
    assert "".join(pieces(text, size)) == text
    assert all(len(piece) <= 2 * size for piece in pieces(text, size))


@pytest.mark.parametrize("kind", list(KINDS))
def test_cutting_long_texts_changes_no_word(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.sub(r"\s+", lambda m: m[0], (counting.__doc__ or "") * 20) + "naïve Ünïcode 12 34 end. " * 50
    rules = KINDS[kind].rules(False)  # type: ignore[index]
    whole = count_words([text], *rules)
    monkeypatch.setattr(counting, "_PIECE", 200)
    assert len(list(pieces(text, 200))) > 10
    cut = Counter[str]()
    for piece in pieces(text, 200):
        cut.update(dict(count_words([piece], *rules).counts))
    assert dict(cut) == dict(whole.counts)


def test_a_word_may_hold_anything() -> None:
    text = 'quote " back \\ nul \0 line\u2028 \ud7ff \U0010ffff'
    found = count_words([text], None, BPE.rules(False)[1])
    assert found.words == len(BPE.rules(False)[1].pre_tokenize_str(text))


GROWING = """
import random, re, sys
from windlass.build.tokenizer import counting
from windlass.build.tokenizer.training import train
counting._CHUNK = 500_000
def texts(count):
    generator = random.Random(0)
    for _ in range(count):
        new = ["".join(generator.choices("abcdefgh", k=8)) for _ in range(300)]
        yield " ".join(new) + " load pawl" * 300
distinct = int(sys.argv[2])
train(texts(100), 1000, distinct=distinct)
def peak():  # in kB; rusage would hold the parent's peak too
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
train(texts(int(sys.argv[1])), 1000, distinct=distinct)
print((peak() - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_peak_memory_does_not_grow_with_the_text() -> None:
    def grown(texts: int, distinct: int) -> float:
        command = [sys.executable, "-c", GROWING, str(texts), str(distinct)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    bounded, unbounded = grown(2000, 10_000), grown(2000, 10**9)  # 7 MB of text with 600,000 distinct words
    assert grown(200, 10_000) < bounded + 20 < 60
    assert unbounded > 3 * (bounded + 20)
