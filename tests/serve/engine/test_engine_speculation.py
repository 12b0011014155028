"""Guessing ahead in the engine changes what is computed together, and nothing of what is written."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from tiny_decoders import VOCABULARY, ask, decoder, greedy, ids, prompts  # noqa: E402

from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.engine import Engine  # noqa: E402
from windlass.serve.engine.request import Generation  # noqa: E402
from windlass.serve.engine.sampling.settings import Sampling  # noqa: E402
from windlass.serve.engine.speculation.speculation import Speculation  # noqa: E402


class Eager(Speculation):
    """Guesses whatever it costs."""

    def begin(self, rows: int) -> None:
        super().begin(rows)
        self.guessing = True

    def length(self, chance: float, most: int) -> int:
        return min(most, 4)


@pytest.fixture(scope="module")
def model():
    return decoder()


def near(model, noise=0.02):
    """A draft model that is often right, not always."""
    draft = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=noise)
    return draft


REPEATING = [*range(20), *range(20), *range(12)]


@pytest.mark.parametrize("drafts", [False, True], ids=["lookup", "draft model"])
def test_greedy_texts_and_seeded_ones_are_the_same(model, drafts):
    asked = [*prompts(20, 33, 7), REPEATING]
    plain = Engine(model)
    requests = [ask(p, 30, temperature=t) for p in asked for t in (0.0, 1.0)]
    expected = [ids(plain.submit(one)) for one in requests]
    plain.close()
    speculation = Eager(near(model) if drafts else None)
    engine = Engine(model, speculation=speculation)
    runs = [engine.submit(one) for one in requests]
    assert [ids(run) for run in runs] == expected
    for prompt, text in zip(asked, expected[::2], strict=True):
        assert text == greedy(model, prompt, 30)
    stats = engine.stats()
    assert stats.speculation is not None and stats.speculation.offered > stats.speculation.accepted > 0
    if drafts:
        alone = ids(engine.submit(ask(asked[0], 60)))
        assert alone == greedy(model, asked[0], 60)
        assert engine.stats().steps - stats.steps < 45
    engine.close()


def test_drawn_guesses_do_not_change_the_distribution_of_what_is_written(model):
    """Of three tokens in a row, over thousands of answers: with guessing and without, and as the model's own logits
    say. All three tokens are written in one step where the guesses survive."""
    prompt, count, few = [3, 14, 15], 1500, [5, 50, 77]
    bias = dict.fromkeys(few, 30.0)
    engine = Engine(model, speculation=Eager(near(model, 0.3)), max_batch=50)
    settings = Sampling(temperature=1.4, logit_bias=bias)
    runs = [engine.submit(Generation(prompt=prompt, max_tokens=3, sampling=settings)) for _ in range(count)]
    found: dict[tuple[int, ...], int] = {}
    for run in runs:
        written = tuple(ids(run))
        found[written] = found.get(written, 0) + 1
    stats = engine.stats().speculation
    engine.close()
    assert stats is not None and 0.2 * stats.offered < stats.accepted < 0.95 * stats.offered
    expected: dict[tuple[int, ...], float] = {(): 1.0}
    with torch.inference_mode():
        for _ in range(3):
            longer = {}
            for said, probability in expected.items():
                logits = model(torch.tensor([[*prompt, *said]]))[0, -1]
                logits[few] += 30.0
                odds = (logits / 1.4).softmax(-1)
                longer |= {(*said, token): probability * float(odds[token]) for token in few}
            expected = longer
    assert set(found) <= set(expected)
    statistic = sum((found.get(said, 0) - p * count) ** 2 / (p * count) for said, p in expected.items())
    degrees = len(expected) - 1
    assert statistic < degrees + 4.5 * (2 * degrees) ** 0.5, (statistic, degrees)


def test_guesses_end_with_the_answer_and_obey_its_limits(model):
    engine = Engine(model, speculation=Eager(model))  # a draft model that is always right
    (prompt,) = prompts(9)
    text = greedy(model, prompt, 20)
    for length in (1, 2, 3, 7, 20):
        run = engine.submit(ask(prompt, length))
        assert ids(run) == text[:length] and run.finish == "length"
    stop = next(token for place, token in enumerate(text) if place >= 4 and token not in text[:place])
    run = engine.submit(ask(prompt, 20, stop_tokens=frozenset({stop})))
    assert ids(run) == text[: text.index(stop) + 1] and run.finish == "stop"
    engine.close()


def test_penalties_see_the_guesses_that_were_right_only(model):
    penalised = Sampling(temperature=0, frequency_penalty=1.5, repetition_penalty=1.2)
    plain, guessing = Engine(model), Engine(model, speculation=Eager(near(model)))
    for prompt in prompts(6, 17, 30):
        asked = Generation(prompt=prompt, max_tokens=40, sampling=penalised)
        assert ids(guessing.submit(asked)) == ids(plain.submit(asked))
    plain.close()
    guessing.close()


def test_reproducible_mode_may_guess(model):
    (prompt,) = prompts(15)
    texts = []
    for speculation in (None, Eager(), Eager(near(model))):
        engine = Engine(model, reproducible=True, speculation=speculation)
        run = engine.submit(ask([*prompt, *prompt], 40, logprobs=2))
        texts.append(list(run))
        engine.close()
    assert texts[0] == texts[1] == texts[2], "to the last bit of the log-probabilities"


def test_a_draft_model_of_another_vocabulary_is_refused(model):
    with pytest.raises(InputError, match=f"50 tokens, but the model that is served has {VOCABULARY}"):
        Engine(model, speculation=Speculation(decoder(vocab_size=50)))
