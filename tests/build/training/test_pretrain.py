"""Pre-training end to end on a small corpus: the artifact, exact resume after kill -9, interrupts, time, bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from windlass.build.corpus import CorpusSettings, build_corpus
from windlass.build.tokenizer import load_tokenizer, train_tokenizer
from windlass.build.training.bigram import bigram_start, bigrams
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.data.shard import Shard, write_shard
from windlass.build.training.examples import LOSSES
from windlass.build.training.measuring.heldout import score
from windlass.build.training.objectives import Loss, arithmetic, causal
from windlass.build.training.pretrain import finished, pretrain
from windlass.build.training.recipe import read_recipe
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_model
from windlass.build.transformer.init import initialise
from windlass.core.errors import InputError, WindlassError
from windlass.core.readers import Folder
from windlass.core.workspace import Workspace
from windlass.serve.encoders.embedder import SentenceEncoder

TINY = {"model.depth": 1, "model.context": 32, "data.batch": 4, "run.compile": "no", "run.seed": 5}
STEPS = 90


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices gain nothing from threads, and bitwise equality holds for equal numbers of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(count: int, seed: int) -> str:
    """Words of which each mostly follows from the two before it, and from one alone not at all."""
    vocabulary = ["wind", "lass", "the", "rope", "turns", "slowly", "heavy", "load", "and", "holds", "pawl"]
    generator = np.random.default_rng(seed)
    chosen = [0, 1]
    for surprise in generator.random(count - 2):
        chosen.append((chosen[-1] + chosen[-2]) % 11 if surprise < 0.9 else int(generator.integers(11)))
    return " ".join(vocabulary[i] for i in chosen) + ".\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory, one_thread) -> Path:
    """A workspace with a corpus and a tokenizer."""
    home = tmp_path_factory.mktemp("home")
    texts = home / "texts"
    texts.mkdir()
    for i in range(30):
        (texts / f"part{i}.txt").write_text(words(300, i), encoding="utf-8")
    with Workspace(home) as ws:
        corpus = build_corpus(ws, Folder(texts), CorpusSettings(heldout=0.2))
        train_tokenizer(ws, corpus, 330, allow_smaller=True)
        train_tokenizer(ws, corpus, 360, name="special", sentinels=16, allow_smaller=True)
    return home


def curve(ws: Workspace, run: str, name: str = "train_loss") -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in ws.store.metrics(run, name)]


def run_pretrain(home: Path, name: str, **changes):
    with Workspace(home) as ws:
        said: list[str] = []
        artifact = pretrain(
            ws,
            ws.artifacts.get("corpus"),
            ws.artifacts.get("tokenizer"),
            read_recipe(None, {**TINY, "run.name": name, **{k.replace("__", "."): v for k, v in changes.items()}}),
            say=said.append,
        )
        return artifact, said


def test_makes_a_model_that_transformers_loads(home):
    artifact, said = run_pretrain(home, "whole", schedule__steps=STEPS, data__batch=16)
    assert artifact.kind == "model"
    assert [role for role, _ in artifact.record.parents] == ["corpus", "tokenizer"]
    with Workspace(home) as ws:
        losses = curve(ws, artifact.record.run)
        assert [step for step, _ in losses] == list(range(1, STEPS + 1))
        first, last = losses[0][1], sum(value for _, value in losses[-10:]) / 10
        assert last < 0.9 * first, "the blocks learn what bigram counts do not hold"
        assert curve(ws, artifact.record.run, "heldout_bpb") == [(STEPS, artifact.card["heldout_bpb"])]
        for name in ("lr", "tokens_per_s", "gradient_norm"):
            assert len(curve(ws, artifact.record.run, name)) == STEPS
        assert (
            finished(
                ws,
                ws.artifacts.get("corpus"),
                ws.artifacts.get("tokenizer"),
                read_recipe(None, {**TINY, "data.batch": 16, "schedule.steps": STEPS, "run.name": "whole"}),
            ).digest
            == artifact.digest
        )
    assert any("width 48 = 48 x depth" in line for line in said)
    assert artifact.card["heldout_bpb"] < 3
    assert f"{artifact.card['heldout_bpb']:.4f}" in (artifact.path / "README.md").read_text()

    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(artifact.path, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact.path)
    ids = tokenizer("the heavy load turns slowly", return_tensors="pt").input_ids
    ours = load_model(artifact.path)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)


SCRIPT = """
import sys, json
from pathlib import Path
from windlass.build.training.pretrain import pretrain
from windlass.build.training.recipe import read_recipe
from windlass.core.workspace import Workspace
with Workspace(Path(sys.argv[1])) as ws:
    settings = read_recipe(None, json.loads(sys.argv[2]))
    artifact = pretrain(ws, ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer"), settings)
    print(artifact.digest, artifact.record.run)
"""


def start(home: Path, settings: dict) -> subprocess.Popen:
    source = str(Path(__file__).parents[3] / "src")
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(home), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )


def wait_for_step(process: subprocess.Popen, home: Path, name: str, step: int) -> None:
    """Until the run called `name` has a checkpoint at or behind `step`."""
    deadline = time.monotonic() + 120
    with Workspace(home) as ws:
        while time.monotonic() < deadline:
            assert process.poll() is None, f"ended before it could be stopped: {process.communicate()}"
            runs = [r for r in ws.store.runs("pretrain") if r.name == name]
            if runs and max(checkpoint.steps(home / ".windlass/runs" / runs[0].id), default=-1) >= step:
                return
            time.sleep(0.02)
    raise AssertionError("no checkpoint in 120 s")


def test_killed_twice_and_resumed_gives_bitwise_the_same_losses_and_model(home):
    more = {"data.batch": 8, "model.context": 96, "schedule.steps": 100, "run.checkpoint_steps": 5}
    settings = {**TINY, **more, "run.name": "killed"}
    straight, _ = run_pretrain(home, "straight", **{key.replace(".", "__"): value for key, value in more.items()})
    for step in (10, 40):
        process = start(home, settings)
        wait_for_step(process, home, "killed", step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(home, settings)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "going on from step" in out
    _, run = out.split()[-2:]
    with Workspace(home) as ws:
        assert len([r for r in ws.store.runs("pretrain") if r.name == "killed"]) == 1, "one run, taken up twice"
        assert curve(ws, run) == curve(ws, straight.record.run)
        assert len(curve(ws, run)) == 100
        model = ws.artifacts.get("killed")
    assert model.record.files["model.safetensors"] == straight.record.files["model.safetensors"]


def test_interrupt_saves_and_the_run_says_so(home):
    settings = {**TINY, "schedule.steps": 100_000, "run.checkpoint_steps": 10, "run.name": "interrupted"}
    process = start(home, settings)
    wait_for_step(process, home, "interrupted", 10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    with Workspace(home) as ws:
        record = next(r for r in ws.store.runs("pretrain") if r.name == "interrupted")
        assert record.status == "interrupted"
        last = max(step for step, _ in curve(ws, record.id))
        assert checkpoint.steps(home / ".windlass/runs" / record.id)[-1] == last, (
            "the step that was running when Ctrl-C came is kept"
        )


@pytest.mark.slow
def test_time_budget_is_kept_and_used(home):
    artifact, _ = run_pretrain(home, "timed", schedule__minutes=0.25)
    with Workspace(home) as ws:
        rates = [value for _, value in curve(ws, artifact.record.run, "lr")]
        times = [point.at for point in ws.store.metrics(artifact.record.run, "lr")]
    assert 9 < times[-1] - times[0] < 15.5, "most of the budget is used, and no more"
    assert rates[-1] < 0.1 * max(rates), "the rate came down before time was up"


def test_a_loss_that_is_no_number_stops_the_run(home, monkeypatch):
    count = iter(range(100))

    def poisoned(model, batch, math):
        loss = causal(model, batch, math)
        return Loss(loss.sum * (float("nan") if next(count) == 3 else 1.0), loss.counted)

    monkeypatch.setitem(LOSSES, "causal", poisoned)
    with pytest.raises(WindlassError, match="loss became nan in step 4"):
        run_pretrain(home, "poisoned", schedule__steps=10)
    with Workspace(home) as ws:
        record = next(r for r in ws.store.runs("pretrain") if r.name == "poisoned")
        assert record.status == "failed"
        assert checkpoint.steps(home / ".windlass/runs" / record.id) == [3], "the state before the bad step is kept"


@pytest.mark.parametrize("length", [2, 17, 33, 34, 49, 50, 200, 1000])
def test_heldout_predicts_every_token_once_and_equals_the_definition(home, tmp_path, length):
    """On a text shorter than the context, the score is that of one plain forward pass."""
    with Workspace(home) as ws:
        model = load_model(ws.artifacts.get("whole").path)
    tokens = np.random.default_rng(0).integers(model.config.vocab_size, size=length).astype("<u2")
    loss_of = partial(causal, model, math=arithmetic(model))
    found = score(loss_of, model.config.context, Shard(tokens, 1, 100, 0), batch=3)
    assert found.tokens == length - 1
    if length <= model.config.context + 1:
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        with torch.inference_mode():
            log_p = model(ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])
        assert found.nats == pytest.approx(-float(log_p.sum()), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) / 100)


def test_a_shard_holds_every_document_behind_a_separator(home, tmp_path):
    with Workspace(home) as ws:
        tokenizer = load_tokenizer(ws.artifacts.get("tokenizer"))
    texts = ["the rope\n", "", "héavy load"]
    shard = write_shard(tmp_path / "s.bin", texts, tokenizer, 0)
    parts = " ".join(map(str, shard.tokens)).split(" ")
    assert parts.count("0") == 4
    assert shard.documents == 3
    assert shard.bytes == sum(len(t.encode()) for t in texts)
    assert tokenizer.decode(list(shard.tokens)) == "".join(texts)
    again = write_shard(tmp_path / "s.bin", iter(()), tokenizer, 0)
    assert np.array_equal(again.tokens, shard.tokens), "a finished shard is taken as it is"
    with pytest.raises(InputError, match="no text"):
        write_shard(tmp_path / "e.bin", ["", ""], tokenizer, 0)


def test_the_bigram_start_reaches_the_loss_of_the_counts_themselves(home, tmp_path):
    with Workspace(home) as ws:
        tokenizer = load_tokenizer(ws.artifacts.get("tokenizer"))
    shard = write_shard(tmp_path / "b.bin", [words(3000, 1)], tokenizer, 0)
    vocabulary = tokenizer.get_vocab_size()
    p, weights = bigrams(shard, vocabulary)
    assert torch.allclose(p.sum(1), torch.ones(vocabulary))
    assert float(weights.sum()) == pytest.approx(1)
    best = -float((weights[:, None] * p * p.clamp_min(1e-12).log()).sum())  # entropy of the smoothed counts
    config = TransformerConfig(
        vocab_size=vocabulary, hidden=64, layers=1, heads=1, kv_heads=1, head_dim=64, ffn=64, context=32
    )
    model = Decoder(config)
    initialise(model, 0)
    assert best <= bigram_start(model, shard) < best + 0.15
    window = torch.from_numpy(shard.tokens[:33].astype(np.int64))[None]
    with torch.inference_mode():
        forward = model(window[:, :-1]).log_softmax(-1)
        counted = p[window[0, :-1]].log()
    # The blocks add nothing yet, so the decoder is that bigram model.
    expected = counted.gather(1, window[0, 1:, None]).mean()
    assert forward[0].gather(1, window[0, 1:, None]).mean() == pytest.approx(float(expected), abs=0.3)
    tied = Decoder(dataclasses.replace(config, tied=True))
    assert bigram_start(tied, shard) is None


ARCHITECTURES = {
    "encoder": {"objective.kind": "masked", "data.isolate": True, "optimizer.kind": "adamw"},
    "encoder-decoder": {"objective.kind": "spans", "data.isolate": True},
    "embedding": {"objective.kind": "contrastive", "data.batch": 8},
}


def train(ws: Workspace, changes: dict, say=lambda line: None):
    return pretrain(ws, ws.artifacts.get("corpus"), ws.artifacts.get("special"), read_recipe(None, changes), say=say)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_learn_measure_and_load_in_transformers(home, name):
    transformers = pytest.importorskip("transformers")
    said: list[str] = []
    architecture = "encoder" if name == "embedding" else name
    asked = {"model.architecture": architecture, "run.name": name, "schedule.steps": 40, "run.evaluate_steps": 20}
    with Workspace(home) as ws:
        artifact = train(ws, TINY | {"model.depth": 2} | ARCHITECTURES[name] | asked, said.append)
        losses = [value for _, value in curve(ws, artifact.record.run, "heldout_loss")]
        assert len(losses) == 2, "measured in the middle and at the end"
        assert losses[-1] < losses[0] or name == "embedding", "neighbours of random words are like any others"
        samples = home / ".windlass/runs" / artifact.record.run / "samples.txt"
        assert samples.exists() == (name != "embedding")
    assert 0 < artifact.card["heldout_accuracy"] <= 1
    assert artifact.card["objective"] == ARCHITECTURES[name]["objective.kind"]
    assert "right" in (artifact.path / "README.md").read_text()
    ids = torch.randint(5, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    ours = load_model(artifact.path)
    kind = {"encoder": "AutoModelForMaskedLM", "encoder-decoder": "AutoModelForSeq2SeqLM", "embedding": "AutoModel"}
    theirs = getattr(transformers, kind[name]).from_pretrained(artifact.path, dtype=torch.float32).eval()
    with torch.inference_mode():
        if name == "encoder":
            pair = ours(ids), theirs(ids).logits
        elif name == "encoder-decoder":
            pair = ours(ids, ids[:, :9]), theirs(input_ids=ids, decoder_input_ids=ids[:, :9]).logits
        else:
            pair = ours.hidden(ids), theirs(ids).last_hidden_state
            embedded = SentenceEncoder.from_folder(artifact.path).embed(["what was said", "and what is meant by it"])
            assert embedded.vectors.shape == (2, ours.config.hidden) and embedded.truncated == 0
    torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)


def test_a_run_goes_on_from_a_model_and_refuses_what_does_not_fit(home, tmp_path):
    with Workspace(home) as ws:
        base = ws.artifacts.get("whole")
        corpus, tokenizer = ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer")
        asked = {**TINY, "model.init_from": "whole", "schedule.steps": 3, "run.name": "more", "optimizer.ema": 0.5}
        more = pretrain(ws, corpus, tokenizer, read_recipe(None, asked), say=lambda line: None)
        assert more.parent("model") == base.digest
        first = curve(ws, more.record.run)[0][1]
        assert first < curve(ws, base.record.run)[0][1] - 0.2, "it starts where the other ended"

        def refused(changes: dict, match: str, tokenizer=tokenizer) -> None:
            with pytest.raises(InputError, match=match):
                pretrain(ws, corpus, tokenizer, read_recipe(None, {**asked, **changes}), say=lambda line: None)

        refused({"model.context": 4096}, "model.context is 4096, but whole reads at most")
        refused({"model.config.qk_norm": True}, "model.config would change it")
        refused({"model.architecture": "encoder"}, "architecture 'decoder', but the recipe trains an 'encoder'")
        refused({"model.init_from": "corpus"}, "is of kind 'corpus', not a model")
        refused({}, "does not match .*: token .* is number", tokenizer=ws.artifacts.get("special"))

        folder = tmp_path / "model"
        shutil.copytree(base.path, folder)
        file = folder / "model.safetensors"
        file.chmod(0o644)
        tensors = load_file(file)
        name = "model.norm.weight"
        broken = {
            "lack the tensor": {k: v for k, v in tensors.items() if k != name},
            "unknown tensor": tensors | {"model.extra": torch.ones(2)},
            "has shape": tensors | {name: torch.ones(3)},
        }
        for match, changed in broken.items():
            save_file(changed, file)
            refused({"model.init_from": str(folder)}, match)


def test_runs_on_the_same_text_tokenize_it_once(home):
    tokens = home / ".windlass/tokens"
    before = {path: path.stat().st_mtime_ns for path in tokens.rglob("train.bin")}
    run_pretrain(home, "again", schedule__steps=2)
    assert {path: path.stat().st_mtime_ns for path in tokens.rglob("train.bin")} == before
    for path in tokens.rglob("train.json"):
        path.unlink()
    run_pretrain(home, "anew", schedule__steps=2, run__seed=6)
    assert (len(before), len(list(tokens.rglob("train.json")))) == (2, 1), "what is missing is made again, no more"


def test_an_early_stop_keeps_what_was_learned(home):
    artifact, said = run_pretrain(
        home, "early", schedule__steps=400, run__evaluate_steps=2, run__patience=1, optimizer__matrix_rate=0.5
    )
    assert artifact.card["steps"] < 400
    assert any("stopping early" in line for line in said)


def test_the_best_weights_are_kept_and_stored(home):
    """Rates that rise until they ruin the model: the measurement gets worse, and what was best before is stored."""
    wild = {"optimizer__embedding_rate": 3.0, "optimizer__head_rate": 1.0, "schedule__warmup_steps": 60}
    steps = {"schedule__steps": 40, "schedule__cooldown": 0.0, "run__evaluate_steps": 5, "run__keep_checkpoints": 1}
    artifact, said = run_pretrain(home, "best", **wild, **steps, run__keep_best=True, run__checkpoint_steps=2)
    with Workspace(home) as ws:
        measured = dict(curve(ws, artifact.record.run, "heldout_loss"))
    best = min((loss, step) for step, loss in measured.items() if step % 5 == 0)[1]
    assert best < 40
    assert artifact.card["steps"] == best
    assert any(f"taking the weights of step {best}, where the measurement was best" in line for line in said)
    with pytest.raises(InputError, match="nothing is measured"):
        read_recipe(None, {"run.keep_best": True})


def test_wrong_inputs_are_refused(home):
    with Workspace(home) as ws:
        corpus, tokenizer = ws.artifacts.get("corpus"), ws.artifacts.get("tokenizer")
        with pytest.raises(InputError, match="not a corpus"):
            pretrain(ws, tokenizer, corpus, read_recipe(None, {"schedule.steps": 1}))
        with pytest.raises(InputError, match="fewer than one sequence"):
            pretrain(ws, corpus, tokenizer, read_recipe(None, {"schedule.steps": 1, "model.context": 100_000}), say=id)
