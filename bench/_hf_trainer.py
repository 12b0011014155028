"""A peer of `bench.pretrain`: the Trainer of Hugging Face transformers with the options that make it fast on a CPU."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from bench._pretrain_job import Job, OnStep
from torch import nn


class Windows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """One window of the shard an item: the tokens are the labels too, the model shifts them itself."""

    def __init__(self, job: Job) -> None:
        self.windows = job.windows()[: job.batch * job.steps, :-1]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.from_numpy(self.windows[index].astype("int64"))
        return {"input_ids": tokens, "labels": tokens}


def train(job: Job, on_step: OnStep, *, compiled: bool) -> nn.Module:
    """Trains as `job` says, telling `on_step` the loss of each step; the trained model."""
    from transformers import LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    model = LlamaForCausalLM.from_pretrained(
        job.folder / "start", attn_implementation="sdpa", dtype=torch.float32, use_cache=False
    )

    class Turns(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                on_step(float(logs["loss"]))

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, job.multiplier)
            return self.lr_scheduler

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            use_cpu=True,
            bf16=True,
            torch_compile=compiled,
            optim="adamw_torch_fused",
            learning_rate=job.rate,
            weight_decay=job.weight_decay,
            adam_beta1=job.betas[0],
            adam_beta2=job.betas[1],
            max_grad_norm=job.clip,
            per_device_train_batch_size=job.batch,
            max_steps=job.steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            dataloader_num_workers=0,
            skip_memory_metrics=True,
            remove_unused_columns=False,
        )
        trainer = InOrder(model=model, args=arguments, train_dataset=Windows(job), callbacks=[Turns()])
        from transformers.trainer_callback import PrinterCallback

        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model
