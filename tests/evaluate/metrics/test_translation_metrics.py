"""BLEU, chrF and TER beside sacrebleu: the corpus, each sentence, all options."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER
from tests.evaluate.metrics.texts_at_hand import texts

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.bleu import bleu, bleu_counts, sentence_bleu
from windlass.evaluate.metrics.text.chrf import chrf, chrf_counts, sentence_chrf
from windlass.evaluate.metrics.text.ter import ter, ter_counts
from windlass.evaluate.metrics.text.tokens import TOKENISERS, tokenised

FOUND, RIGHT = texts(150, references=3)
COLUMNS = [list(column) for column in zip(*RIGHT)]
"""As sacrebleu wants them: a list for each reference, not for each item."""


@pytest.mark.parametrize("tokeniser", TOKENISERS)
def test_tokens_are_sacrebleus(tokeniser: str) -> None:
    oracle = BLEU(tokenize=tokeniser).tokenizer
    hard = [
        "",
        " .a",
        "1.",
        ".5",
        "a.b",
        "1,000.5-6",
        "a-1-b",
        "&lt;x&amp;",
        "well-\nknown\nline",
        "<skipped> x",
        "… !?",
    ]
    for text in [*hard, *FOUND, *COLUMNS[0]]:
        assert tokenised([text, "another."], tokeniser)[0] == oracle(text.rstrip()).split(), text


@settings(max_examples=60)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=3), st.sampled_from(["13a", "intl"]))
def test_tokens_of_any_text_are_sacrebleus(some: list[str], tokeniser: str) -> None:
    oracle = BLEU(tokenize=tokeniser).tokenizer
    assert tokenised(some, tokeniser) == [oracle(text.rstrip()).split() for text in some]


@pytest.mark.parametrize("smoothing", ["exp", "floor", "add-k", "none"])
@pytest.mark.parametrize("references", [1, 3])
def test_bleu_is_sacrebleus(smoothing: str, references: int) -> None:
    right = [some[:references] for some in RIGHT]
    counts = bleu_counts(FOUND, right)
    oracle = BLEU(smooth_method=smoothing)
    assert bleu(counts.sum(axis=0), smoothing=smoothing) == pytest.approx(
        oracle.corpus_score(FOUND, COLUMNS[:references]).score
    )
    alone = BLEU(smooth_method=smoothing, effective_order=True)
    ours = sentence_bleu(FOUND, right, smoothing=smoothing)
    for text, some, score in zip(FOUND, right, ours):
        assert score == pytest.approx(alone.sentence_score(text, some).score), (text, some)
    whole = bleu(counts, smoothing=smoothing)
    for text, some, score in zip(FOUND[:50], right, whole):
        assert score == pytest.approx(oracle.corpus_score([text], [[one] for one in some]).score), (text, some)


@pytest.mark.parametrize("tokeniser", TOKENISERS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_by_tokeniser_and_case(tokeniser: str, lowercase: bool) -> None:
    counts = bleu_counts(FOUND, RIGHT, tokeniser=tokeniser, lowercase=lowercase)
    oracle = BLEU(tokenize=tokeniser, lowercase=lowercase, smooth_method="floor", smooth_value=0.3)
    assert bleu(counts.sum(axis=0), smoothing="floor", value=0.3) == pytest.approx(
        oracle.corpus_score(FOUND, COLUMNS).score
    )


@pytest.mark.parametrize("words", [0, 2])
@pytest.mark.parametrize(("lowercase", "whitespace", "smoothed"), [(False, False, False), (True, True, True)])
def test_chrf_is_sacrebleus(words: int, lowercase: bool, whitespace: bool, smoothed: bool) -> None:
    options = {"lowercase": lowercase, "whitespace": whitespace}
    counts = chrf_counts(FOUND, RIGHT, words=words, smoothed=smoothed, **options)
    oracle = CHRF(word_order=words, eps_smoothing=smoothed, **options)
    assert chrf(counts.sum(axis=0), smoothed=smoothed) == pytest.approx(oracle.corpus_score(FOUND, COLUMNS).score)
    for text, some, score in zip(FOUND, RIGHT, chrf(counts, smoothed=smoothed)):
        assert score == pytest.approx(oracle.sentence_score(text, some).score), (text, some)


def test_chrf_of_other_orders_and_weights() -> None:
    counts = chrf_counts(FOUND, RIGHT, characters=3, words=1, beta=1)
    oracle = CHRF(char_order=3, word_order=1, beta=1)
    assert chrf(counts.sum(axis=0), beta=1) == pytest.approx(oracle.corpus_score(FOUND, COLUMNS).score)


@pytest.mark.parametrize(("normalised", "punctuation", "lowercase"), [(False, True, True), (True, False, False)])
def test_ter_is_sacrebleus(normalised: bool, punctuation: bool, lowercase: bool) -> None:
    found, right, columns = FOUND[:60], RIGHT[:60], [column[:60] for column in COLUMNS]
    counts = ter_counts(found, right, normalised=normalised, punctuation=punctuation, lowercase=lowercase)
    oracle = TER(normalized=normalised, no_punct=not punctuation, case_sensitive=not lowercase)
    assert ter(counts.sum(axis=0)) == pytest.approx(oracle.corpus_score(found, columns).score)
    for text, some, score in zip(found, right, ter(counts)):
        assert score == pytest.approx(oracle.sentence_score(text, some).score), (text, some)


def test_ter_of_few_words_in_all_orders() -> None:
    """Runs that move over each other, again and again: here ties between moves decide."""
    import random

    draw = random.Random(1)
    oracle = TER()
    for _ in range(150):
        said, wanted = (" ".join(draw.choices("abcd", k=draw.randrange(1, 14))) for _ in range(2))
        assert ter(ter_counts([said], [[wanted]]))[0] == pytest.approx(oracle.sentence_score(said, [wanted]).score)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text("ab .,1-", max_size=12), st.text("ab .,1-", max_size=12)), min_size=1, max_size=4))
def test_any_corpus_is_scored_as_by_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    found, right = [one for one, _ in pairs], [one for _, one in pairs]
    lists = [[one] for one in right]
    assert bleu(bleu_counts(found, lists).sum(axis=0)) == pytest.approx(BLEU().corpus_score(found, [right]).score)
    counts = chrf_counts(found, lists, words=2).sum(axis=0)
    assert chrf(counts) == pytest.approx(CHRF(word_order=2).corpus_score(found, [right]).score)
    assert ter(ter_counts(found, lists).sum(axis=0)) == pytest.approx(TER().corpus_score(found, [right]).score)


def test_what_is_the_same_is_best_and_order_of_items_says_nothing() -> None:
    same = [some[0] for some in RIGHT]
    assert bleu(bleu_counts(same, RIGHT).sum(axis=0)) == pytest.approx(100)
    assert sentence_chrf(same, RIGHT) == pytest.approx(100)
    assert not ter(ter_counts(same, RIGHT)).any()
    assert bleu_counts(FOUND[::-1], RIGHT[::-1])[::-1].tolist() == bleu_counts(FOUND, RIGHT).tolist()


@pytest.mark.parametrize(
    ("found", "right", "message"),
    [
        ([], [], "no items"),
        (["a"], [["a"], ["b"]], "1 answers but 2 items"),
        (["a"], ["a"], r"Item 1: its references are one text\.\nGive a list"),
        ("ab", [["a"], ["b"]], "A text stands where a list"),
        (["a", "b"], [["a"], []], "Item 2 has no reference"),
        (["a", None], [["a"], ["b"]], "Item 2: the answer is NoneType"),
        (["a"], [[1.5]], "Item 1: a reference is float"),
    ],
)
@pytest.mark.parametrize("metric", [bleu_counts, chrf_counts, ter_counts])
def test_refused(metric, found, right, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        metric(found, right)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"no tokeniser '13b'\.\nKnown are 13a, intl, char, none"):
        bleu_counts(["a"], [["a"]], tokeniser="13b")
    with pytest.raises(InputError, match="no smoothing 'exponential'"):
        bleu(bleu_counts(["a"], [["a"]]), smoothing="exponential")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 characters"):
        chrf_counts(["a"], [["a"]], characters=0)
