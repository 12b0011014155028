"""The baselines: probabilities that sum to one, the textbook's formula by hand, and compressors as they are."""

from __future__ import annotations

import gzip
import lzma
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.compression import compression_baselines, ngram_bits_of
from windlass.evaluate.ngram import NGram, _discounts

SEQUENCES = st.lists(st.lists(st.integers(0, 4), max_size=30).map(np.array), min_size=1, max_size=6).filter(
    lambda s: any(len(x) for x in s)
)


@settings(max_examples=60, deadline=None)
@given(SEQUENCES, st.integers(1, 5), st.lists(st.integers(0, 4), max_size=8), st.data())
def test_probabilities_of_the_next_symbol_sum_to_one(sequences, order, context, data):
    model = NGram([s.astype(np.int64) for s in sequences], 5, order)
    used = data.draw(st.integers(1, order))
    following = [np.array([*context, w]) for w in range(5)]
    p = np.exp(model.log_probabilities(following, used)).reshape(5, len(context) + 1)[:, -1]
    assert (p > 0).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)


def plainly(train: list[list[int]], alphabet: int, order: int, context: tuple, w: int) -> float:
    """Modified Kneser-Ney as Chen and Goodman write it, with dictionaries and no care for speed."""
    marked = [("start", *s) for s in train]
    grams = {
        k: Counter(tuple(s[i - k + 1 : i + 1]) for s in marked for i in range(k - 1, len(s)))
        for k in range(1, order + 2)
    }
    for k, counts in grams.items():
        if k == 1:
            counts.pop(("start",), None)

    def counts_of(k: int) -> Counter:
        if k == order:
            return grams[k]
        lefts = defaultdict(set)
        for gram in grams[k + 1]:
            lefts[gram[1:]].add(gram[0])
        return Counter({g: len(lefts[g]) if g[0] != "start" else c for g, c in grams[k].items()})

    def p(k: int, history: tuple) -> float:
        if k == 0:
            return 1 / alphabet
        lower = p(k - 1, history[1:])
        counts = counts_of(k)
        of_history = {g: c for g, c in counts.items() if g[:-1] == history}
        if not of_history:
            return lower
        n = [0] + [sum(c == i for c in counts.values()) for i in (1, 2, 3, 4)]
        if min(n[1:]) == 0:
            d = [0, 0.5, 0.75, 0.9]
        else:
            y = n[1] / (n[1] + 2 * n[2])
            d = [0] + [min(max(c - (c + 1) * y * n[c + 1] / n[c], 0.05), c - 0.05) for c in (1, 2, 3)]
        total = sum(of_history.values())
        count = of_history.get((*history, w), 0)
        freed = sum(d[min(c, 3)] for c in of_history.values())
        return (count - d[min(count, 3)]) / total + freed / total * lower

    history = ("start", *context)[-(order - 1) :] if order > 1 else ()
    return p(order, history)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_formula_written_plainly(order):
    generator = np.random.default_rng(1)
    train = [generator.integers(4, size=n).tolist() for n in (40, 1, 0, 25, 60)]
    text = generator.integers(5, size=30).tolist()  # holds a symbol that training never saw
    model = NGram([np.array(s, np.int64) for s in train], 5, order)
    found = np.exp(model.log_probabilities([np.array(text)]))
    short = min(order - 1, 3)
    for i in range(len(text)):
        # Where less than order - 1 symbols are known, the mark of the start completes the context.
        if i >= short:
            assert found[i] == pytest.approx(plainly(train, 5, order, tuple(text[:i]), text[i]), rel=1e-9), i


def test_discounts_follow_the_counts_of_counts():
    counts = np.repeat([1, 2, 3, 4], [40, 20, 10, 5])
    y = 40 / 80
    assert _discounts(counts) == pytest.approx([0, 1 - 2 * y * 20 / 40, 2 - 3 * y * 10 / 20, 3 - 4 * y * 5 / 10])
    assert (_discounts(np.array([1, 1, 1])) <= [0, 1, 2, 3]).all()


def test_repetition_is_cheap_and_noise_is_not():
    generator = np.random.default_rng(0)
    noise = generator.integers(97, 123, size=20_000).astype(np.uint8).tobytes().decode()
    song = "round and round the capstan goes. " * 600
    for train, text, low, high in ((song, song[:3400], 0.0, 0.1), (noise, noise[::-1][:5000], 4.6, 4.9)):
        rows = compression_baselines([train[:10_000], train[10_000:]], [text])
        ngram = rows[-1]
        assert low <= ngram.bits_per_byte <= high, ngram
        assert ngram.bits_per_byte <= rows[0].bits_per_byte


def test_compressors_are_the_real_ones():
    train = [f"def f{i}(x):\n    return x + {i}\n" for i in range(300)]
    heldout = [f"def f{i}(x):\n    return x + {i}\n" for i in range(250, 280)]
    rows = {row.name: row.bits_per_byte for row in compression_baselines(train, heldout)}
    text = "".join(t + "\0" for t in heldout).encode()
    size = len(text) - len(heldout)
    assert rows["gzip -9"] == 8 * len(gzip.compress(text, 9)) / size
    container = len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) * 8 / size
    assert 0 < container - rows["xz -9e"] < 8 * 80 / size, "as xz, less its header and checksum"
    assert rows["xz -9e with the training text"] < 0.5 * rows["xz -9e"]


def test_order_is_chosen_without_the_heldout_text():
    train = ["abcabcabd" * 20 + str(i) for i in range(40)]
    encode = lambda texts: [np.frombuffer(t.encode(), np.uint8) for t in texts]  # noqa: E731
    first, _ = ngram_bits_of(train, ["abcabc"], encode, 256)
    second, bits = ngram_bits_of(train, ["zzzzzz"], encode, 256)
    assert first == second
    assert bits > 6 * math.log2(100)


def test_empty_texts_are_refused():
    for train, heldout in (([], ["a"]), (["a"], []), ([""], ["a"]), (["a"], [""])):
        with pytest.raises(InputError):
            compression_baselines(train, heldout)
    with pytest.raises(InputError, match="no text"):
        NGram([np.array([], np.int64)], 5, 2)
    with pytest.raises(InputError, match="Order 3"):
        NGram([np.array([1, 2])], 5, 2).log_probabilities([np.array([1])], 3)
