"""Whatever an engine does meanwhile, each request gets what the model alone would write for it."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

torch = pytest.importorskip("torch")

from tiny_decoders import answers, ask, decoder, greedy, ids, prompts  # noqa: E402

from windlass.build.transformer.config import Experts, RopeScaling  # noqa: E402
from windlass.core.errors import InputError, NoMemory  # noqa: E402
from windlass.serve.engine.engine import Closed, Engine  # noqa: E402
from windlass.serve.engine.kv import BLOCK  # noqa: E402
from windlass.serve.engine.sampling.drawing import Guess  # noqa: E402
from windlass.serve.engine.speculation.speculation import Speculation  # noqa: E402

LONGROPE = RopeScaling("longrope", factor=3.0, original_context=40, short_factors=(1.0,) * 4, long_factors=(1, 2, 3, 4))
KINDS = {
    "llama": {},
    "window": {"window": 7, "pattern": "LG"},
    "longrope": {"rope_scaling": LONGROPE},
    "alibi": {"position": "alibi"},
    "relative": {"position": "relative"},
    "learned": {"position": "learned", "norm": "layer", "tied": True},
    "capped": {"attention_cap": 5.0, "logit_cap": 6.0, "window": 20, "norm_placement": "sandwich"},
    "experts": {"experts": Experts(4, 2, 24)},
}


@pytest.fixture(scope="module")
def model():
    return decoder()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_writes_in_company_what_it_writes_alone(kind):
    model = decoder(**KINDS[kind])
    engine = Engine(model, max_batch=4, token_budget=24, kv_tokens=512)
    asked = prompts(5, 38, 70, 17, 33, 1)
    for again in range(2):  # the second time with a warm cache
        runs = [engine.submit(ask(prompt)) for prompt in asked]
        for prompt, run in zip(asked, runs, strict=True):
            assert ids(run) == greedy(model, prompt, 12)
            assert run.finish == "length"
        assert bool(sum(run.cached for run in runs)) == bool(again)
    engine.close()


def test_a_step_serves_everybody(model):
    engine = Engine(model, max_batch=8, token_budget=64)
    answers(engine, [ask(prompt, 20) for prompt in prompts(*[8] * 8)])
    stats = engine.stats()
    assert stats.written_tokens == 160 and stats.steps <= 30, stats
    assert (stats.running, stats.waiting, stats.kv_held, stats.ended) == (0, 0, 0, 8)
    engine.close()


def test_what_a_prompt_shares_with_others_is_read_once(model):
    engine = Engine(model, max_batch=4, token_budget=32, kv_tokens=1024)
    (shared,) = prompts(50)
    asked = [shared + tail for tail in prompts(*[5] * 8)]
    runs = [engine.submit(ask(prompt, 3)) for prompt in asked]  # at once: those behind the first wait for its blocks
    for prompt, run in zip(asked, runs, strict=True):
        assert ids(run) == greedy(model, prompt, 3)
    assert [run.cached for run in runs] == [0] + [48] * 7
    stats = engine.stats()
    assert stats.hit_rate == pytest.approx(7 * 48 / (8 * 55))
    turn = shared + greedy(model, shared, 20)
    ids(engine.submit(ask(shared, 20)))
    assert ids(engine.submit(ask(turn, 2))) == greedy(model, turn, 2)
    assert engine.stats().cached_tokens - stats.cached_tokens == 48 + 64, "answers are known too"
    engine.close()


def test_nothing_is_shared_where_it_is_turned_off(model):
    engine = Engine(model, share=False)
    (prompt,) = prompts(50)
    assert [ids(engine.submit(ask(prompt, 3))) for _ in range(2)] == [greedy(model, prompt, 3)] * 2
    assert engine.stats().cached_tokens == engine.stats().kv_cached == 0
    engine.close()


def test_memory_runs_out_and_nobody_notices(model):
    engine = Engine(model, max_batch=6, token_budget=32, kv_tokens=160)
    asked = prompts(30, 25, 40, 8, 20, 33)
    runs = [engine.submit(ask(prompt, 40, temperature=1.0)) for prompt in asked]
    crowded = [ids(run) for run in runs]
    assert engine.stats().preemptions > 0
    engine.close()
    roomy = Engine(model, max_batch=1)
    assert crowded == [ids(roomy.submit(ask(prompt, 40, temperature=1.0))) for prompt in asked]
    assert roomy.stats().preemptions == 0
    roomy.close()


def test_cancelling_frees_memory_and_leaves_the_others_alone(model):
    engine = Engine(model, max_batch=3, token_budget=16, kv_tokens=1024)
    asked = prompts(20, 30, 40, 10)
    runs = [engine.submit(ask(prompt, 80)) for prompt in asked]
    next(iter(runs[1]))
    runs[1].cancel()
    runs[3].cancel()
    assert runs[1].wait(30) and runs[3].wait(30)
    assert runs[1].finish == runs[3].finish == "cancelled"
    for i in (0, 2):
        assert ids(runs[i]) == greedy(model, asked[i], 80)
    runs[0].cancel()
    assert runs[0].finish == "length", "too late"
    assert engine.stats().kv_held == 0
    engine.close()


def test_a_deadline_ends_running_and_waiting_requests(model):
    engine = Engine(model, max_batch=1, token_budget=16)
    (prompt,) = prompts(10)
    late = [engine.submit(ask(prompt, 110, deadline=time.monotonic() + 0.02)) for _ in range(3)]
    assert [len(ids(run)) < 110 for run in late] == [True] * 3
    assert {run.finish for run in late} == {"deadline"}
    assert ids(engine.submit(ask(prompt, 5, deadline=time.monotonic() + 60))) == greedy(model, prompt, 5)
    engine.close()


def test_priority_goes_before_arrival(model):
    engine = Engine(model, max_batch=1, token_budget=16)
    order: list[int] = []
    asked = [(1, 60), (1, 5), (0, 5), (2, 60), (0, 5)]  # the last has so much to do that its reader is surely last
    first = engine.submit(ask([1], 60, priority=1))
    stream = iter(first)
    next(stream)
    runs = [first] + [engine.submit(ask([1], length, priority=priority)) for priority, length in asked[1:]]

    def follow(number: int) -> None:
        runs[number].wait(30)
        order.append(number)

    readers = [threading.Thread(target=follow, args=(number,)) for number in range(5)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert sorted(order[:2]) == [2, 4] and order[-1] == 3, "the best two set the first aside, the worst is last"
    assert [first.finish, len(list(stream))] == ["length", 59]
    engine.close()


def test_stop_tokens_end_an_answer_and_are_its_last_token(model):
    (prompt,) = prompts(10)
    written = greedy(model, prompt, 10)
    engine = Engine(model)
    run = engine.submit(ask(prompt, 10, stop_tokens=frozenset({written[4]})))
    assert ids(run) == written[: written.index(written[4]) + 1] and run.finish == "stop"
    engine.close()


@pytest.mark.parametrize("first", [0, 1, 30, 48])
def test_a_prompts_log_probabilities_cost_no_second_reading(model, first):
    (prompt,) = prompts(49)
    with torch.inference_mode():
        expected = model(torch.tensor([prompt]))[0].log_softmax(-1)
    engine = Engine(model, token_budget=20)
    for cached in (0, 48):
        run = engine.submit(ask(prompt, 0, prompt_logprobs=2, prompt_from=first))
        assert ids(run) == [] and run.finish == "length" and run.cached == cached
        assert [token.id for token in run.prompt_logprobs] == prompt[first:]
        for place, token in enumerate(run.prompt_logprobs, start=first):
            if place == 0:
                assert (token.logprob, token.top) == (None, ())
                continue
            assert token.logprob == pytest.approx(float(expected[place - 1, prompt[place]]), abs=1e-4)
            best, which = expected[place - 1].topk(2)
            assert [i for i, _ in token.top] == which.tolist()
            assert [value for _, value in token.top] == pytest.approx(best.tolist(), abs=1e-4)
    engine.close()


class Oracle:
    """Knows the answer, and errs in every `wrong`-th token."""

    def __init__(self, answer: list[int], prompt: int, wrong: int) -> None:
        self.answer, self.prompt, self.wrong, self.learned = answer, prompt, wrong, []

    def propose(self, tokens, most):
        start = len(tokens) - self.prompt
        told = self.answer[start : start + min(most, 5)]
        return [Guess((token + (place % self.wrong == self.wrong - 1)) % 97) for place, token in enumerate(told, start)]

    def learn(self, guessed, right):
        self.learned.append((guessed, right))


class Told(Speculation):
    """Asks an oracle for each prompt, whatever it costs."""

    def __init__(self, oracles: dict[tuple[int, ...], Oracle]) -> None:
        super().__init__()
        self.oracles = oracles

    def drafter(self, generation):
        return self.oracles.get(tuple(generation.prompt))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("wrong", [3, 1000])
def test_guessing_ahead_changes_nothing_but_the_number_of_steps(model, wrong, temperature):
    asked = prompts(20, 33, 7)
    plain = Engine(model)
    expected = [ids(plain.submit(ask(prompt, 40, temperature=temperature))) for prompt in asked]
    plain.close()
    oracles = {tuple(p): Oracle(answer, len(p), wrong) for p, answer in zip(asked, expected, strict=True)}
    engine = Engine(model, speculation=Told(oracles))
    runs = [engine.submit(ask(prompt, 40, temperature=temperature)) for prompt in asked]
    assert [ids(run) for run in runs] == expected
    assert engine.stats().steps < (30 if wrong == 3 else 14)
    for oracle in oracles.values():
        assert all(right <= guessed for guessed, right in oracle.learned)
        assert (sum(right for _, right in oracle.learned) == sum(n for n, _ in oracle.learned)) == (wrong == 1000)
    long = [*asked[0], *expected[0][:28]]
    assert ids(engine.submit(ask(long[:48], 5))) == greedy(model, long[:48], 5), "wrong guesses are not kept"
    engine.close()


class Only:
    """Allows even tokens only, forces the first two and the fourth, and ends after the fifth."""

    def __init__(self, broken: str = "") -> None:
        self.written: list[int] = []
        self.broken, self.forced_tokens = broken, 0

    @property
    def ended(self):
        return len(self.written) >= 5

    def allow(self, logits_V):
        if self.broken == "allow":
            raise RuntimeError("allow is broken")
        logits_V[1::2] = float("-inf")
        if self.broken == "nothing":
            logits_V.fill_(float("-inf"))

    def accept(self, token):
        assert token % 2 == 0
        if self.broken == "accept":
            raise RuntimeError("accept is broken")
        self.written.append(token)

    def forced(self):
        if self.broken == "forced":
            raise RuntimeError("forced is broken")
        forced = {0: [2, 4], 3: [8]}.get(len(self.written), [])
        self.forced_tokens += len(forced)
        return forced

    def rollback(self, count):
        raise AssertionError("no token is taken back")

    def copy(self):
        raise AssertionError("nothing is copied")


def test_a_constraint_masks_forces_and_ends(model):
    engine = Engine(model)
    (prompt,) = prompts(10)
    constraint = Only()
    run = engine.submit(ask(prompt, 50, constraint=constraint))
    written = ids(run)
    assert [*written[:2], written[3]] == [2, 4, 8] and len(written) == 5 and run.finish == "stop"
    assert constraint.forced_tokens == 3 and written == constraint.written
    for place in (2, 4):
        assert written[place] == greedy_even(model, prompt + written[:place])
    assert engine.stats().steps == 2, "what is forced is not chosen"
    with_logprobs = engine.submit(ask(prompt, 2, constraint=Only(), logprobs=1))
    assert [token.logprob is not None for token in with_logprobs] == [True, True]
    engine.close()


def greedy_even(model, tokens):
    with torch.inference_mode():
        return int(model(torch.tensor([tokens]))[0, -1][::2].argmax()) * 2


@pytest.mark.parametrize("broken", ["allow", "accept", "forced", "nothing"])
def test_a_broken_constraint_ends_its_own_request_only(model, broken):
    engine = Engine(model)
    asked = prompts(10, 12, 14)
    good = [engine.submit(ask(prompt, 30)) for prompt in asked[:2]]
    bad = engine.submit(ask(asked[2], 30, constraint=Only(broken)))
    with pytest.raises(Exception, match="is broken" if broken != "nothing" else "No token can be chosen"):
        ids(bad)
    assert bad.finish == "error"
    assert [ids(run) for run in good] == [greedy(model, prompt, 30) for prompt in asked[:2]]
    engine.close()


def test_a_failing_pass_ends_those_in_it_and_the_engine_goes_on(model, monkeypatch):
    engine = Engine(model)
    (prompt,) = prompts(10)

    def broken(*arguments, **more):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(model, "hidden_of_parts", broken, raising=True)
        with pytest.raises(RuntimeError, match="out of memory"):
            ids(engine.submit(ask(prompt)))
    assert ids(engine.submit(ask(prompt))) == greedy(model, prompt, 12)
    assert engine.stats().kv_held == 0
    engine.close()


def test_a_thread_that_breaks_tells_everybody_and_is_replaced(model, monkeypatch):
    """What no request can be blamed for: nobody waits for ever, and the next request is served."""
    engine = Engine(model, max_batch=1)
    (prompt,) = prompts(10)
    entered, go = threading.Event(), threading.Event()

    def broken(*arguments):
        entered.set()
        go.wait(30)
        raise RuntimeError("the engine itself is broken")

    monkeypatch.setattr(engine, "_guarded", broken)
    runs = [engine.submit(ask(prompt, 100)) for _ in range(3)]
    assert entered.wait(30)
    turned = threading.Thread(target=engine.turn, args=(lambda: None,))
    turned.start()
    while not engine._jobs:
        time.sleep(0.001)
    monkeypatch.undo()
    go.set()
    for run in runs:
        with pytest.raises(RuntimeError, match="the engine itself is broken"):
            ids(run)
    turned.join(30)
    assert not turned.is_alive(), "who waits for a turn gets it"
    assert ids(engine.submit(ask(prompt))) == greedy(model, prompt, 12)
    stats = engine.stats()
    assert (stats.ended, stats.requests, stats.kv_held, stats.waiting) == (4, 4, 0, 0)
    engine.close()


def test_memory_that_fails_in_a_step_costs_those_in_it_and_what_is_kept_for_others(model, monkeypatch):
    engine = Engine(model)
    (prompt,) = prompts(40)
    assert ids(engine.submit(ask(prompt))) == greedy(model, prompt, 12)
    assert engine.stats().kv_cached > 0

    def full(*arguments, **more):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with monkeypatch.context() as patched:
        patched.setattr(model, "hidden_of_parts", full, raising=True)
        with pytest.raises(NoMemory, match="no memory left for this request"):
            ids(engine.submit(ask([1])))
    assert engine.stats().kv_cached == 0
    assert ids(engine.submit(ask(prompt))) == greedy(model, prompt, 12)
    engine.close()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (ask([]), "prompt is empty"),
        (ask([97]), "outside of the model's 97"),
        (ask([-1]), "outside"),
        (ask([1], -1), "max_tokens is -1"),
        (ask([1] * 100, 29), "100 tokens and max_tokens of 29 make 129, but the model reads at most 128"),
        (ask([1] * 60, 21), "make 81, but the engine has room for at most 80"),
    ],
)
def test_what_can_never_be_served_is_refused_with_both_numbers(model, asked, match):
    engine = Engine(model, kv_tokens=5 * BLOCK + 3 if len(asked.prompt) == 60 else None)
    with pytest.raises(InputError, match=match):
        engine.submit(asked)
    assert engine.stats().requests == 0
    engine.close()


def test_closing_drains_or_cancels(model):
    (prompt,) = prompts(10)
    for drain in (True, False):
        engine = Engine(model, max_batch=1)
        runs = [engine.submit(ask(prompt, 100)) for _ in range(3)]
        engine.close(drain=drain)
        assert {run.finish for run in runs} <= ({"length"} if drain else {"length", "cancelled"})
        assert drain or runs[-1].finish == "cancelled"
        with pytest.raises(Closed):
            engine.submit(ask(prompt))
        with pytest.raises(Closed):
            engine.turn(lambda: None)


def test_others_may_use_the_model_between_steps(model):
    engine = Engine(model)
    run = engine.submit(ask([1], 100))
    seen: list[str] = []
    engine.turn(lambda: seen.append(threading.current_thread().name))
    assert seen == ["windlass-engine"] and len(ids(run)) == 100
    with pytest.raises(ZeroDivisionError):
        engine.turn(lambda: seen.append(str(1 / 0)))
    engine.close()


def test_an_idle_engine_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("windlass.serve.engine.engine._LINGER", 0.05)
    engine = Engine(decoder())
    ids(engine.submit(ask([1])))
    gone = weakref.ref(engine)
    del engine
    end = time.monotonic() + 30
    while gone() is not None and time.monotonic() < end:
        time.sleep(0.02)
        gc.collect()
    assert gone() is None
    engine = Engine(decoder())
    for _ in range(3):
        assert len(ids(engine.submit(ask([1])))) == 12
        time.sleep(0.1)  # the thread goes, and another one comes
    engine.close()
