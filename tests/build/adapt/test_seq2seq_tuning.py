"""Tuning an encoder-decoder: the loss is that of transformers, the adapter PEFT's, and the engine answers with it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from engine_world import END, byte_tokenizer
from tuned_world import WORDS, asked, write_rows

from windlass.build.adapt.checking import check_tuning, describe_dataset, open_uncompiled
from windlass.build.adapt.data.sources import asked_of
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import OBJECTIVES, tune
from windlass.build.training.data.batches import IGNORE
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.hf import load_model
from windlass.core.errors import InputError, NotFound
from windlass.core.values import ChatRequest, Message
from windlass.core.workspace import Workspace
from windlass.loop.lineup import load_lineup
from windlass.serve.engine.local import LocalModel
from windlass.serve.engine.request import Generation
from windlass.serve.engine.sampling.settings import Sampling
from windlass.serve.engine.source import SourceEngine

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # PEFT's, of transformers
START = 1


def quietly(line: str) -> None:
    """What is said is of no interest."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`t5`, a small random one, and rows in which a colour is answered by its first letter."""
    home = tmp_path_factory.mktemp("home")
    tokenizer = byte_tokenizer()
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=20, feed_forward_proj="gated-gelu",
        decoder_start_token_id=START, eos_token_id=tokenizer.token_to_id(END), pad_token_id=2, n_positions=48,
        dropout_rate=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).eval().save_pretrained(home / "t5")
    tokenizer.save(str(home / "t5" / "tokenizer.json"))
    (home / "t5" / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    generator = random.Random(0)
    rows = []
    for number in range(40):
        colour = generator.choice(WORDS)
        rows.append({"prompt": f"{number} {colour}", "completion": colour[:1] * 2})
    write_rows(home / "rows.jsonl", rows)
    return home


def taught(home: Path, **changes: Any) -> Any:
    values = {"model__base": str(home / "t5"), "adapter__kind": "none", "optimizer__matrix_rate": 1e-2}
    return asked(home / "rows.jsonl", **values | changes)


def theirs_in(home: Path) -> Any:
    return transformers.T5ForConditionalGeneration.from_pretrained(home / "t5").eval()


def summed(model: Any, pairs: Any) -> torch.Tensor:
    """The loss of transformers, each pair by itself, in sum over the targets."""
    total = torch.zeros(())
    for pair in pairs:
        labels = torch.from_numpy(pair.answer)[None]
        loss = model(input_ids=torch.from_numpy(pair.source)[None], labels=labels).loss
        total = total + loss * labels.numel()
    return total


def test_the_loss_of_packed_pairs_is_that_of_transformers(home: Path, tmp_path: Path) -> None:
    """And its gradients are: nothing is learned of a prompt or of padding, and no pair sees another."""
    with Workspace(tmp_path) as ws:
        opened = open_inputs(ws, taught(home))
        prepared = OBJECTIVES["sft"](opened)
    examples, theirs = prepared.examples, theirs_in(home)
    pairs, model = examples._pairs, prepared.model
    assert isinstance(model, EncoderDecoder) and len(examples) < len(pairs) / 2
    batch = examples.batch([(0, row) for row in range(len(examples))])
    loss = prepared.loss(batch)
    assert loss.counted == sum(len(pair.answer) for pair in pairs) == int((batch.targets_BT != IGNORE).sum())
    expected = summed(theirs, pairs)
    torch.testing.assert_close(loss.sum, expected, rtol=1e-4, atol=1e-3)
    torch.autograd.backward(loss.sum)
    torch.autograd.backward(expected)
    norms = [
        sorted(float(p.grad.norm()) for p in one.parameters() if p.requires_grad and p.grad is not None)
        for one in (model, theirs)
    ]
    assert len(norms[0]) > 10 and norms[0] == pytest.approx(norms[1], rel=2e-3, abs=1e-4)


def test_it_learns_and_the_engine_answers_as_transformers(home: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with Workspace(tmp_path) as ws:
        stored = tune(ws, taught(home, schedule__steps=120), say=said.append)
        losses = [point.value for point in ws.store.metrics(stored.record.run, "heldout_loss")]
        settings = taught(home)
        pairs = asked_of(opened := open_inputs(ws, settings), open_inputs(ws, settings).rows())
    assert losses[-1] < losses[0]
    assert any("tokens are read by the encoder" in line for line in said)
    engine = SourceEngine(load_model(stored.path), start=START)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(stored.path).eval()
    right = 0
    for pair in pairs[:12]:
        prompt = pair.source.tolist()
        sampling, end = Sampling(temperature=0), opened.specials.separator
        asked_ = Generation(prompt=prompt, max_tokens=8, sampling=sampling, stop_tokens=frozenset({end}))
        found = [token.id for token in engine.submit(asked_)]
        wanted = theirs.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, 1:].tolist()
        assert found == wanted[: len(found)] and found[-1] == end
        right += found == pair.answer.tolist()
    engine.close()
    assert right >= 9
    assert json.loads((stored.path / "config.json").read_text())["decoder_start_token_id"] == START


def test_an_adapter_is_peft_s_and_its_gradients_too(home: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    with Workspace(tmp_path) as ws:
        settings = taught(home, adapter__kind="lora", adapter__rank=3, schedule__steps=6)
        adapter = tune(ws, settings, say=quietly)
        loss = [point.value for point in ws.store.metrics(adapter.record.run, "heldout_loss")]
        further = taught(home, adapter__kind="lora", model__adapter_from=str(adapter.path))
        prepared = OBJECTIVES["sft"](open_inputs(ws, further))
        merged = tune(ws, taught(home, adapter__kind="lora", adapter__rank=3, adapter__merge=True, schedule__steps=6),
                      say=quietly)  # fmt: skip
    assert adapter.kind == "adapter" and merged.kind == "model" and loss[-1] < loss[0]
    config = json.loads((adapter.path / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    theirs = peft.PeftModel.from_pretrained(theirs_in(home), adapter.path, is_trainable=True).eval()
    assert isinstance(theirs, peft.PeftModelForSeq2SeqLM)
    examples = prepared.examples
    ours = prepared.loss(examples.batch([(0, row) for row in range(len(examples))]))
    expected = summed(theirs, examples._pairs)
    torch.testing.assert_close(ours.sum, expected, rtol=1e-4, atol=1e-3)
    torch.autograd.backward(ours.sum)
    torch.autograd.backward(expected)
    norms = [
        sorted(float(p.grad.norm()) for p in one.parameters() if p.requires_grad) for one in (prepared.model, theirs)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=2e-3, abs=1e-4) and max(norms[0]) > 1e-2
    own = load_model(merged.path).eval().requires_grad_(False)
    plain = theirs.merge_and_unload()
    for pair in examples._pairs[:3]:
        source, target = torch.from_numpy(pair.source)[None], torch.tensor([[START, *pair.answer[:-1]]])
        with torch.no_grad():
            logits = plain(input_ids=source, decoder_input_ids=target).logits
        torch.testing.assert_close(own(source, target), logits, rtol=1e-3, atol=3e-4)


def test_adapters_are_served_beside_their_base_in_one_batch(home: Path, tmp_path: Path) -> None:
    """Each writes what it writes merged, and the base what it writes alone, whoever else is written."""
    with Workspace(tmp_path) as ws:
        kinds = {kind: {"adapter__kind": kind, "schedule__steps": 20, "run__name": kind} for kind in ("dora", "ia3")}
        beside = {kind: tune(ws, taught(home, **how), say=quietly) for kind, how in kinds.items()}
        whole = {kind: tune(ws, taught(home, **how, adapter__merge=True), say=quietly) for kind, how in kinds.items()}
        lineup = load_lineup(ws, [str(home / "t5")], adapters=[(kind, made.ref) for kind, made in beside.items()])
    base = lineup.models["t5"]
    assert isinstance(base, LocalModel) and list(base.adapters) == ["dora", "ia3"] == lineup.adapters
    engine = base.engine
    sources = [[5, 9, 33, 7], [40, 41, 42, 43, 44, 45, 46], [3]]

    def asked_for(adapter: str | None, source: list[int]) -> Generation:
        return Generation(prompt=source, max_tokens=10, sampling=Sampling(temperature=0), adapter=adapter)

    def alone(folder: Path) -> list[list[int]]:
        one = SourceEngine(load_model(folder), start=START)
        found = [[token.id for token in one.submit(asked_for(None, source))] for source in sources]
        one.close()
        return found

    runs = [(name, [engine.submit(asked_for(name, source)) for source in sources]) for name in ("dora", None, "ia3")]
    found = {name: [[token.id for token in run] for run in several] for name, several in runs}
    assert found["dora"] == alone(whole["dora"].path) and found["ia3"] == alone(whole["ia3"].path)
    assert found[None] == alone(home / "t5") != found["dora"] != found["ia3"]
    request = ChatRequest([Message("user", "3 red")], temperature=0, max_tokens=6)
    last = base.adapters["dora"]
    base.unload_adapter("dora")
    with pytest.raises(NotFound, match="There is no adapter 'dora'"):
        last.complete(request)
    assert base.adapters["ia3"].complete(request).model == "ia3"
    other = tmp_path / "other"
    transformers.T5ForConditionalGeneration(theirs_in(home).config).save_pretrained(other)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (other / file).write_bytes((home / "t5" / file).read_bytes())
    with pytest.raises(InputError, match="trained on a base whose weights have the digest"):
        LocalModel.load(other).load_adapter("dora", beside["dora"].path)
    base.close()


def test_it_is_checked_and_described(home: Path, tmp_path: Path) -> None:
    with Workspace(tmp_path) as ws:
        opened = open_uncompiled(ws, taught(home))
        report = describe_dataset(ws, opened)
        pairs = asked_of(opened, opened.rows())
        assert report.lengths.learned == sum(len(pair.answer) for pair in pairs)
        found = check_tuning(ws, opened, say=quietly)
    assert found.fits and any(name == "memory: head" or "head" in name for name, *_ in found.rows)


def test_each_answer_of_a_conversation_is_learned(home: Path, tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)]
    rows = write_rows(tmp_path / "turns.jsonl", [{"messages": turns}] * 2)
    with Workspace(tmp_path) as ws:
        opened = open_inputs(ws, taught(home, data__dataset=str(rows), model__template="plain"))
        pairs = asked_of(opened, opened.rows())
        texts = [tuple(opened.tokenizer.decode(list(ids)) for ids in (pair.source, pair.answer)) for pair in pairs]
        assert [answer for _, answer in texts] == ["b", "d"] * 2 and len({pair.row for pair in pairs}) == 2
        assert all(earlier in texts[1][0] for earlier in "abc") and "d" not in texts[1][0].replace("###", "")[-3:]
        for bad, message in (
            ({"prompt": "a", "completion": " "}, "row 1: nothing in it is said by an assistant"),
            ({"messages": turns}, "has no chat template"),
        ):
            plain = taught(home, data__dataset=str(write_rows(tmp_path / "bad.jsonl", [bad] * 3)))
            with pytest.raises(InputError, match=message):
                tune(ws, plain, say=quietly)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective__kind": "dpo"}, "is an encoder-decoder"),
        (
            {"objective__kind": "classify", "data__columns.label": "completion", "data__columns.text": "prompt"},
            "is an encoder-decoder",
        ),
        ({"objective__kind": "grpo"}, "is an encoder-decoder"),
        ({"adapter__kind": "prompt"}, "no decoder"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(home: Path, tmp_path: Path, changes: Any, message: str) -> None:
    with Workspace(tmp_path) as ws, pytest.raises(InputError, match=message) as refused:
        tune(ws, taught(home, **changes), say=quietly)
    if "objective__kind" in changes:
        assert "sft" in str(refused.value.hint)


def test_the_recipe_is_read() -> None:
    assert TUNING.read("seq2seq", {}).objective.kind == "sft"
