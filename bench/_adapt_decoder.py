"""SFT with LoRA, as one process does it: windlass, or TRL's SFTTrainer with PEFT. For `bench.adapt`.

    python -m bench._adapt_decoder CONTENDER FOLDER

All begin with the same weights and learn from the same conversations, tokenised once, as often and in steps of about as
many tokens, with the same adapter, optimizer and rates. The last line that a process prints is what it measured. What
it learned lies in FOLDER as an adapter, which one piece of code measures on what was held out (`heldout`).
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEED, RANK, RATE, WARMUP = 0, 16, 2e-3, 0.05
ROW, BATCH, EPOCHS = 512, 4, 1
"""Positions of a packed row, and packed rows in a step."""
SHAPE: dict[str, int] = {"hidden": 512, "layers": 8, "heads": 8, "kv_heads": 4, "head_dim": 64, "ffn": 1_536}
VOCABULARY = 16_384
CONVERSATIONS = 200

OURS = "windlass"
TRL: Mapping[str, dict[str, Any]] = {
    # Packed rows, each a pass of its own: without flash attention a pass over several rows looks at all pairs of their
    # positions. Nothing is computed twice, and the loss takes its logits in pieces, as TRL always does.
    "TRL, packed": {
        "packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH,
        "gradient_checkpointing": False,
    },
    "TRL, packed, rows together": {
        "packing": True, "per_device_train_batch_size": BATCH, "gradient_checkpointing": False,
    },
    # Padded batches of neighbours in length: little padding, and attention of short texts only.
    "TRL, by length": {
        "per_device_train_batch_size": 16, "train_sampling_strategy": "group_by_length", "gradient_checkpointing": False
    },
    "TRL, defaults": {"per_device_train_batch_size": 16},
}  # fmt: skip
"""All in bfloat16, which is TRL's default, with the base itself in bfloat16 and the adapter in float32."""


def prepare(folder: Path) -> None:
    """Model, tokenizer, and the conversations as rows and as tokens."""
    import torch
    from bench._data import data_folder
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from windlass.build.transformer.config import TransformerConfig
    from windlass.build.transformer.decoder import Decoder
    from windlass.build.transformer.hf import save_model
    from windlass.build.transformer.init import initialise

    with gzip.open(data_folder() / "sft/format_samples/alpaca_en_demo.json.gz", "rt", encoding="utf-8") as file:
        rows = json.load(file)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((" ".join(map(str, row.values())) for row in rows), trainer)
    base = folder / "base"
    decoder = Decoder(TransformerConfig(vocab_size=tokenizer.get_vocab_size(), context=2 * ROW, tied=True, **SHAPE))
    initialise(decoder, SEED)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():  # some parts begin with zeros, and then have nothing to give
        for weight in decoder.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.02)
    save_model(decoder, base, bos=0, eos=0)
    tokenizer.save(str(base / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:CONVERSATIONS]))
    with _opened(folder) as opened:
        import numpy as np

        from windlass.build.adapt.data.lengths import row_size
        from windlass.build.adapt.data.splitting import split_off
        from windlass.build.adapt.objectives.sft import encoded_rows

        _, encoded, _ = row_size(opened, encoded_rows(opened, opened.rows()))
        train, _ = split_off(encoded, lambda one: one.tokens.tobytes(), opened.settings.data.heldout, SEED)
    with (folder / "train.jsonl").open("w") as file:
        for one in train:
            labels = np.where(one.learned, one.tokens, -100)
            print(json.dumps({"input_ids": one.tokens.tolist(), "labels": labels.tolist()}), file=file)
    facts = {"tokens": sum(map(len, train)), "examples": len(train), "parameters": decoder.config.parameters}
    (folder / "facts.json").write_text(json.dumps(facts))


def _opened(folder: Path, adapter: Path | None = None) -> Any:
    """The inputs of a tuning, as `windlass tune` opens them."""
    import contextlib
    import tempfile

    from windlass.build.adapt.opening import open_inputs
    from windlass.build.adapt.recipe import TUNING
    from windlass.core.workspace import Workspace

    changes = {
        "model.base": str(folder / "base"), "model.template": "plain", "model.context": ROW,
        "model.adapter_from": None if adapter is None else str(adapter),
        "data.dataset": str(folder / "rows.jsonl"), "data.batch": BATCH, "data.micro_batch": 1,
        "data.epochs": float(EPOCHS),
        "data.overlong": "drop", "adapter.rank": RANK, "adapter.alpha": 2.0 * RANK, "optimizer.matrix_rate": RATE,
        "run.seed": SEED, "run.compile": os.environ.get("COMPILE", "auto"),
    }  # fmt: skip
    settings = TUNING.read("chat", {key: value for key, value in changes.items() if value is not None})

    @contextlib.contextmanager
    def opened() -> Any:
        with tempfile.TemporaryDirectory() as temporary, Workspace(Path(temporary)) as ws:
            yield open_inputs(ws, settings)

    return opened()


def heldout(folder: Path, adapter: Path | None) -> float:
    """Nats per token of what assistants say in conversations that nobody learned from, with an adapter or without."""
    import torch

    from windlass.build.adapt.objectives import sft

    with _opened(folder, adapter) as opened, torch.no_grad():
        prepared = sft.prepare(opened)
        prepared.model.eval()
        return float(prepared.measure(prepared.loss, None, None).loss)


def ours(folder: Path) -> dict[str, float]:
    from windlass.build.adapt.objectives import sft
    from windlass.build.adapt.tuning import job_of
    from windlass.build.training.distributed.workers import ALONE
    from windlass.build.training.loop import steps
    from windlass.core.memory import keep_freed_memory

    keep_freed_memory()
    before = _resident()
    with _opened(folder) as opened:
        prepared = sft.prepare(opened)
        job = job_of(prepared, opened.settings, ALONE, "ddp")
        clock = Clock()
        clock.start()
        for report in steps(job.state, job.examples, job.loss_of, job.sizes, job.schedule, SEED, None):
            loss = report.loss
            clock.lap()
        peak = _peak()
        prepared.save(folder / OURS)
    return {**clock.figures(), "steps": report.step, "loss": loss, "before": before, "peak": peak}


def trl(folder: Path, name: str) -> dict[str, float]:
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    options = dict(TRL[name])
    tokens = json.loads((folder / "facts.json").read_text())["tokens"]
    steps = -(-EPOCHS * tokens // (ROW * BATCH))
    before = _resident()
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    with (folder / "train.jsonl").open() as file:
        data = datasets.Dataset.from_list([json.loads(line) for line in file])
    clock = Clock()

    class Watch(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.lap()

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=data,
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Watch()],
        args=SFTConfig(
            output_dir=str(folder / "trainer"), use_cpu=True, bf16=True, max_length=ROW, num_train_epochs=EPOCHS,
            learning_rate=RATE, lr_scheduler_type="cosine", warmup_steps=round(WARMUP * steps), weight_decay=0.0,
            max_grad_norm=1.0, optim="adamw_torch_fused", logging_steps=1000, save_strategy="no", report_to="none",
            disable_tqdm=True, dataloader_pin_memory=False, seed=SEED, **options,
        ),
    )  # fmt: skip
    found = trainer.train()
    peak = _peak()
    trainer.model.save_pretrained(folder / name)
    return {
        **clock.figures(), "steps": trainer.state.global_step, "loss": found.training_loss,
        "before": before, "peak": peak,
    }  # fmt: skip


class Clock:
    """From before the first step to the end of the last one."""

    def __init__(self) -> None:
        self.laps: list[tuple[float, float]] = []

    def start(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        self.laps.append((time.perf_counter(), time.process_time()))

    def figures(self) -> dict[str, float]:
        seconds, cpu = (after - before for before, after in zip(self.began, self.laps[-1], strict=True))
        return {"seconds": seconds, "cpu_seconds": cpu}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    import torch

    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
    print(json.dumps(ours(folder) if name == OURS else trl(folder, name)))


if __name__ == "__main__":
    main()
