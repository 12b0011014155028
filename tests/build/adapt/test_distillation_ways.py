"""What a student may learn beside its teacher's next token: its layers, its view of the student's own answers, what it
says itself, and what it thinks although it reads other tokens."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tuned_world import WORDS, asked, echoes, make_home, write_rows

from windlass.build.adapt.checking import check_tuning
from windlass.build.adapt.data.aligning import APART, aligned, pairs_of
from windlass.build.adapt.data.conversations import turned
from windlass.build.adapt.objectives import distillation
from windlass.build.adapt.objectives.distillation_losses import between_layers, between_sorted, divergence
from windlass.build.adapt.objectives.hidden import Pupil, paired
from windlass.build.adapt.objectives.own_answers import OwnAnswers
from windlass.build.adapt.opening import open_inputs, taught_by
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.build.tokenizer import train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.training.data.batches import IGNORE
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


def quietly(line: str) -> None:
    """What is said is of no interest."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`; `teacher`, of two layers and wider, which repeats colours; and `stranger`, which does so too, but has
    other tokens."""
    home = make_home(tmp_path_factory.mktemp("home"))
    rows = write_rows(home / "rows.jsonl", echoes(40))
    quick = {"model.context": 128, "schedule.steps": 3, "run.compile": "no", "data.batch": 4}
    with Workspace(home) as ws:
        corpus, tokenizer = ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer")
        other = train_tokenizer(ws, corpus, 340, kind="unigram", allow_smaller=True, chat_template=CHATML, name="other")
        for name, tokens, depth in (("teacher", tokenizer, 2), ("stranger", other, 1)):
            recipe = read_recipe(None, quick | {"model.depth": depth, "run.name": f"raw-{name}"})
            pretrain(ws, corpus, tokens, recipe, say=quietly)
            settings = asked(rows, model__base=f"raw-{name}", adapter__kind="none", run__name=name, schedule__steps=60)
            tune(ws, settings, say=quietly)
    return home


def lessons(home: Path, **changes):
    values = {"objective__kind": "distil", "objective__teacher": "teacher", "run__name": "student"}
    return asked(home / "rows.jsonl", **values | changes)


def figures(ws: Workspace, stored, name: str) -> list[float]:
    return [point.value for point in ws.store.metrics(stored.record.run, f"heldout_{name}")]


def test_layers_are_compared_as_torch_does():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(5, 8, generator=generator) for _ in range(2))
    torch.testing.assert_close(between_layers(ours, theirs, "mse").mean(), F.mse_loss(ours, theirs))
    wanted = F.cosine_embedding_loss(ours, theirs, torch.ones(5), reduction="none")
    torch.testing.assert_close(between_layers(ours, theirs, "cosine"), wanted)
    assert paired((), 2, 6) == [(0, 2), (1, 5)] and paired((), 3, 2) == [(0, 0), (1, 1), (2, 1)]
    assert paired(("2:1", "1:6"), 2, 6) == [(0, 5), (1, 0)]


def test_sorted_probabilities_are_compared_as_equation_5_has_it():
    """Against the paper's own terms: both vectors filled up with zeros, sorted, and their differences added up."""
    generator = random.Random(0)
    for size, other in ((4, 7), (7, 4), (5, 5)):
        p, q = ([generator.random() for _ in range(n)] for n in (size, other))
        p, q = [one / sum(p) for one in p], [one / sum(q) for one in q]
        longest = max(size, other)
        first, second = (sorted(one + [0.0] * (longest - len(one)), reverse=True) for one in (p, q))
        wanted = sum(abs(a - b) for a, b in zip(first, second, strict=True))
        assert between_sorted(torch.tensor([p]), torch.tensor([q])).item() == pytest.approx(wanted, rel=1e-5)
    logits = torch.randn(3, 9)
    mixed = logits[:, torch.randperm(9)]  # other numbers for the same tokens
    assert divergence(logits, mixed, "sorted", 0.5, 2.0).abs().max() < 1e-6


@pytest.mark.parametrize(("kind", "distance"), [("none", "mse"), ("lora", "cosine")])
def test_layers_learn_from_layers(home, kind, distance):
    """The maps to the teacher's width are trained, taken up again, and left behind."""
    said: list[str] = []
    with Workspace(home) as ws:
        settings = lessons(
            home, adapter__kind=kind, objective__hidden_weight=1.0, objective__hidden_distance=distance,
            schedule__steps=40,
        )  # fmt: skip
        stored = tune(ws, settings, say=said.append)
        hidden = figures(ws, stored, "hidden")
        assert hidden[-1] < 0.7 * hidden[0]
        assert stored.card["heldout_hidden"] == hidden[-1]
        assert any(f"({distance}; layer 1 from 2)" in line for line in said)
        if kind == "none":
            assert isinstance(load_model(stored.path), Decoder)
        assert check_tuning(ws, open_inputs(ws, settings), say=quietly).fits


def test_a_pass_with_layers_is_what_the_formula_says(home):
    with Workspace(home) as ws:
        settings = lessons(home, adapter__kind="none", objective__hidden_weight=0.7, objective__label_weight=0.2)
        opened = open_inputs(ws, settings)
        prepared = distillation.prepare(opened)
    batch, pupil = prepared.examples.batch([(0, 0), (0, 1)]), prepared.model
    assert isinstance(pupil, Pupil) and len(pupil.maps) == 1
    model, teacher = pupil.decoder, load_model(opened.teacher).eval().requires_grad_(False)
    read, counts = {"documents_BT": batch.documents_BT}, batch.targets_BT != IGNORE
    logits, taught = (one(batch.inputs_BT, **read)[counts] for one in (model, teacher))
    nats = F.cross_entropy(logits, batch.targets_BT[counts], reduction="sum")
    soft = divergence(logits, taught, "forward", 0.5, 1.0).sum()

    def last_block(one):  # what comes before the last norm, by hand
        x, sights = one.start(batch.inputs_BT, **read)
        for block, sight in zip(one.blocks, sights, strict=True):
            x = block(x, sight, None, None, None)
        return x[counts]

    apart = (last_block(model) @ pupil.maps[0].T - last_block(teacher)).square().mean(-1).sum()
    expected = 0.2 * nats + 0.8 * soft + 0.7 * apart
    loss = prepared.loss(batch)
    torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-3)
    trained = list(pupil.parameters())
    for one, other in zip(torch.autograd.grad(loss.sum, trained), torch.autograd.grad(expected, trained), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_student_hears_what_the_teacher_makes_of_its_own_answers(home):
    with Workspace(home) as ws:
        settings = lessons(
            home, adapter__kind="none", objective__own_share=0.5, objective__divergence="jsd", objective__beta=0.5,
            rl__answer_tokens=8, schedule__steps=40, run__name="own",
        )  # fmt: skip
        said: list[str] = []
        stored = tune(ws, settings, say=said.append)
        apart = figures(ws, stored, "divergence")
        cut = [point.value for point in ws.store.metrics(stored.record.run, "own_cut")]
        opened = open_inputs(ws, settings)
        prepared = distillation.prepare(opened)
    assert apart[-1] < 0.8 * apart[0] and len(cut) >= 20
    assert any("answers 50% of 36 rows itself, in at most 8" in line for line in said)
    own = prepared.examples
    assert isinstance(own, OwnAnswers)
    numbers = [(0, number) for number in range(len(own))]
    ((first, *rest),) = own.updates(numbers, 3, 6)
    ((again, *_),) = own.updates(numbers, 3, 6)
    ((other, *_),) = own.updates(numbers, 4, 6)
    assert torch.equal(first.inputs_BT, again.inputs_BT) and len(rest) == 5
    assert first.inputs_BT.shape != other.inputs_BT.shape or not torch.equal(first.inputs_BT, other.inputs_BT)
    # Only what was written is learned, and by nothing but the divergence.
    model, teacher = prepared.model, load_model(opened.teacher).eval().requires_grad_(False)
    counts = first.targets_BT != IGNORE
    logits, taught = (one(first.inputs_BT, documents_BT=first.documents_BT)[counts] for one in (model, teacher))
    loss = prepared.loss(first)
    torch.testing.assert_close(loss.sum, divergence(logits, taught, "jsd", 0.5, 1.0).sum(), rtol=1e-4, atol=1e-4)
    assert loss.counted == counts.sum()
    given = replace(own, share=0.0).updates(numbers[:4], 0, 4)[0][0]
    whole = [own.rows[number][1].learned.sum() for _, number in numbers[:4]]
    assert given.counted == sum(whole)


def test_the_teacher_answers_and_the_student_learns_it(home):
    """Also one with other tokens: what it says is text."""
    with Workspace(home) as ws:
        prompts = [{"messages": row["messages"][:1]} for row in echoes(24, seed=5)]
        rows = write_rows(home / "prompts.jsonl", prompts)
        settings = lessons(
            home, data__dataset=str(rows), objective__teacher="stranger", objective__answers="teacher",
            objective__label_weight=1.0, rl__answer_tokens=12, rl__temperature=0.1, schedule__steps=30,
        )  # fmt: skip
        said: list[str] = []
        stored = tune(ws, settings, say=said.append)
        answers = ws.artifacts.get("answers-of-teacher")
        items = [json.loads(line) for line in (answers.path / "items.jsonl").read_text().splitlines()]
        roles = dict(stored.record.parents)
        assert roles["dataset"] == answers.digest and roles["teacher"] == ws.artifacts.get("stranger").digest
        assert dict(answers.record.parents)["teacher"] == roles["teacher"]
        loss = figures(ws, stored, "loss")
        assert tune(ws, settings, say=quietly).digest == stored.digest
    assert loss[-1] < 0.7 * loss[0]
    assert items and len(items) == answers.card["items"] and answers.card["asked"] == 24
    about_colours = [item for item in items if set(item["messages"][1]["content"].split()) & set(WORDS)]
    assert len(about_colours) > len(items) / 2
    assert any("stranger@1 answered 24 rows" in line for line in said)


def test_tokens_are_aligned_by_the_text_before_them(home):
    """Wherever two tokenizers are said to have read the same, the text before is the same."""
    own = turned("ab cd<end>", [3, 4, 5, 6], [1, 4, 5, 10])  # a|b c|d|<end>
    theirs = turned(" ab cd</s>", [7, 8, 9], [3, 6, 10])  # ab| cd|</s>
    found = aligned([own], [theirs], 8)
    assert found.tolist() == [APART, APART, 6, APART, APART, 8, APART, APART]
    with Workspace(home) as ws:
        opened = open_inputs(ws, lessons(home, objective__teacher="stranger"))
    pairs = pairs_of(opened, taught_by(opened), opened.rows())
    other, seen = taught_by(opened).tokenizer, 0
    for pair in pairs:
        for place, known in enumerate(pair.places):
            if known != APART:
                texts = [
                    tokens.decode(list(encoded.tokens[: at + 1]), skip_special_tokens=False)
                    for tokens, encoded, at in ((opened.tokenizer, pair.own, place), (other, pair.theirs, known))
                ]
                assert texts[0] == texts[1] and pair.own.learned[place + 1] and pair.theirs.learned[known + 1]
                seen += 1
    assert seen > len(pairs)  # the beginning of each answer, and more


def test_a_teacher_with_other_tokens_is_learned_from(home):
    with Workspace(home) as ws:
        settings = lessons(home, adapter__kind="none", objective__teacher="stranger", objective__label_weight=0.1)
        said: list[str] = []
        stored = tune(ws, settings, say=said.append)
        apart, share = (figures(ws, stored, name) for name in ("divergence", "aligned"))
        opened = open_inputs(ws, settings)
        prepared = distillation.prepare(opened)
        assert check_tuning(ws, opened, say=quietly).fits
        with pytest.raises(InputError, match=r"other numbers, which objective\.own_share does not work with"):
            tune(ws, lessons(home, objective__teacher="stranger", objective__own_share=1.0), say=quietly)
    assert apart[-1] < 0.8 * apart[0] and 0 < share[0] <= 1
    assert any("has other tokens, has read the same" in line for line in said)
    # One pass, against the two models reading each example by itself.
    pairs, wanted, targets = prepared.examples._pairs, 0.0, 0
    model, teacher = prepared.model.requires_grad_(False), load_model(opened.teacher).eval().requires_grad_(False)
    for pair in pairs:
        logits, taught = (
            one(torch.from_numpy(read.tokens)[None])[0] for one, read in ((model, pair.own), (teacher, pair.theirs))
        )
        for place in range(len(pair.own) - 1):
            if pair.own.learned[place + 1]:
                targets += 1
                wanted += 0.1 * float(F.cross_entropy(logits[place], torch.tensor(pair.own.tokens[place + 1])))
                if (known := pair.places[place]) != APART:
                    p, q = (one.softmax(-1).sort(descending=True).values for one in (logits[place], taught[known]))
                    size = max(len(p), len(q))
                    wanted += 0.9 * float((F.pad(p, (0, size - len(p))) - F.pad(q, (0, size - len(q)))).abs().sum())
    losses = [prepared.loss(prepared.examples.batch([(0, row)])) for row in range(len(prepared.examples))]
    assert sum(loss.counted for loss in losses) == targets
    assert sum(float(loss.sum) for loss in losses) == pytest.approx(wanted, rel=1e-4)
    assert math.isfinite(wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of itself
def test_compiled_gradients_are_those_of_plain_passes(home):
    """Both models' blocks and the head of both, of all ways that are compiled."""
    for changes in ({}, {"objective__hidden_weight": 1.0}, {"objective__teacher": "stranger"}):
        gradients = []
        for compiled in ("no", "yes"):
            with Workspace(home) as ws:
                settings = lessons(home, adapter__kind="none", run__compile=compiled, **changes)
                prepared = distillation.prepare(open_inputs(ws, settings))
            for parameter in prepared.model.parameters():
                parameter.grad = None
            loss = prepared.loss(prepared.examples.batch([(0, 0), (0, 1)]))
            torch.autograd.backward(loss.sum / loss.counted)
            gradients.append({name: p.grad for name, p in prepared.model.named_parameters()})
        for name, plain in gradients[0].items():
            torch.testing.assert_close(
                gradients[1][name], plain, rtol=2e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.hidden_distance": "cosine"}, "hidden_weight is not"),
        ({"objective.own_share": 0.5, "objective.label_weight": 0.5}, "learns nothing"),
        ({"objective.own_share": 0.5, "adapter.bits": 4}, "adapter.bits is 4"),
        ({"objective.own_share": 1.5}, "less than"),
        ({"objective.label_weight": 1.0}, "nothing of the teacher is learned"),
        ({"objective.own_share": 0.5, "objective.answers": "teacher"}, "both say who answers"),
    ],
)
def test_lessons_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TUNING.read(None, {"objective.kind": "distil", "objective.teacher": "one"} | changes)


@pytest.mark.parametrize(
    ("layers", "message"), [(("3:1",), "student has 1 layers"), (("1",), "student:teacher"), (("1:1", "1:2"), "twice")]
)
def test_layers_that_are_not_there_are_refused(layers, message):
    with pytest.raises(InputError, match=message):
        paired(layers, 1, 2)
