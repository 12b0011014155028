"""What is found out before a run: memory as it will be, and each wrong input by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import train_tokenizer
from windlass.build.training import checking
from windlass.build.training.checking import check_run
from windlass.build.training.checks import footprint
from windlass.build.training.data.batches import CausalExamples
from windlass.build.training.data.shard import Shard
from windlass.build.training.recipe import read_recipe
from windlass.build.training.sizes import derive
from windlass.cli import main as cli
from windlass.core.errors import InputError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace

MEASURE = """
import json, re, sys
from functools import partial
import numpy as np, torch
torch.set_num_threads(1)
from windlass.build.training.data.batches import CausalExamples
from windlass.build.training.compiling import prepare
from windlass.build.training.loop import accumulate
from windlass.build.training.checks.footprint import estimate
from windlass.build.training.objectives import causal
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.recipe import read_recipe
from windlass.build.training.data.shard import Shard
from windlass.build.training.sizes import derive
from windlass.build.training.start import first_model
settings = read_recipe(None, json.loads(sys.argv[1]))
sizes, _ = derive(settings, 8000)
shard = Shard(np.random.default_rng(0).integers(1, 8000, 60_000).astype("<u2"), 1, 1, 0)
examples = CausalExamples(shard, sizes.context, isolate=settings.data.isolate, seed=0)
batch = examples.batch([(0, i) for i in range(sizes.micro_batch)])
said = estimate(settings, sizes, batch)
model = first_model(sizes.model, None, 0)
math, _ = prepare(model, settings)
optimizers = Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer)
for _ in range(2):
    accumulate([batch], partial(causal, model, math=math))
    optimizers.clip()
    optimizers.step(1.0)
# rusage would hold the parent's peak too
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps([said.total - said.process, peak * 1024 - said.process]))
"""

CASES = {
    "bf16": {},
    "fp32, isolated": {"run.precision": "fp32", "data.isolate": True},
    "recomputed": {"run.recompute": True, "model.context": 512},
    "adamw8": {"optimizer.kind": "adamw8", "model.depth": 6, "data.batch": 2},
}


@pytest.mark.parametrize(
    "case", [case if case in ("bf16", "recomputed") else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_the_estimate_of_memory_is_what_a_step_takes(case):
    """Of what the run itself adds to the process, not of the whole, which would hide a wrong estimate."""
    changes = {"run.compile": "no", "data.batch": 8, **CASES[case]}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(changes)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said, measured = json.loads(done.stdout)
    assert measured > 100e6, "large enough to mean something"
    assert said == pytest.approx(measured, rel=0.3)


def test_recomputing_and_smaller_passes_need_less():
    def total(**changes) -> int:
        settings = read_recipe(None, {"data.batch": 8, "model.context": 64, **changes})
        sizes, _ = derive(settings, 500)
        shard = Shard(np.ones(5000, "<u2"), 1, 1, 0)
        examples = CausalExamples(shard, 64, isolate=False, seed=0)
        batch = examples.batch([(0, i) for i in range(sizes.micro_batch)])
        return footprint.estimate(settings, sizes, batch).activations

    plain = total()
    assert total(**{"run.recompute": True}) < 0.7 * plain
    assert total(**{"data.micro_batch": 2}) < 0.4 * plain, "a quarter, and the weights in bfloat16"
    mixture = {"count": 4, "active": 2, "ffn": 256}
    assert total(**{"model.config.experts": mixture}) > 0


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("preflight")
    texts = home / "texts"
    texts.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        words = generator.choice(["wind", "lass", "rope", "turns", "load", "holds", "pawl"], 250)
        (texts / f"part{i}.txt").write_text(" ".join(words) + ".\n", encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        train_tokenizer(ws, corpus, 330, allow_smaller=True)
        train_tokenizer(ws, corpus, 360, name="special", sentinels=16, allow_smaller=True)
    return home


def run(capsys, home: Path, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["train", *arguments, "--workspace", str(home)])
    out, err = capsys.readouterr()
    return status, out, err


SMALL = ("--set", "model.context=32", "--set", "data.batch=4", "--depth", "1")


@pytest.mark.parametrize("recipe", ["decoder", "encoder", "encoder-decoder", "embedding"])
def test_the_dry_run_shows_what_was_found_and_leaves_the_tokens_only(home, capsys, recipe):
    before = sorted(path.name for path in (home / ".windlass").iterdir())
    status, out, err = run(capsys, home, recipe, "--tokenizer", "special", "--check", *SMALL)
    assert status == 0, err
    for word in (
        "corpus@1",
        "special@1",
        "training text",
        "parameters",
        "memory: activations",
        "disk",
        "ready to train",
    ):
        assert word in out
    assert {path.name for path in (home / ".windlass").iterdir()} <= {*before, "tokens"}
    with Workspace(home) as ws:
        assert not ws.runs.list("pretrain")


def test_the_dry_run_says_when_it_does_not_fit(home, capsys, monkeypatch):
    monkeypatch.setattr(checking, "available", lambda: 1_000_000)
    status, out, _ = run(capsys, home, "decoder", "--check", *SMALL)
    assert status == 1
    assert "this does not fit here" in out


def test_each_wrong_input_has_one_clear_error(home, capsys, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[model]\ndepht = 3\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        (str(recipe), "--check"): "unknown key 'model.depht'",
        ("decodr", "--check"): "no recipe 'decodr'",
        ("encoder-decoder", "--check", *SMALL, "--tokenizer", "tokenizer"): "sentinel tokens",
        ("decoder", "--check", "--set", "model.context=100000"): "fewer than one sequence of 100001",
        ("decoder", "--check", "--set", "data.kinds=[\"poems\"]", *SMALL): "no documents of kind poems",
        ("decoder", "--check", "--corpus", "tokenizer", *SMALL): "not a corpus",
        ("decoder", "--check", "--set", "model.config.heads=3", "--set", "model.config.kv_heads=2"): "cannot share 2",
        ("decoder", "--check", "--set", "model.config.vocab_size=100", *SMALL): "model.config.vocab_size is 100",
        ("decoder", "--check", "--set", "model.init_from=nowhere", *SMALL): "nowhere",
        ("decoder", "--check", "--set", f"model.init_from={empty}", *SMALL): "config.json",
        ("a", "b", "c", "d"): "4 names are given",
    }  # fmt: skip
    for arguments, message in cases.items():
        status, _, err = run(capsys, home, *arguments)
        assert status == 2, (arguments, err)
        assert message in err, (arguments, err)
        assert len(err.strip().splitlines()) <= 2, "one sentence and one hint"


def test_a_vocabulary_larger_than_the_text_is_refused():
    settings = read_recipe(None, {"model.context": 16})
    sizes, _ = derive(settings, 5000)
    shard = Shard(np.ones(400, "<u2"), 1, 1, 0)
    with pytest.raises(InputError, match="more than the training text, which has 400"):
        checking.check_text(shard, shard, sizes)


def test_a_check_counts_workers(home):
    with Workspace(home) as ws:
        settings = read_recipe(None, {"model.context": 32, "data.batch": 4, "model.depth": 1, "schedule.steps": 10})
        found = check_run(ws, ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer"), settings, workers=2)
    text = found.render()
    assert "for 2 workers" in text
    assert "10 steps" in text
    assert "epochs" in text
