"""Reinforcement learning from end to end on a tiny decoder with random weights."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from digits_world import END, largest_of, random_base

from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.rl.batches import lay_out
from windlass.build.adapt.rl.objective import _loss, prepare
from windlass.build.adapt.rl.prompts import ends_of, prompts_of
from windlass.build.adapt.rl.rewards.reward import Reward
from windlass.build.adapt.rl.rollouts import PlainRollouts, Rollout, Writing, twin
from windlass.build.adapt.rl.scoring import logprobs
from windlass.build.adapt.rl.settings import RLSettings
from windlass.build.adapt.rl.tally import Tally
from windlass.build.adapt.sections import (
    AdapterSettings,
    BaseSettings,
    TuneDataSettings,
    TuneObjectiveSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import tune
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.data.batches import updates
from windlass.build.training.loop import accumulate
from windlass.build.transformer.adapters.recipe import WEIGHTS
from windlass.build.transformer.hf import load_decoder, load_model
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"), noise=0.2)


@pytest.fixture
def rows(tmp_path) -> Path:
    return largest_of(tmp_path / "rows.jsonl", 2, 40)


def asked(base: Path, rows: Path, kind: str = "grpo", **changes) -> TuneSettings:
    values = {
        "model": BaseSettings(str(base)),
        "adapter": AdapterSettings("none"),
        "data": TuneDataSettings(str(rows), batch=4, heldout=0.2),
        "objective": TuneObjectiveSettings(kind),
        "optimizer": TuneOptimizerSettings(matrix_rate=3e-3),
        "schedule": TuneScheduleSettings(steps=6),
        "run": TuneRunSettings(name="largest", compile="no", precision="fp32", checkpoint_steps=2),
        "rl": RLSettings(group=4, answer_tokens=3),
    }
    return TuneSettings(**(values | changes))


def series(ws: Workspace, model, name: str) -> list[float]:
    return [point.value for point in ws.store.metrics(model.record.run, name)]


def quiet(line: str) -> None:
    pass


def test_every_step_says_what_it_did(base, rows, tmp_path):
    said: list[str] = []
    with Workspace(tmp_path) as ws:
        model = tune(ws, asked(base, rows), say=said.append)
        for name in ("reward", "flat_groups", "answer_tokens", "cut", "entropy", "clipped", "mismatch_largest"):
            assert len(series(ws, model, name)) == 6, name
        assert max(series(ws, model, "mismatch_largest")) < 1e-4  # one arithmetic, one model
        assert max(series(ws, model, "mismatch_kl")) < 1e-8
        assert all(abs(one - 1) < 1e-5 for one in series(ws, model, "importance"))
        assert all(0 < one <= math.log(13) * 1.5 for one in series(ws, model, "entropy"))
        assert len(series(ws, model, "heldout_reward")) == 2  # before and after
        assert (load_model(model.path)(torch.arange(5)[None]) - load_model(base)(torch.arange(5)[None])).abs().max() > 0
    assert any("32 prompts to train on, 8 held out; 4 answers to each" in line for line in said)
    assert any("held-out: reward" in line for line in said)


def test_ppo_trains_a_value_head_that_is_not_stored(base, rows, tmp_path):
    many = asked(base, rows, "ppo", rl=RLSettings(group=1, answer_tokens=3, updates=2, kl=0.01, value_weight=1.0))
    with Workspace(tmp_path) as ws:
        model = tune(
            ws, replace(many, data=replace(many.data, batch=16), schedule=TuneScheduleSettings(steps=12)), say=quiet
        )
        losses = series(ws, model, "value_loss")
        assert len(losses) == 12 and all(map(math.isfinite, losses))
        assert max(series(ws, model, "kl")) < 1 and min(series(ws, model, "kl")) >= 0
        assert not any(
            "value" in name for name, _ in load_decoder(model.path).named_parameters() if "attention" not in name
        )


@pytest.mark.parametrize(("kind", "updates"), [("grpo", 1), ("grpo", 2), ("ppo", 2)])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(base, rows, tmp_path, kind, updates):
    plain = TuneRunSettings(name="straight", compile="no", precision="fp32", checkpoint_steps=2)
    with Workspace(tmp_path) as ws:
        how = partial(
            asked,
            base,
            rows,
            kind,
            adapter=AdapterSettings(rank=4),
            rl=RLSettings(group=4, answer_tokens=3, updates=updates, kl=0.05),
        )
        straight = tune(ws, how(run=plain), say=quiet)
        stopping = replace(plain, name="stopped")

        def stop(line: str) -> None:
            if line.startswith("held-out"):  # behind the last step, before anything is stored
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(ws, how(run=stopping), say=stop)
        (run,) = (r for r in ws.runs.list("tune") if r.name == "stopped")
        folder = tmp_path / ".windlass/runs" / run.id
        last = checkpoint.steps(folder)[-1]
        shutil.rmtree(folder / checkpoint.FOLDER / f"step-{last:08d}")
        again = tune(ws, how(run=stopping), say=quiet)
        assert again.record.files[WEIGHTS] == straight.record.files[WEIGHTS]


@pytest.fixture
def prepared(base, rows, tmp_path):
    """What an objective prepares, of these settings, and of the same numbers in every call."""

    def make(kind: str = "grpo", **changes):
        with Workspace(tmp_path) as ws:
            return prepare(open_inputs(ws, asked(base, rows, kind, **changes)))

    return make


def gradients(made, numbers, size: int) -> tuple[float, list[torch.Tensor]]:
    (passes, *_) = updates(made.examples, numbers, 0, size)
    loss, _ = accumulate(passes, made.loss)
    found = [parameter.grad.clone() for parameter in made.model.parameters()]
    made.model.zero_grad()
    return loss, found


@pytest.mark.parametrize("kind", ["grpo", "ppo"])
@pytest.mark.parametrize("share", ["sequence", "token", "constant"])
def test_a_step_is_the_same_however_it_is_divided(prepared, kind, share):
    made = prepared(kind, rl=RLSettings(group=4, answer_tokens=5, share=share, kl=0.1))
    numbers = [(0, number) for number in range(8)]
    whole, together = gradients(made, numbers, 8)
    parts, each = gradients(made, numbers, 1)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert max(float(one.abs().max()) for one in together) > 1e-3
    for one, other in zip(together, each, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_answers_in_one_row_do_not_see_each_other(prepared):
    """Packed, each answer has the log-probabilities that it has alone."""
    made = prepared()
    decoder = made.model
    prompts = list(made.examples.prompts[:6])
    lengths = [9, 1, 2, 3, 1, 2]
    rollouts = [
        Rollout([(n + t) % 10 for t in range(length)], [0.0] * length, True) for n, length in enumerate(lengths)
    ]
    laid = lay_out(prompts, rollouts, 12)
    assert max(map(len, laid.rows)) >= 2
    together, _ = made.examples.score(laid.batch)
    found = laid.found(together, lengths)
    for number, (prompt, rollout) in enumerate(zip(prompts, rollouts, strict=True)):
        tokens = torch.tensor([*prompt.tokens, *rollout.tokens])
        x_TC = decoder.hidden(tokens[None, :-1])[0, len(prompt.tokens) - 1 :]
        alone = logprobs(decoder, x_TC, tokens[len(prompt.tokens) :], 1.0)
        torch.testing.assert_close(found[number], alone, rtol=1e-4, atol=1e-5)


def test_a_sampler_with_other_probabilities_is_measured_and_corrected(prepared):
    """Drawn at another temperature than it says: the difference is seen, and the truncated weights are those of the
    ratio."""
    made = prepared()
    practice = made.examples
    first = practice.write()

    class Lying:
        def sample(self, prompts, seeds):
            found = first.sample(prompts, seeds)
            return [one._replace(logprobs=[logprob - 0.5 for logprob in one.logprobs]) for one in found]

    practice.write = Lying
    ((batch,),) = updates(practice, [(0, number) for number in range(8)], 0, 8)
    made.loss(batch)
    noted = made.noted()
    assert noted["mismatch"] == pytest.approx(0.5, abs=1e-4)
    assert noted["mismatch_largest"] == pytest.approx(0.5, abs=1e-4)
    assert noted["importance"] == pytest.approx(math.exp(0.5), abs=1e-3)
    assert noted["mismatch_kl"] == pytest.approx(math.exp(0.5) - 1.5, abs=1e-3)
    assert noted["importance_capped"] == 0

    def with_cap(cap: float) -> float:
        return float(_loss(practice.score, replace(practice.asked, importance_cap=cap), Tally(), batch).sum.detach())

    assert with_cap(2.0) / with_cap(0.0) == pytest.approx(math.exp(0.5), rel=1e-3)
    assert with_cap(1.25) / with_cap(0.0) == pytest.approx(1.25, rel=1e-3)


def test_a_twin_follows_its_model_and_a_reference_stays(base):
    model = load_decoder(base).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    follows, stays = twin(model), twin(model, before)
    tokens = torch.arange(5)[None]
    first = model(tokens).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    assert torch.equal(follows(tokens), model(tokens)) and not torch.equal(model(tokens), first)
    assert torch.equal(stays(tokens), first)
    assert not any(p.requires_grad for p in follows.parameters()) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_plain_rollouts_draw_from_the_models_distribution(base, temperature):
    model = load_decoder(base)
    wanted = (model(torch.tensor([[3, 10]]))[0, -1].detach().double() / temperature).softmax(-1)
    rollouts = PlainRollouts(model, Writing(1, frozenset({END}), temperature))
    found = rollouts.sample([(3, 10)] * 4000, range(4000))
    counts = torch.bincount(torch.tensor([one.tokens[0] for one in found]), minlength=13) / 4000
    assert (counts - wanted).abs().max() < 0.03
    for one in found[:20]:
        assert one.logprobs[0] == pytest.approx(math.log(wanted[one.tokens[0]]), abs=1e-5)
        assert one.ended == (one.tokens[0] == END)
    assert rollouts.sample([(3, 10)], [7])[0].tokens == found[7].tokens  # nothing but prompt and seed


def test_rewards_that_never_differ_are_refused(base, rows, tmp_path):
    same = {"same": Reward(lambda answers: [1.0] * len(answers))}
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match="In the first 10 steps no two answers"):
        settings = asked(base, rows, rl=RLSettings(rewards=("same",), group=2, answer_tokens=1))
        tune(ws, replace(settings, schedule=TuneScheduleSettings(steps=30)), rewards=same, say=quiet)


def test_a_reward_that_is_no_number_is_refused(base, rows, tmp_path):
    bad = {"bad": Reward(lambda answers: [float("nan")] * len(answers))}
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match=r"'bad' gave nan for an answer to .*rows\.jsonl"):
        tune(ws, asked(base, rows, rl=RLSettings(rewards=("bad",), answer_tokens=3)), rewards=bad, say=quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rl": RLSettings(rewards=("numbers",))}, "names 'numbers', which is no reward"),
        ({"rl": RLSettings(group=1)}, "rl.group is 1, but GRPO compares"),
        (
            {"rl": RLSettings(answer_tokens=14)},
            "row 1: the prompt has 3 tokens, which with 14 of an answer are more than",
        ),
        ({"rl": RLSettings(rewards=("cases",), answer_tokens=3)}, "row 1: there are no cases"),
        ({"adapter": AdapterSettings(dropout=0.1)}, "adapter.dropout is 0.1, but answers are written without it"),
        ({"adapter": AdapterSettings("prefix")}, "adapter.kind is 'prefix'"),
    ],
)
def test_what_cannot_work_is_refused_before_training(base, rows, tmp_path, changes, message):
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match=message):
        tune(ws, asked(base, rows, **changes), say=quiet)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "", "answer": "1"}, "row 1: it asks nothing"),
        (
            {"messages": [{"role": "system", "content": "1"}, {"role": "user", "content": "2"}], "answer": 1},
            "no chat template",
        ),
        ({"text": "1 2 >"}, "no known format"),
        ({"prompt": "1 2 >", "answer": "none"}, "row 1: answer is 'none'"),
    ],
)
def test_rows_that_ask_nothing_are_named(base, tmp_path, row, message):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match=message):
        tune(ws, asked(base, rows), say=quiet)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rl.rewards": []}, "rl.rewards is empty"),
        ({"rl.weights": [1.0, 2.0]}, "rl.weights has 2 numbers, but rl.rewards 1"),
        ({"rl.temperature": 0.0}, "rl.temperature is 0, but must be more than 0"),
        ({"rl.updates": 0}, "rl.updates is 0"),
        ({"rl.trace": 1.5}, "rl.trace is 1.5"),
        ({"rl.kl": -1.0}, "rl.kl is -1"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(InputError, match=message):
        TUNING.read("grpo", values)


def test_a_chat_template_says_where_an_answer_ends(base, tmp_path):
    """The special token behind a turn, beside the end of the text."""
    folder = tmp_path / "chat"
    shutil.copytree(base, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}[pad]{% endif %} {% endfor %}"
        "{% if add_generation_prompt %}> {% endif %}",
        encoding="utf-8",
    )
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        json.dumps(
            {"messages": [{"role": "user", "content": "1 2"}, {"role": "assistant", "content": "2"}], "answer": 2}
        ),
        encoding="utf-8",
    )
    with Workspace(tmp_path) as ws:
        opened = open_inputs(ws, asked(folder, rows))
        assert ends_of(opened) == {11, 12}
        (prompt,), _ = prompts_of(opened, 3)
    assert prompt.tokens == (1, 2, 10)  # without what was answered
