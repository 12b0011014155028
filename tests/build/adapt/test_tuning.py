"""Tuning from end to end on a tiny decoder: it learns, goes on where it was stopped, and says what it cannot do."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from windlass.build.adapt.peft.attaching import attach_adapter
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.sections import (
    AdapterSettings,
    BaseSettings,
    TuneDataSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import tune
from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.build.tokenizer.chat import CHATML
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.guard import Diverged
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.build.transformer.adapters.base import BASE, base_of
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS
from windlass.build.transformer.hf import load_links, load_model, tied_head, weights_digest
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.lineup import load_lineup

WORDS = ("red", "blue", "green", "black", "white", "brown")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A workspace with a tiny pre-trained decoder that knows a chat format."""
    home = tmp_path_factory.mktemp("home")
    texts = home / "texts"
    texts.mkdir()
    generator = random.Random(0)
    for i in range(20):
        (texts / f"{i}.txt").write_text(" ".join(generator.choices(WORDS, k=200)), encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        tokenizer = train_tokenizer(ws, corpus, 330, allow_smaller=True, chat_template=CHATML)
        settings = read_recipe(
            None,
            {
                "model.depth": 1, "model.context": 64, "schedule.steps": 5, "run.compile": "no", "data.batch": 4,
                "run.name": "base",
            },
        )  # fmt: skip
        pretrain(ws, corpus, tokenizer, settings, say=lambda line: None)
    return home


def echo(path: Path, count: int) -> Path:
    """Conversations in which the assistant repeats the colour."""
    generator = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            word = generator.choice(WORDS) + " " + generator.choice(WORDS)
            turns = [{"role": "user", "content": word}, {"role": "assistant", "content": word}]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path


def asked(rows: Path, **changes) -> TuneSettings:
    values = {
        "model": BaseSettings("base"),
        "adapter": AdapterSettings(rank=4),
        "data": TuneDataSettings(str(rows), batch=4),
        "optimizer": TuneOptimizerSettings(matrix_rate=5e-3),
        "schedule": TuneScheduleSettings(steps=30),
        "run": TuneRunSettings(name="echo", compile="no", precision="fp32", checkpoint_steps=10),
    }
    return TuneSettings(**(values | changes))


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_decoder_learns_from_conversations(home, tmp_path, kind):
    said: list[str] = []
    rows = echo(tmp_path / "rows.jsonl", 200)
    with Workspace(home) as ws:
        model = tune(ws, asked(rows, adapter=AdapterSettings(kind, rank=4, merge=True)), say=said.append)
        record = ws.store.run(model.record.run)
        losses = [p.value for p in ws.store.metrics(record.id, "heldout_loss")]
        loaded = load_model(model.path)
    assert len(losses) == 2 and losses[1] < 0.7 * losses[0]
    assert model.card["heldout_loss"] == losses[1]
    assert {parent for parent, _ in model.record.parents} >= {"base"}
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert any("are learned" in line for line in said)


@pytest.mark.parametrize("packing", [True, False])
def test_a_step_is_the_same_however_it_is_divided(home, tmp_path, packing):
    """Answers of very unequal lengths: passes that were averaged by themselves would weigh short ones too much."""
    generator = random.Random(3)
    rows = tmp_path / "rows.jsonl"
    said = [" ".join(generator.choices(("red", "blue", "green"), k=generator.choice((1, 9)))) for _ in range(40)]
    pairs = [[{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": one}] for n, one in enumerate(said)]
    rows.write_text("".join(json.dumps({"messages": pair}) + "\n" for pair in pairs), encoding="utf-8")
    stored = []
    with Workspace(home) as ws:
        for micro in (8, 1):
            made = asked(
                rows,
                data=TuneDataSettings(str(rows), batch=8, micro_batch=micro, packing=packing),
                schedule=TuneScheduleSettings(steps=4),
                run=TuneRunSettings(name=f"by-{micro}-{packing}", compile="no", precision="fp32"),
            )
            stored.append(load_file(tune(ws, made, say=lambda line: None).path / WEIGHTS))
    whole, divided = stored
    assert max(float(whole[name].abs().max()) for name in whole if "lora_B" in name) > 1e-3, "something was learned"
    for name, weight in whole.items():
        assert torch.allclose(weight, divided[name], rtol=1e-4, atol=2e-6), name


def test_what_one_absurd_step_made_is_not_stored(home, tmp_path):
    """No step comes after the last one, so no training loss tells of it."""
    rows, once = echo(tmp_path / "rows.jsonl", 40), TuneScheduleSettings(steps=1, warmup_steps=0)
    run = TuneRunSettings(name="wild", compile="no", precision="fp32")
    with Workspace(home) as ws:
        away = TuneOptimizerSettings(matrix_rate=10.0, weight_decay=1e37)
        with pytest.raises(Diverged, match=r"ended after 1 step with .*; nothing was stored"):
            tune(ws, asked(rows, optimizer=away, schedule=once, run=run), say=lambda line: None)
        assert ws.artifacts.find("wild") is None
        said: list[str] = []
        far = TuneOptimizerSettings(matrix_rate=10.0)
        stored = tune(ws, asked(rows, optimizer=far, schedule=once, run=run), say=said.append)
        losses = [p.value for p in ws.store.metrics(stored.record.run, "heldout_loss")]
    assert losses[1] > losses[0] + 1
    assert any(f"warning: the held-out loss rose from {losses[0]:.4g} to {losses[1]:.4g}" in line for line in said)


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_positions_before_every_text_learn(home, tmp_path, kind):
    """Little, of a base that knows next to nothing."""
    rows = echo(tmp_path / "rows.jsonl", 60)
    with Workspace(home) as ws:
        fast = TuneOptimizerSettings(matrix_rate=0.3)
        adapter = AdapterSettings(kind, virtual_tokens=4)
        stored = tune(ws, asked(rows, adapter=adapter, optimizer=fast), say=lambda line: None)
        losses = [p.value for p in ws.store.metrics(stored.record.run, "heldout_loss")]
    assert stored.kind == "adapter" and losses[1] < losses[0] - 0.1


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_an_adapter_is_stored_alone_and_trained_further(home, tmp_path, kind):
    """Beside its base, which it names, it is the model that was trained; merged, it is the same model in one."""
    rows = echo(tmp_path / "rows.jsonl", 60)
    adapter = AdapterSettings(kind, rank=4, targets=() if kind == "ia3" else ("query", "value", "down"))
    with Workspace(home) as ws:
        base = ws.artifacts.get("base")
        stored = tune(ws, asked(rows, adapter=adapter), say=lambda line: None)
        assert stored.kind == "adapter" and sorted(stored.record.files) == ["README.md", CONFIG, WEIGHTS, BASE]
        assert stored.parent("base") == base.digest and base_of(stored.path) == weights_digest(base.path)
        assert json.loads((stored.path / CONFIG).read_text())["base_model_name_or_path"] == base.ref
        merged = load_model(tune(ws, asked(rows, adapter=replace(adapter, merge=True)), say=lambda line: None).path)
        beside = load_model(base.path)
        attach_adapter(beside, read_for(beside, stored.path, load_links(base.path)))
        tokens = torch.arange(5, 45)[None]
        with torch.inference_mode():
            assert torch.allclose(beside(tokens), merged(tokens), atol=1e-4)
            assert (merged(tokens) - load_model(base.path)(tokens)).abs().max() > 0.01
        on = BaseSettings("base", adapter_from=stored.ref)
        said: list[str] = []
        further = tune(ws, asked(rows, adapter=replace(adapter, targets=()), model=on), say=said.append)
        assert any("in its own shape" in line for line in said) and any("beside" in line for line in said)
        assert (
            further.parent("adapter") == stored.digest and further.record.files[CONFIG] == stored.record.files[CONFIG]
        )
        first = ws.store.metrics(further.record.run, "heldout_loss")[0].value
        assert abs(first - stored.card["heldout_loss"]) < 1e-4  # begins where the other ended


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_what_was_tuned_is_served_as_it_lies(home, tmp_path, kind):
    """The adapter by name beside its base, which says what the merged model says; on other weights it is refused."""
    pytest.importorskip("starlette")
    rows = echo(tmp_path / "rows.jsonl", 60)
    adapter = AdapterSettings(kind, rank=4)
    request = ChatRequest([Message("user", "red blue")], temperature=0, max_tokens=8)
    with Workspace(home) as ws:
        alone = TuneRunSettings(name=f"alone-{kind}", compile="no", precision="fp32")
        stored = tune(ws, asked(rows, adapter=adapter, run=alone), say=lambda line: None)
        whole = replace(alone, name=f"whole-{kind}")
        merged = tune(ws, asked(rows, adapter=replace(adapter, merge=True), run=whole), say=lambda line: None)
        lineup = load_lineup(ws, ["base"], adapters=[("echo", stored.ref)], policy="fp32")
        (base,) = lineup.models.values()
        (other,) = load_lineup(ws, [merged.ref], policy="fp32").models.values()
        try:
            said = base.adapters["echo"].complete(request).message.text
            assert said == other.complete(request).message.text != base.complete(request).message.text
            with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
                other.load_adapter("echo", stored.path)
        finally:
            base.close()
            other.close()


def test_an_adapter_of_another_base_is_refused(home, tmp_path):
    rows = echo(tmp_path / "rows.jsonl", 20)
    with Workspace(home) as ws:
        short = TuneScheduleSettings(steps=1)
        stored = tune(ws, asked(rows, schedule=short), say=lambda line: None)
        whole = tune(ws, asked(rows, schedule=short, adapter=AdapterSettings("none")), say=lambda line: None)
        with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
            tune(ws, asked(rows, model=BaseSettings(whole.ref, adapter_from=stored.ref)), say=lambda line: None)
        with pytest.raises(InputError, match="of kind 'model', not an adapter"):
            tune(ws, asked(rows, model=BaseSettings("base", adapter_from="base")), say=lambda line: None)
        with pytest.raises(InputError, match=r"adapter\.kind is 'none', which trains the base itself"):
            on = BaseSettings("base", adapter_from=stored.ref)
            tune(ws, asked(rows, model=on, adapter=AdapterSettings("none")), say=lambda line: None)
        with pytest.raises(InputError, match=r"says itself what is trained, but adapter\.layers does too"):
            tune(ws, asked(rows, model=on, adapter=AdapterSettings(layers="last 1")), say=lambda line: None)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(home, tmp_path):
    """Only what is trained stands in a checkpoint; the base is read again."""
    rows = echo(tmp_path / "rows.jsonl", 60)
    plain = TuneRunSettings(name="straight", compile="no", precision="fp32", checkpoint_steps=10)
    with Workspace(home) as ws:
        straight = tune(ws, asked(rows, run=plain), say=lambda line: None)
        stopping = replace(plain, name="stopped")

        def stop(line: str) -> None:
            if line.startswith("held-out"):  # behind the last step, before anything is stored
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(ws, asked(rows, run=stopping), say=stop)
        (run,) = (r for r in ws.runs.list("tune") if r.name == "stopped")
        folder = home / ".windlass/runs" / run.id
        last = checkpoint.steps(folder)[-1]
        shutil.rmtree(folder / checkpoint.FOLDER / f"step-{last:08d}")  # goes back ten steps
        assert not any(name.endswith("weight") for name in checkpoint.load(folder).tensors if name.startswith("model/"))
        said: list[str] = []
        again = tune(ws, asked(rows, run=stopping), say=said.append)
        assert any("going on from step 20" in line for line in said)
        assert again.record.files[WEIGHTS] == straight.record.files[WEIGHTS]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no rows"),
        ([{"messages": [{"role": "user", "content": "red"}]}], "row 1: nothing in it is said by an assistant"),
        ([{"messages": [{"role": "assistant", "content": " "}]}], "row 1: nothing in it is said by an assistant"),
        ([{"text": "red"}], "row 1: the columns are text, which is no known format"),
        ([{"instruction": "say", "output": 3}], "row 1: output is 3, but must be text"),
        ([{"prompt": "red", "completion": "red"}] * 3, "There are 1 different examples, too few"),
        ([{"prompt": "red " * n, "completion": "red"} for n in (5, 90)], "longer than a row of 64 tokens"),
    ],
)
def test_what_cannot_be_learned_from_is_named(home, tmp_path, lines, message):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with Workspace(home) as ws, pytest.raises(InputError, match=message):
        tune(ws, asked(rows), say=lambda line: None)


def test_a_broken_row_is_an_error_and_not_left_out(home, tmp_path):
    rows = echo(tmp_path / "rows.jsonl", 5)
    rows.write_text(rows.read_text(encoding="utf-8") + '{"messages": [\n', encoding="utf-8")
    with Workspace(home) as ws, pytest.raises(InputError, match=r"rows\.jsonl:6: row not JSON"):
        tune(ws, asked(rows), say=lambda line: None)


def test_a_map_that_no_block_has_is_refused(home, tmp_path):
    rows = echo(tmp_path / "rows.jsonl", 20)
    with Workspace(home) as ws, pytest.raises(InputError, match="names 'q_proj', which no block"):
        tune(ws, asked(rows, adapter=AdapterSettings(targets=("q_proj",))), say=lambda line: None)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt", "prefix", "none"])
def test_any_kind_goes_on_to_the_same_weights_with_dropout(home, tmp_path, kind):
    """What dropout leaves out is drawn anew in each step, from a seed of that step: a run taken up draws the same."""
    rows = echo(tmp_path / "rows.jsonl", 30)
    adapter = AdapterSettings(kind, rank=2, dropout=0.3 if kind in ("lora", "dora") else 0.0)
    if kind == "none":
        adapter = replace(adapter, layers="last 1")
    plain = TuneRunSettings(name=f"whole-{kind}", compile="no", precision="fp32", checkpoint_steps=4)
    with Workspace(home) as ws:
        short = TuneScheduleSettings(steps=8)
        straight = tune(ws, asked(rows, adapter=adapter, schedule=short, run=plain), say=lambda line: None)
        cut = asked(rows, adapter=adapter, schedule=short, run=replace(plain, name=f"cut-{kind}"))

        def stop(line: str) -> None:
            if line.startswith("held-out"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tune(ws, cut, say=stop)
        (run,) = (r for r in ws.runs.list("tune") if r.name == f"cut-{kind}")
        shutil.rmtree(home / ".windlass/runs" / run.id / checkpoint.FOLDER / "step-00000008")
        torch.rand(7)  # elsewhere in the process somebody draws
        again = tune(ws, cut, say=lambda line: None)
    weights = WEIGHTS if straight.kind == "adapter" else "model.safetensors"
    assert again.record.files[weights] == straight.record.files[weights]


def test_a_table_is_trained_beside_an_adapter(home, tmp_path):
    rows = echo(tmp_path / "rows.jsonl", 30)
    with Workspace(home) as ws:
        adapter = AdapterSettings(rank=2, also=("embedding", "norm"))
        three = TuneScheduleSettings(steps=3)
        stored = tune(ws, asked(rows, adapter=adapter, schedule=three), say=lambda line: None)
        merged = tune(ws, asked(rows, adapter=replace(adapter, merge=True), schedule=three), say=lambda line: None)
        base = ws.artifacts.get("base").path
        beside, before = load_model(base), load_model(base)
        attach_adapter(beside, read_for(beside, stored.path, load_links(base), tied_head(base)))
        after, tokens = load_model(merged.path), torch.arange(5, 45)[None]
    assert not torch.equal(after.embedding, before.embedding) and not torch.equal(after.norm.weight, before.norm.weight)
    with torch.inference_mode():
        assert torch.allclose(beside(tokens), after(tokens), atol=1e-4)


def test_an_average_is_kept_of_what_is_trained_alone(home, tmp_path):
    """And it is what is stored."""
    rows = echo(tmp_path / "rows.jsonl", 30)
    optimizer = TuneOptimizerSettings(matrix_rate=5e-3, ema=0.5)
    run = TuneRunSettings(name="averaged", compile="no", precision="fp32", checkpoint_steps=4)
    with Workspace(home) as ws:

        def stop(line: str) -> None:
            if line.startswith("held-out"):
                raise KeyboardInterrupt

        settings = asked(rows, run=run, schedule=TuneScheduleSettings(steps=8), optimizer=optimizer)
        with pytest.raises(KeyboardInterrupt):
            tune(ws, settings, say=stop)
        (started,) = (r for r in ws.runs.list("tune") if r.name == "averaged")
        tensors = checkpoint.load(home / ".windlass/runs" / started.id).tensors
        weights, kept = (
            {n.partition("/")[2] for n in tensors if n.startswith(part)} for part in ("model/", "average/")
        )
        assert weights == kept and all(name.endswith((".up", ".down")) for name in kept)
        averaged = tune(ws, settings, say=lambda line: None)
        plain = tune(ws, replace(settings, optimizer=TuneOptimizerSettings(matrix_rate=5e-3)), say=lambda line: None)
        ours, last = load_file(averaged.path / WEIGHTS), load_file(plain.path / WEIGHTS)
    assert all(not torch.equal(ours[name], last[name]) for name in ours)


def test_measuring_leaves_nothing_out(home, tmp_path):
    """With dropout of nearly everything, the held-out loss of the untrained adapter is still the base's."""
    rows = echo(tmp_path / "rows.jsonl", 30)
    with Workspace(home) as ws:
        losses = []
        for dropout in (0.0, 0.95):
            adapter = AdapterSettings(rank=4, dropout=dropout)
            stored = tune(
                ws, asked(rows, adapter=adapter, schedule=TuneScheduleSettings(steps=6)), say=lambda line: None
            )
            on = BaseSettings("base", adapter_from=stored.ref)
            further = asked(rows, adapter=adapter, model=on, schedule=TuneScheduleSettings(steps=1))
            again = tune(ws, further, say=lambda line: None)
            losses.append((stored.card["heldout_loss"], ws.store.metrics(again.record.run, "heldout_loss")[0].value))
    assert all(abs(ended - begins) < 1e-5 for ended, begins in losses) and losses[0] != losses[1]


@pytest.mark.parametrize(
    ("layers", "targets", "trained"),
    [
        ("last 1", (), "blocks.0."),
        ("", ("*.query.weight", "norm.*"), ("blocks.0.attention.query.weight", "norm.weight")),
        ("", ("down",), "blocks.0.mlp.down.weight"),
    ],
)
def test_only_a_part_of_the_base_is_trained(home, tmp_path, layers, targets, trained):
    rows = echo(tmp_path / "rows.jsonl", 30)
    with Workspace(home) as ws:
        adapter = AdapterSettings("none", layers=layers, targets=targets)
        model = tune(ws, asked(rows, adapter=adapter, schedule=TuneScheduleSettings(steps=3)), say=lambda line: None)
        before, after = load_model(ws.artifacts.get("base").path), load_model(model.path)
    for (name, was), now in zip(before.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(was, now) != name.startswith(trained), name


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (AdapterSettings(layers="last two"), r"adapter\.layers is 'last two'"),
        (AdapterSettings(layers="3"), r"adapter\.layers is '3', but the layers are 0 to 0"),
        (AdapterSettings("none", layers="last 1", targets=("norm.weight",)), "have nothing in common"),
        (AdapterSettings("none", targets=("nowhere",)), "names 'nowhere'"),
    ],
)
def test_a_choice_of_nothing_is_refused(home, tmp_path, adapter, message):
    with Workspace(home) as ws, pytest.raises(InputError, match=message):
        tune(ws, asked(echo(tmp_path / "rows.jsonl", 20), adapter=adapter), say=lambda line: None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "ia3", "dropout": 0.1}, r"adapter\.dropout is 0\.1, which adapter\.kind 'ia3' does not heed"),
        ({"kind": "prompt", "targets": ("query",)}, "adapter.kind 'prompt' does not heed"),
        ({"kind": "none", "also": ("embedding",)}, "adapter.kind 'none' does not heed"),
        ({"rank": 0}, r"adapter\.rank is 0"),
    ],
)
def test_a_setting_that_would_mean_nothing_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TuneSettings(adapter=AdapterSettings(**settings))


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "kind", "precision"), [("fsdp", "lora", "bf16"), ("ddp", "dora", "fp32")])
def test_two_workers_store_what_one_would(home, tmp_path, parallel, kind, precision):
    rows = echo(tmp_path / "rows.jsonl", 40)
    merge = kind == "dora"
    with Workspace(home) as ws:
        alone = asked(
            rows,
            adapter=AdapterSettings(kind, rank=2, merge=merge),
            schedule=TuneScheduleSettings(steps=6),
            run=TuneRunSettings(name="one", compile="no", precision=precision),
        )
        one = tune(ws, alone, say=lambda line: None)
        chosen = {
            "adapter.kind": kind, "adapter.rank": 2, "adapter.merge": str(merge).lower(), "data.batch": 4,
            "optimizer.matrix_rate": 5e-3, "run.compile": "no", "run.precision": precision,
        }  # fmt: skip
        command = [sys.executable, "-m", "windlass", "tune", "--base", "base", "--data", str(rows), "--steps", "6"]
        command += ["--name", f"two-{parallel}-{kind}", "--workers", "2", "--parallel", parallel, "--device", "cpu"]
        for name, value in chosen.items():
            command += ["--set", f"{name}={value}"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-2000:]
        two = ws.artifacts.get(f"two-{parallel}-{kind}")
        weights = WEIGHTS if one.kind == "adapter" else "model.safetensors"
        ours, theirs = (load_file(artifact.path / weights) for artifact in (one, two))
        assert two.kind == one.kind and ours.keys() == theirs.keys()
        worst = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
        assert worst < (2e-2 if precision == "bf16" else 2e-4)
