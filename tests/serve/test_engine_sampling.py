from __future__ import annotations

import math
import threading
import time

import pytest

torch = pytest.importorskip("torch")

from windlass.core.errors import InputError  # noqa: E402
from windlass.serve.engine.sampling import Sampler, Sampling  # noqa: E402
from windlass.serve.engine.turns import Turns  # noqa: E402

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def frequencies(settings: Sampling, draws: int = 20_000) -> torch.Tensor:
    sampler = Sampler(settings)
    return torch.bincount(torch.tensor([sampler.choose(LOGITS) for _ in range(draws)]), minlength=4) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_by_their_probability(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, 0)
    # 5 standard errors of the largest share
    torch.testing.assert_close(
        frequencies(Sampling(temperature, seed=1)), expected, atol=5 * 0.5 / math.sqrt(2e4), rtol=0
    )


@pytest.mark.parametrize(("top_p", "kept"), [(0.3, [1]), (0.7, [1, 2]), (0.95, [0, 1, 2]), (1.0, [0, 1, 2, 3])])
def test_top_p_keeps_the_smallest_sufficient_set(top_p: float, kept: list[int]) -> None:
    p = torch.softmax(LOGITS, 0)
    expected = torch.zeros(4)
    expected[kept] = p[kept] / p[kept].sum()
    torch.testing.assert_close(frequencies(Sampling(1.0, top_p, seed=2)), expected, atol=0.02, rtol=0)


def test_greedy() -> None:
    assert {Sampler(Sampling(0)).choose(LOGITS) for _ in range(50)} == {1}


def test_a_tiny_temperature_is_nearly_greedy_and_does_not_overflow() -> None:
    assert {Sampler(Sampling(1e-30)).choose(LOGITS * 1e4) for _ in range(50)} == {1}


def test_the_seed_decides_and_a_drawn_one_can_be_repeated() -> None:
    def draws(seed: int | None) -> tuple[int, list[int]]:
        sampler = Sampler(Sampling(1.0, seed=seed))
        return sampler.seed, [sampler.choose(LOGITS) for _ in range(64)]

    assert draws(7) == draws(7) and draws(7)[1] != draws(8)[1]
    seed, tokens = draws(None)
    assert draws(seed) == (seed, tokens)
    assert draws(-5) == draws(-5)


@pytest.mark.parametrize("settings", [{"temperature": -0.1}, {"temperature": 2.1}, {"top_p": 0}, {"top_p": 1.1}])
def test_absurd_values_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Sampling(**settings)  # type: ignore[arg-type]


def test_turns_are_taken_in_order_and_one_at_a_time() -> None:
    turns, order, inside = Turns(), [], 0

    def work(name: int) -> None:
        nonlocal inside
        for _ in range(20):
            with turns.turn():
                inside += 1
                assert inside == 1
                order.append(name)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 60
    # once all three have begun and until the first has finished, they alternate strictly
    first_done = min(len(order) - 1 - order[::-1].index(i) for i in range(3))
    begun = max(order.index(i) for i in range(3))
    middle = order[begun : first_done + 1]
    assert len(middle) > 30 and all(len(set(middle[i : i + 3])) == 3 for i in range(len(middle) - 2))


def test_a_failing_turn_is_handed_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError), turns.turn():
        raise ValueError
    with turns.turn():
        pass
