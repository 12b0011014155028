"""Encoders tuned from end to end: they learn, and what is stored is what transformers and the engine compute."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from encoder_rows import asked, rows_for, written
from encoder_world import save_encoder

from windlass.build.adapt.objectives import classification
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.peft.artifacts import merge_stored
from windlass.build.adapt.peft.artifacts import stored as stored_adapter
from windlass.build.adapt.sections import (
    AdapterSettings,
    BaseSettings,
    TuneDataSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.adapt.tuning import job_of, tune
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.data.batches import DataState, take
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import steps
from windlass.build.transformer.classifier_files import load_classifier
from windlass.build.transformer.embedder_files import Embedder, read_recipe
from windlass.build.transformer.hf import load_encoder
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace
from windlass.serve.encoders.cross_encoder import CrossEncoder, TextClassifier
from windlass.serve.encoders.embedder import SentenceEncoder
from windlass.serve.encoders.opening import encoder_in

FAMILIES = ("Bert", "Roberta", "XLMRoberta", "DistilBert", "ModernBert")
TEXTS = ["the cat sat on a mat", "old pump moves water in the violin", "bread"]
JUDGES = {
    "classify": ("texts", transformers.AutoModelForSequenceClassification),
    "several": ("texts", transformers.AutoModelForSequenceClassification),
    "regress": ("texts", transformers.AutoModelForSequenceClassification),
    "rank": ("texts", transformers.AutoModelForSequenceClassification),
    "pairs": ("texts", transformers.AutoModelForSequenceClassification),
    "tag": ("tokens", transformers.AutoModelForTokenClassification),
    "extract": ("spans", transformers.AutoModelForQuestionAnswering),
}


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        save_encoder(folder / family, family, "Model", initializer_range=0.1)
    return folder


def tuned(tmp_path: Path, base: Path, kind: str, say=quiet, **changes) -> Artifact:
    rows = written(tmp_path / f"{kind}.jsonl", rows_for(kind))
    with Workspace(tmp_path) as ws:
        return tune(ws, asked(base, rows, kind, **changes), say=say)


def outputs(folder: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Ours and those of transformers, for all texts."""
    task, auto = JUDGES[kind]
    ours, theirs = load_classifier(folder, task), auto.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = [tokenizer(text)["input_ids"] for text in TEXTS]
    with torch.inference_mode():
        mine = ours(torch.tensor([[token for row in read for token in row]]), [len(row) for row in read])
        found = []
        for row in read:
            out = theirs(input_ids=torch.tensor([row]))
            both = torch.stack([out.start_logits, out.end_logits], -1)[0] if task == "spans" else out.logits
            found.append(both if task != "tokens" else both[0])
    return mine.numpy(), torch.cat(found).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["classify", "tag", "extract"])
def test_every_family_and_head_is_what_transformers_computes(bases, tmp_path, family, kind):
    model = tuned(tmp_path, bases / family, kind)
    ours, theirs = outputs(model.path, kind)
    assert np.allclose(ours, theirs, atol=2e-5) and np.ptp(ours) > 1e-3


@pytest.mark.parametrize("kind", ["several", "regress", "rank", "pairs"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_every_objective_is_stored_as_transformers_reads_it(bases, tmp_path, kind, adapter):
    model = tuned(tmp_path, bases / "Bert", kind, adapter=AdapterSettings(adapter, rank=2, merge=True))
    ours, theirs = outputs(model.path, kind)
    assert np.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "measure", "least"),
    [
        ("classify", "accuracy", 0.99), ("several", "micro_f1", 0.95), ("regress", "pearson", 0.95),
        ("tag", "f1", 0.95), ("extract", "f1", 0.7), ("rank", "mrr", 0.85), ("pairs", "accuracy", 0.9),
        ("embed", "mrr", 0.3), ("scored", "pearson", 0.9),
    ],
)  # fmt: skip
def test_every_objective_learns(bases, tmp_path, kind, measure, least):
    said: list[str] = []
    model = tuned(tmp_path, bases / "Bert", kind, said.append, schedule=TuneScheduleSettings(steps=150))
    assert model.card[f"heldout_{measure}"] >= least
    assert any("none of them padding" in line for line in said)
    assert model.card["objective"] in JUDGES or kind in ("embed", "scored")


def test_a_classifier_is_served_as_it_lies(bases, tmp_path):
    model = tuned(tmp_path, bases / "Bert", "classify", schedule=TuneScheduleSettings(steps=150))
    served = encoder_in(model.path)
    assert isinstance(served, TextClassifier) and tuple(served.labels) == ("animal", "thing")
    found = served.classify(["the cat", "the pump"]).probabilities
    assert found[0, 0] > 0.9 and found[1, 1] > 0.9
    config = transformers.AutoConfig.from_pretrained(model.path)
    assert config.id2label == {0: "animal", 1: "thing"} and config.problem_type == "single_label_classification"


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_regression_is_served_as_numbers_in_the_units_of_its_data(bases, tmp_path, adapter):
    lora = AdapterSettings(adapter, rank=2, merge=True)
    model = tuned(tmp_path, bases / "Bert", "regress", adapter=lora, schedule=TuneScheduleSettings(steps=60))
    served = encoder_in(model.path)
    assert isinstance(served, TextClassifier)
    found = served.classify(["the cat", "the pump"])
    assert found.numbers and (found.probabilities > 40).all()  # the data's are 70 and 80


def test_a_ranker_is_served_as_it_lies(bases, tmp_path):
    model = tuned(tmp_path, bases / "Bert", "rank", schedule=TuneScheduleSettings(steps=150))
    served = encoder_in(model.path)
    assert isinstance(served, CrossEncoder)
    scores = served.rank("cat the", ["old water", "the cat in"]).scores
    assert 0 <= scores[0] < scores[1] <= 1


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_embedder_is_served_as_it_lies(bases, tmp_path, adapter, pooling):
    base = tmp_path / "base"
    save_encoder(base, "Bert", "Model")
    modules = [{"path": "", "type": "st.models.Transformer"}, {"path": "1_Pooling", "type": "st.models.Pooling"}]
    (base / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}), encoding="utf-8")
    prompts = {"prompts": {"query": "the old ", "document": "a "}}
    (base / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    model = tuned(tmp_path, base, "embed", adapter=AdapterSettings(adapter, rank=2, merge=True))
    served = encoder_in(model.path)
    assert isinstance(served, SentenceEncoder)
    recipe = read_recipe(model.path)
    assert recipe == replace(read_recipe(base)) and recipe.prompt(True) == "the old " and recipe.prompt(False) == "a "
    ours = Embedder(load_encoder(model.path), recipe.pooling)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.path)
    theirs = transformers.AutoModel.from_pretrained(model.path, add_pooling_layer=False).eval()
    for kind, prompt in (("query", "the old "), ("passage", "a ")):
        read = [tokenizer(prompt + text)["input_ids"] for text in TEXTS]
        found = served.embed(TEXTS, kind).vectors
        with torch.inference_mode():
            mine = ours(torch.tensor([[token for row in read for token in row]]), [len(row) for row in read]).numpy()
            hidden = [theirs(input_ids=torch.tensor([row])).last_hidden_state[0] for row in read]
        pooled = torch.stack([x[0] if pooling == "cls" else x.mean(0) for x in hidden])
        assert np.allclose(found, mine, atol=1e-5)
        assert np.allclose(mine, torch.nn.functional.normalize(pooled, dim=-1).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, when it is given a configuration
@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_an_adapter_is_what_peft_computes(bases, tmp_path, kind):
    peft = pytest.importorskip("peft")
    adapter = AdapterSettings("lora", rank=2, targets=("query", "value"))
    stored = tuned(tmp_path, bases / "Bert", kind, adapter=adapter)
    merged = tuned(tmp_path, bases / "Bert", kind, adapter=replace(adapter, merge=True))
    assert stored.kind == "adapter" and merged.kind == "model"
    auto = JUDGES[kind][1]
    base = auto.from_pretrained(bases / "Bert", config=transformers.AutoConfig.from_pretrained(stored.path))
    theirs = peft.PeftModel.from_pretrained(base, stored.path).eval()
    whole = auto.from_pretrained(merged.path).eval()
    tokens = torch.tensor([[2, 5, 6, 7, 8, 9, 3]])
    with Workspace(tmp_path) as ws:
        later = merge_stored(ws, stored_adapter(ws, stored.ref, str(bases / "Bert")), "later")
    assert later.card["merge_error"] < 1e-4
    again = auto.from_pretrained(later.path).eval()
    with torch.inference_mode():
        assert torch.allclose(theirs(input_ids=tokens).logits, whole(input_ids=tokens).logits, atol=1e-4)
        assert torch.allclose(theirs(input_ids=tokens).logits, again(input_ids=tokens).logits, atol=1e-4)
    assert again.config.id2label == whole.config.id2label


@pytest.mark.slow
def test_a_model_and_an_adapter_are_trained_further(bases, tmp_path):
    first = tuned(tmp_path, bases / "Bert", "classify", schedule=TuneScheduleSettings(steps=150))
    said: list[str] = []
    again = tuned(tmp_path, first.path, "classify", said.append, schedule=TuneScheduleSettings(steps=1))
    assert any("going on with the head" in line for line in said)
    assert again.card["heldout_accuracy"] >= 0.99
    lora = AdapterSettings("lora", rank=2)
    for kind, measure in (("classify", "accuracy"), ("regress", "pearson")):
        stored = tuned(tmp_path, bases / "Bert", kind, adapter=lora, schedule=TuneScheduleSettings(steps=150))
        model = BaseSettings(str(bases / "Bert"), adapter_from=str(stored.path))
        slow = TuneOptimizerSettings(matrix_rate=1e-6)
        once = TuneScheduleSettings(steps=1)
        further = tuned(tmp_path, bases / "Bert", kind, adapter=lora, model=model, schedule=once, optimizer=slow)
        assert abs(further.card[f"heldout_{measure}"] - stored.card[f"heldout_{measure}"]) < 0.01
    with pytest.raises(InputError, match="knows the labels animal, thing, but the data has"):
        rows = [{"text": text, "label": label} for text in ANY for label in "yz"]
        path = written(tmp_path / "other.jsonl", rows)
        with Workspace(tmp_path) as ws:
            stored = tuned(tmp_path, bases / "Bert", "classify", adapter=lora)
            model = BaseSettings(str(bases / "Bert"), adapter_from=str(stored.path))
            tune(ws, asked(bases / "Bert", path, "classify", adapter=lora, model=model), say=quiet)


ANY = ["cat mat", "old pump", "water in violin", "bread rises"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rounded_base_is_trained_beside(bases, tmp_path, family):
    """What is frozen is kept in the precision of the activations, norms included."""
    run = TuneRunSettings(name="tuned", precision="bf16")
    adapter = AdapterSettings("lora", rank=2, merge=True)
    ours, theirs = outputs(tuned(tmp_path, bases / family, "classify", adapter=adapter, run=run).path, "classify")
    assert np.allclose(ours, theirs, atol=1e-4)


def test_a_decoder_and_what_cannot_be_done_are_refused(bases, tmp_path):
    with pytest.raises(InputError, match="no two rows of whole texts are of one length"):
        settings = asked(bases / "Bert", Path("rows"), "classify")
        tuned(tmp_path, bases / "Bert", "classify", run=replace(settings.run, compile="yes"))
    with pytest.raises(InputError, match=r"micro_batch is set, but the wrong answers"):
        tuned(tmp_path, bases / "Bert", "embed", data=TuneDataSettings(str(tmp_path / "embed.jsonl"), micro_batch=2))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(bases, tmp_path):
    """Of the embedding only rows that were read are updated, and the run that goes on knows which."""
    data = TuneDataSettings(str(written(tmp_path / "rows.jsonl", rows_for("classify"))), batch=8, micro_batch=3)
    run = TuneRunSettings(name="straight", checkpoint_steps=4)
    how = {"data": data, "schedule": TuneScheduleSettings(steps=8), "optimizer": TuneOptimizerSettings(clip=0.5)}

    def stop(line: str) -> None:
        if line.startswith("held-out"):  # behind the last step, before anything is stored
            raise KeyboardInterrupt

    with Workspace(tmp_path) as ws:
        straight = tune(ws, asked(bases / "Bert", Path(data.dataset), "classify", run=run, **how), say=quiet)
        cut = asked(bases / "Bert", Path(data.dataset), "classify", run=replace(run, name="cut"), **how)
        with pytest.raises(KeyboardInterrupt):
            tune(ws, cut, say=stop)
        (stopped,) = (one for one in ws.runs.list("tune") if one.name == "cut")
        shutil.rmtree(tmp_path / ".windlass/runs" / stopped.id / checkpoint.FOLDER / "step-00000008")
        said: list[str] = []
        again = tune(ws, cut, say=said.append)
    assert any("going on from step 4" in line for line in said)
    assert again.record.files["model.safetensors"] == straight.record.files["model.safetensors"]


@pytest.mark.parametrize(
    ("adapter", "optimizer", "by_rows"),
    [
        (AdapterSettings("none"), "adamw", True),
        (AdapterSettings("none"), "adamw8", False),
        (AdapterSettings("none"), "muon", False),
        (AdapterSettings("lora", rank=2), "adamw", False),
        (AdapterSettings("lora", rank=2, also=("embedding",)), "adamw", True),
        (AdapterSettings("lora", rank=2, tokens=("cat",)), "adamw", False),
    ],
)
def test_the_rows_of_the_embedding_that_were_read(bases, tmp_path, adapter, optimizer, by_rows):
    """Where the whole of it is trained by AdamW, its gradient names its rows; and the others stay as they were."""
    rows = written(tmp_path / "rows.jsonl", rows_for("classify"))
    how = {"adapter": adapter, "optimizer": TuneOptimizerSettings(kind=optimizer, matrix_rate=3e-3, weight_decay=0.1)}
    with Workspace(tmp_path) as ws:
        settings = asked(bases / "Bert", rows, "classify", **how)
        job = job_of(classification.prepare(open_inputs(ws, settings)), settings, ALONE, "ddp")
        encoder = job.state.model.encoder
        before = encoder.embedding.detach().clone()
        for _ in steps(job.state, job.examples, job.loss_of, job.sizes, job.schedule, 0, None):
            pass
    assert encoder.by_rows == by_rows
    moved = (encoder.embedding.detach() != before).any(1)
    assert not moved[[0, 1, 4]].any(), "neither [UNK] nor [PAD] nor [MASK] stands in the texts"
    assert bool(moved[[2, 3]].all()) == (adapter.kind == "none" or bool(adapter.also))


def test_training_is_what_transformers_and_torch_make_of_the_same_batches(bases, tmp_path):
    rows = written(tmp_path / "rows.jsonl", rows_for("classify"))
    schedule = TuneScheduleSettings(steps=15, warmup_steps=3)
    with Workspace(tmp_path) as ws:
        settings = asked(bases / "Bert", rows, "classify", schedule=schedule)
        prepared = classification.prepare(open_inputs(ws, settings))
    prepared.save(tmp_path / "begun")
    job = job_of(prepared, settings, ALONE, "ddp")
    reports = list(steps(job.state, job.examples, job.loss_of, job.sizes, job.schedule, 0, None))
    prepared.save(tmp_path / "ours")

    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "begun").eval()  # no dropout
    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.0)
    data = DataState()
    for report in reports:
        numbers, data = take(prepared.examples, data, job.sizes.batch, 0)
        chosen = [prepared.examples[number] for _, number in numbers]
        read = [torch.from_numpy(one.texts[0].ids) for one in chosen]
        out = theirs(
            input_ids=torch.nn.utils.rnn.pad_sequence(read, batch_first=True),
            attention_mask=torch.nn.utils.rnn.pad_sequence([torch.ones_like(ids) for ids in read], batch_first=True),
            labels=torch.tensor([int(one.targets[0]) for one in chosen]),
        )
        out.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), settings.optimizer.clip)
        optimizer.param_groups[0]["lr"] = settings.rate * report.multiplier
        optimizer.step()
        optimizer.zero_grad()
        assert (report.loss, report.gradient_norm) == pytest.approx((out.loss.item(), norm.item()), rel=1e-3, abs=1e-4)
    assert max(report.gradient_norm for report in reports) > settings.optimizer.clip
    ours = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").state_dict()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-3)
