from __future__ import annotations

import dataclasses
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.sampling.drawing import distribution, draw  # noqa: E402
from windlass.serve.engine.sampling.sampler import Sampler, Unsamplable, choose  # noqa: E402
from windlass.serve.engine.sampling.settings import Sampling  # noqa: E402
from windlass.serve.engine.sampling.token import Token  # noqa: E402

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])
VOCABULARY = 200
LARGE = 3000


def random_logits(rows: int, seed: int = 0, width: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 3


def probabilities(logits_V: torch.Tensor, settings: Sampling, prompt: list[int], written: list[int]) -> torch.Tensor:
    """What `choose` draws from."""
    sampler = Sampler(settings, prompt)
    for token in written:
        sampler.write(token)
    row = logits_V.clone()
    sampler.edit(row)
    return distribution(row[None], [settings])[0].double()


def theirs(logits_V: torch.Tensor, settings: Sampling, prompt: list[int], written: list[int]) -> torch.Tensor:
    """The same with transformers' processors, in the order its `generate` puts them in; presence and frequency, which
    it has not, by OpenAI's formula."""
    from transformers import generation as hf

    ids = torch.tensor([prompt + written])
    row = logits_V[None].clone()
    if settings.repetition_penalty != 1:
        row = hf.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(ids, row)
    for token in range(VOCABULARY):
        count = written.count(token)
        row[0, token] -= count * settings.frequency_penalty + (count > 0) * settings.presence_penalty
    if settings.logit_bias:
        row = hf.SequenceBiasLogitsProcessor({(t,): b for t, b in settings.logit_bias.items()})(ids, row)
    if settings.temperature != 1:
        row = hf.TemperatureLogitsWarper(settings.temperature)(ids, row)
    if settings.top_k:
        row = hf.TopKLogitsWarper(settings.top_k)(ids, row)
    if settings.top_p < 1:
        row = hf.TopPLogitsWarper(settings.top_p)(ids, row)
    if settings.min_p:
        row = hf.MinPLogitsWarper(settings.min_p)(ids, row)
    if settings.typical_p < 1:
        row = hf.TypicalLogitsWarper(settings.typical_p)(ids, row)
    return row.double().softmax(-1)[0]


EACH: list[dict[str, Any]] = [
    {"temperature": 0.3},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": VOCABULARY + 5},
    {"top_p": 0.05},
    {"top_p": 0.6},
    {"top_p": 0.999},
    {"min_p": 0.02},
    {"min_p": 1.0},
    {"typical_p": 0.2},
    {"typical_p": 0.9},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"presence_penalty": 1.5},
    {"frequency_penalty": -0.5},
    {"logit_bias": {3: 4.0, 17: -100.0}},
    {"top_k": 40, "top_p": 0.8},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95, "min_p": 0.05},
    {"temperature": 1.3, "top_k": 60, "top_p": 0.9, "typical_p": 0.7, "repetition_penalty": 1.1,
     "presence_penalty": 0.4, "frequency_penalty": 0.2, "logit_bias": {"5": 2, 9: 1.5}},
]  # fmt: skip


@pytest.mark.parametrize("parameters", EACH, ids=str)
def test_every_parameter_means_what_it_means_in_transformers(parameters: dict[str, Any]) -> None:
    settings, prompt, written = Sampling(**parameters), [3, 50, 51, 3], [7, 9, 7, 120, 7]
    for logits in random_logits(8):
        ours, expected = (f(logits, settings, prompt, written) for f in (probabilities, theirs))
        assert torch.equal(ours > 1e-30, expected > 1e-30)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("parameters", [p for p in EACH if Sampling(**p).truncates], ids=str)
@pytest.mark.parametrize("spread", [0.05, 2.0])
def test_a_large_vocabulary_is_cut_as_a_small_one(parameters: dict[str, Any], spread: float) -> None:
    """Whether the cut lies among the 64 likeliest, the 1024 likeliest or further down; rows of all kinds at once."""
    mixed = [Sampling(**parameters), Sampling(), Sampling(top_p=0.5), Sampling(top_k=900), Sampling(**parameters)]
    logits = random_logits(len(mixed), 3, LARGE) * spread
    found = distribution(logits, mixed).double()
    for p, row, settings in zip(found, logits, mixed, strict=True):
        neutral = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}}
        expected = theirs(row, dataclasses.replace(settings, **neutral), [0], [])
        assert torch.equal(p > 1e-30, expected > 1e-30)
        torch.testing.assert_close(p, expected, atol=1e-6, rtol=1e-5)
    uniforms = torch.linspace(0, 1, len(mixed) * 40, dtype=torch.float64).reshape(40, -1) * (1 - 2**-53)
    for row in uniforms:
        tokens = draw(logits, mixed, row.tolist())
        assert (found[torch.arange(len(mixed)), tokens] > 0).all()
        below = [float(p[:token].sum()) for p, token in zip(found, tokens)]
        above = [float(p[: token + 1].sum()) for p, token in zip(found, tokens)]
        assert all(low - 1e-5 <= u <= high + 1e-5 for low, u, high in zip(below, row.tolist(), above))


def test_ties_at_the_cut_are_all_kept() -> None:
    logits = torch.zeros(2, LARGE)
    logits[:, :2] = 1.0
    logits[:, -5:] = 3.0
    kept = distribution(logits, [Sampling(top_k=2), Sampling(top_p=0.001)]) > 0
    assert [row.nonzero().flatten().tolist() for row in kept] == [[*range(LARGE - 5, LARGE)]] * 2


def draws(logits: torch.Tensor, settings: dict[str, Any], count: int) -> list[int]:
    """Tokens drawn by `count` requests whose seeds are 0, 1, ... in batches of 500."""
    found: list[int] = []
    for start in range(0, count, 500):
        samplers = [Sampler(Sampling(**settings, seed=seed)) for seed in range(start, start + 500)]
        found += [token.id for token in choose(logits.expand(500, -1), samplers)]
    return found


def chi_square_fits(tokens: list[int], expected: torch.Tensor) -> bool:
    """Pearson's test at a level of about 1e-5 (Wilson and Hilferty's approximation), rare tokens counted as one."""
    counts = torch.bincount(torch.tensor(tokens), minlength=len(expected)).double()
    if counts[expected == 0].any():
        return False
    rare = expected * len(tokens) < 10
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]]) * len(tokens)
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    used = expected > 0
    statistic = float(((counts - expected)[used] ** 2 / expected[used]).sum())
    degrees = int(used.sum()) - 1
    if degrees < 1:
        return statistic < 1e-6
    return ((statistic / degrees) ** (1 / 3) - (1 - 2 / (9 * degrees))) / (2 / (9 * degrees)) ** 0.5 < 4.3


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.4}, {"top_k": 12}, {"top_p": 0.7}, {"min_p": 0.1}, {"typical_p": 0.6},
     {"temperature": 1.5, "top_k": 30, "top_p": 0.9, "logit_bias": {1: 3}}],
    ids=str,
)  # fmt: skip
def test_tokens_are_drawn_by_their_probability(settings: dict[str, Any]) -> None:
    logits = random_logits(1, 5, 60)[0] / 2
    exact = probabilities(logits, Sampling(**settings), [], [])
    tokens = draws(logits, settings, 10_000)
    assert chi_square_fits(tokens, exact)
    assert not chi_square_fits(tokens, exact**1.3 / (exact**1.3).sum()), "the test would notice"


def test_positions_of_one_request_are_independent() -> None:
    """Pairs of neighbouring draws of one seed follow the product of their distributions."""
    p = torch.softmax(LOGITS, 0).double()
    sampler = Sampler(Sampling(seed=11))
    tokens = [choose(LOGITS[None], [sampler])[0].id for _ in range(8_000)]
    pairs = [4 * a + b for a, b in zip(tokens[::2], tokens[1::2])]
    assert chi_square_fits(pairs, torch.outer(p, p).flatten())


def test_the_same_seed_gives_the_same_tokens_in_any_company_and_after_any_others() -> None:
    steps = [random_logits(9, step) for step in range(30)]
    settings = Sampling(temperature=1.2, top_p=0.95, seed=7)

    def alone() -> list[int]:
        sampler = Sampler(settings)
        return [choose(step[:1], [sampler])[0].id for step in steps]

    sampler = Sampler(settings)
    company = [Sampler(Sampling(temperature=i / 4, top_k=i, seed=7)) for i in range(8)]
    order = [3, 1, 0, 2, 5, 4, 8, 7, 6]
    mixed = []
    for step in steps:
        rows = step[order]
        place = order.index(0)
        tokens = choose(rows, [*company[:place], sampler, *company[place:]])
        mixed.append(tokens[place].id)
    assert alone() == alone() == mixed
    assert len(set(mixed)) > 10


def test_seeds_decide_and_a_drawn_one_can_be_repeated() -> None:
    def tokens(seed: int | None) -> tuple[int, list[int]]:
        sampler = Sampler(Sampling(seed=seed))
        return sampler.seed, [choose(LOGITS[None], [sampler])[0].id for _ in range(64)]

    assert tokens(7) == tokens(7) and tokens(7)[1] != tokens(8)[1]
    seed, drawn = tokens(None)
    assert tokens(seed) == (seed, drawn)
    assert tokens(-5) == tokens(-5) != tokens(5)
    assert len({tokens(2**70 + i)[1].__repr__() for i in range(20)}) == 20


def test_greedy_takes_the_likeliest_after_penalties_and_bias() -> None:
    samplers = [
        Sampler(Sampling(temperature=0)),
        Sampler(Sampling(temperature=0, logit_bias={3: 10})),
        Sampler(Sampling(temperature=0, presence_penalty=2)),
        Sampler(Sampling(temperature=0, repetition_penalty=4), prompt=[1]),
    ]
    samplers[2].write(1)
    logits = LOGITS.expand(4, 4).clone()
    assert [token.id for token in choose(logits, samplers)] == [1, 3, 2, 2]
    assert torch.equal(logits, LOGITS.expand(4, 4)), "the logits are left as they were"
    assert [sampler.written for sampler in samplers] == [[1], [3], [1, 2], [2]]


def test_stop_tokens_wait_for_the_least_number_of_tokens() -> None:
    sampler = Sampler(Sampling(temperature=0, min_tokens=2), stop_tokens={1, 2})
    assert [choose(LOGITS[None], [sampler])[0].id for _ in range(4)] == [0, 0, 1, 1]


def test_penalties_follow_the_growing_history() -> None:
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=0.6))
    assert [choose(LOGITS[None], [sampler])[0].id for _ in range(6)] == [1, 1, 2, 1, 2, 1]


def test_a_tiny_temperature_is_nearly_greedy_and_does_not_overflow() -> None:
    for temperature in (1e-30, 1e-300):
        assert set(draws(LOGITS * 1e4, {"temperature": temperature}, 500)) == {1}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_logits_of_any_precision_and_wide_range(dtype: torch.dtype) -> None:
    logits = torch.tensor([[6e4, -6e4, 0.0, float("-inf")]], dtype=dtype)
    assert choose(logits, [Sampler(Sampling(top_p=0.9, seed=1))])[0].id == 0
    assert choose(logits, [Sampler(Sampling(typical_p=0.9, seed=1, repetition_penalty=2), [0])])[0].id == 0


def test_masks_forbid_and_logprobs_stay_those_of_the_model() -> None:
    def only_the_last(row: torch.Tensor) -> None:
        row[:-1] = float("-inf")

    samplers = [Sampler(Sampling(seed=1, logprobs=2, logit_bias={0: 50})), Sampler(Sampling(temperature=0))]
    first, second = choose(LOGITS.expand(2, 4), samplers, [only_the_last, None])
    exact = torch.log_softmax(LOGITS, 0).tolist()
    assert (first.id, second) == (3, Token(1))
    assert first.logprob == pytest.approx(exact[3], abs=1e-6)
    assert [token for token, _ in first.top] == [1, 2]
    assert [logprob for _, logprob in first.top] == pytest.approx([exact[1], exact[2]], abs=1e-6)


def test_as_many_alternatives_as_asked_for_in_each_row() -> None:
    wanted = [None, 0, 3, 20]
    tokens = choose(LOGITS.expand(4, 4), [Sampler(Sampling(temperature=0, logprobs=n)) for n in wanted])
    assert [token.logprob is None for token in tokens] == [True, False, False, False]
    assert [len(token.top) for token in tokens] == [0, 0, 3, 4]
    assert all(token.top[0] == (token.id, token.logprob) for token in tokens[2:])


def test_rows_from_which_nothing_can_be_chosen_are_named_and_nobody_moves() -> None:
    logits = random_logits(4)
    logits[1] = float("-inf")
    logits[3, 5] = float("nan")
    samplers = [Sampler(Sampling(seed=i)) for i in range(4)]
    with pytest.raises(Unsamplable) as caught:
        choose(logits, samplers)
    assert caught.value.rows == (1, 3) and not any(sampler.written for sampler in samplers)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": -0.1}, {"temperature": 2.1}, {"temperature": float("nan")}, {"temperature": "1"},
     {"temperature": True}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -2}, {"top_k": 1.5}, {"top_k": None},
     {"min_p": -0.1}, {"min_p": 2}, {"typical_p": 0}, {"repetition_penalty": 0}, {"repetition_penalty": 1e9},
     {"repetition_penalty": 10**400}, {"presence_penalty": 3}, {"frequency_penalty": -3}, {"seed": 1.5}, {"seed": "a"},
     {"min_tokens": -1}, {"logprobs": 21}, {"logprobs": -1}, {"logprobs": True}, {"logit_bias": {1: 101}},
     {"logit_bias": {-1: 1}},
     {"logit_bias": {"x": 1}}, {"logit_bias": {1: "a"}}, {"logit_bias": [1]}, {"logit_bias": {"9" * 40: 1}}],
    ids=str,
)  # fmt: skip
def test_absurd_values_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Sampling(**settings)


def test_neutral_spellings_are_understood() -> None:
    settings = Sampling(top_k=-1, logit_bias={"12": 1})  # type: ignore[dict-item]
    assert settings.top_k == 0 and settings.logit_bias == {12: 1.0}


def test_a_bias_on_a_token_that_the_model_has_not_is_refused_with_both_numbers() -> None:
    Sampling(logit_bias={199: 1}).check(VOCABULARY)
    with pytest.raises(InputError, match=f"200, but the model has {VOCABULARY}"):
        Sampling(logit_bias={200: 1}).check(VOCABULARY)
