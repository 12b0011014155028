from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from windlass.build.transformer.config import TransformerConfig  # noqa: E402
from windlass.build.transformer.decoder import Decoder  # noqa: E402
from windlass.build.transformer.init import initialise  # noqa: E402
from windlass.serve.engine.sampling.drawing import Guess, distribution, verified  # noqa: E402
from windlass.serve.engine.sampling.sampler import Sampler, choose  # noqa: E402
from windlass.serve.engine.sampling.settings import Sampling  # noqa: E402
from windlass.serve.engine.speculation.guessing import DraftModel, PromptLookup  # noqa: E402


def tiny(seed: int = 0) -> Decoder:
    config = TransformerConfig(
        vocab_size=40, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn=32, context=64
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model.eval().requires_grad_(False)


def greedy(model: Decoder, tokens: list[int], count: int) -> list[int]:
    tokens = list(tokens)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[-count:]


def test_a_text_goes_on_as_it_did_the_last_time() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2, 3, 4, 5], 3) == []
    text = [1, 2, 3, 4, 5, 9, 2, 3]
    assert [guess.token for guess in lookup.guess(text, 3)] == [4, 5, 9]
    text += [7, 8, 2, 3]
    assert [guess.token for guess in lookup.guess(text, 2)] == [7, 8], "the latest place"
    text += [4, 1, 2, 3]
    assert [guess.token for guess in lookup.guess(text, 1)] == [4], "the longest match"


def test_a_repetition_goes_on() -> None:
    assert [guess.token for guess in PromptLookup().guess([5, 6, 7, 5, 6, 7, 5, 6], 7)] == [7, 5, 6, 7, 5, 6, 7]
    assert [guess.token for guess in PromptLookup().guess([3, 3, 3, 3], 3)] == [3, 3, 3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5))
def test_what_is_guessed_stood_behind_the_longest_match(text: list[int], step: int) -> None:
    lookup = PromptLookup()
    for end in range(1, len(text) + 1, step):
        said = text[:end]
        guesses = [guess.token for guess in lookup.guess(said, 4)]
        matches = [
            (size, start)
            for size in (4, 3, 2)
            for start in range(size, end)
            if end >= size and said[start - size : start] == said[end - size :]
        ]
        if not matches:
            assert guesses == []
        else:
            size = max(size for size, _ in matches)
            start = max(start for length, start in matches if length == size)
            assert guesses == [(said[start:] * 4)[i] for i in range(4)]


def test_a_draft_model_writes_what_it_would_write_alone_whatever_became_of_its_guesses() -> None:
    model, drafts = tiny(), DraftModel(tiny(), Sampling(temperature=0))
    text = [3, 1, 4, 1, 5]
    for wrong_after in (4, 0, 2, 1, 4):
        expected = greedy(model, text, 4)
        guesses = drafts.guess(text, 4)
        assert [guess.token for guess in guesses] == expected and all(guess.odds_V is None for guess in guesses)
        text = [*text, *expected[:wrong_after], (expected[min(wrong_after, 3)] + 7) % 40]


def test_a_draft_model_is_silent_where_its_window_ends() -> None:
    drafts = DraftModel(tiny(), Sampling(temperature=0))
    assert len(drafts.guess([1] * 60, 4)) == 4 and drafts.guess([1] * 61, 4) == []


def test_only_requests_without_a_seed_get_drawn_guesses() -> None:
    for sampling, drawn in ((Sampling(top_k=5), True), (Sampling(seed=1), False), (Sampling(temperature=0), False)):
        for guess in DraftModel(tiny(), sampling).guess([1, 2, 3], 3):
            assert (guess.odds_V is not None) == drawn
            if guess.odds_V is not None:
                assert int((guess.odds_V > 0).sum()) == 5 and guess.odds_V[guess.token] > 0


def test_a_verified_guess_has_the_distribution_of_the_model_and_survives_as_often_as_can_be() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(12, generator=generator).mul(1.5).softmax(0) for _ in range(2))
    p[3], q[4] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    count = 20_000
    uniforms = torch.rand(count, 2, generator=generator, dtype=torch.float64).tolist()
    guesses = torch.multinomial(q, count, replacement=True, generator=generator).tolist()
    tokens = torch.tensor([verified(p, q, guess, *pair) for guess, pair in zip(guesses, uniforms)])
    share = torch.bincount(tokens, minlength=12) / count
    torch.testing.assert_close(share, p, atol=5 * 0.5 / count**0.5, rtol=0)
    assert share[3] == 0
    kept = float((tokens == torch.tensor(guesses)).float().mean())
    # a rejected guess is never drawn again: the excess of p over q is 0 there
    assert kept == pytest.approx(float(torch.minimum(p, q).sum()), abs=0.02)


def test_guesses_change_no_distribution_of_a_request_with_penalties_and_cuts() -> None:
    """Of the first token alone, and of pairs, since what was guessed must not tell anything about what follows."""
    generator = torch.Generator().manual_seed(1)
    logits, second = torch.randn(2, 8, generator=generator) * 2
    odds = torch.randn(8, generator=generator).softmax(0)
    parameters = {"temperature": 1.3, "top_k": 6, "presence_penalty": 1.0}
    counts = torch.zeros(8, 8, dtype=torch.float64)
    count = 3000
    guesses = torch.multinomial(odds, count, replacement=True, generator=generator).tolist()
    for seed, guess in enumerate(guesses):
        sampler = Sampler(Sampling(**parameters, seed=seed))
        first = choose(logits[None], [sampler], guesses={0: Guess(guess, odds)})[0].id
        counts[first, choose(second[None], [sampler])[0].id] += 1
    settings_ = Sampling(**parameters)
    expected = torch.zeros(8, 8, dtype=torch.float64)
    for first, p in enumerate(distribution(logits[None], [settings_])[0].tolist()):
        row = second.clone()
        row[first] -= 1.0
        expected[first] = p * distribution(row[None], [settings_])[0]
    assert not counts[expected == 0].any()
    statistic = ((counts - expected * count) ** 2 / (expected * count))[expected > 0].sum()
    degrees = int((expected > 0).sum()) - 1
    assert statistic < degrees + 4.5 * (2 * degrees) ** 0.5
