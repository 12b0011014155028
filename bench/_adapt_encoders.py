"""Tuning of encoders against the trainers of transformers and of sentence-transformers: for `bench.adapt`.

    classification(rounds=5)   {"windlass": Result(per_second, qualities), "HF Trainer": ...}
    embedding(rounds=3)        {"windlass": ..., "sentence-transformers": ...}

All begin with the same weights and see the same examples as often, in batches of the same size, with the same optimizer
and rates, and without dropout. They take turns, and medians count: texts trained on a second, from the first step to
the last, batches made on the way included. Quality is measured on the same held-out texts by one piece of code for all.
Each round has its own seed, and with it another choice and order of the texts, another division and another head; what
a contender makes of it is compared round by round.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from bench._adapt_decoder import Clock
from bench._data import data_folder

from windlass.build.adapt.data.texts import TextExamples
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES, job_of
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.loop import steps
from windlass.core.workspace import Workspace

RATE, WARMUP = 1e-4, 0.03
UNDROPPED = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
Turn = Callable[[], "Result"]


@dataclass(frozen=True, slots=True)
class Result:
    per_second: float
    """Texts, or pairs; of all turns the median."""
    per_cpu_second: float
    """The same of the processors' time, which a busy machine changes less."""
    qualities: list[float]
    """Accuracy, or MRR, of each turn."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all contenders do."""

    base: str
    rows: list[dict[str, str]]
    kind: str
    batch: int
    epochs: float
    heldout: float
    """Share of the rows that quality is measured on."""
    seed: int


def trec(count: int, seed: int) -> Job:
    """Questions and what they ask for (Li & Roth 2002)."""
    with gzip.open(data_folder() / "classification/trec_qc/train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    chosen = [{"text": rows[n]["text"], "label": rows[n]["coarse"]} for n in order]
    return Job(_minilm(), chosen, "classify", 32, 1, 0.5, seed)


def abstracts(count: int, seed: int) -> Job:
    """Titles and abstracts of the Cranfield collection: which abstract belongs to a title."""
    with gzip.open(data_folder() / "retrieval/cranfield/cran.all.1400.xml.gz", "rt", encoding="utf-8") as file:
        found = re.findall(r"<title>(.*?)</title>.*?<text>(.*?)</text>", file.read(), re.DOTALL)
    rows = []
    for title, text in found:
        query, body = " ".join(title.split()), " ".join(text.split())
        body = body.removeprefix(query).strip(" .")  # abstracts repeat their title
        if query and body:
            rows.append({"query": query, "positive": body})
    return Job(_minilm(), rows[:count], "embed", 32, 1, 0.1, seed)


def classification(rounds: int = 5, count: int = 2880) -> dict[str, Result]:
    like = {"train_sampling_strategy": "group_by_length"}

    def contenders(world: World) -> dict[str, Turn]:
        return {
            "windlass": partial(world.ours, "bf16"),
            "windlass, float32": partial(world.ours, "fp32"),
            "HF Trainer": partial(world.hf_trainer, bf16=True, **like),
            "HF Trainer, float32": partial(world.hf_trainer, **like),
            "HF Trainer, float32, any order": world.hf_trainer,
        }

    return _in_turns(partial(trec, count), contenders, rounds)


def embedding(rounds: int = 3, count: int = 256) -> dict[str, Result]:
    def contenders(world: World) -> dict[str, Turn]:
        found: dict[str, Turn] = {
            "windlass": partial(world.ours, "bf16"), "windlass, float32": partial(world.ours, "fp32")
        }  # fmt: skip
        if importlib.util.find_spec("sentence_transformers") and importlib.util.find_spec("datasets"):
            found["sentence-transformers"] = partial(world.sentence_transformers, bf16=True)
            found["sentence-transformers, float32"] = world.sentence_transformers
        return found

    return _in_turns(partial(abstracts, count), contenders, rounds)


def _in_turns(
    job_of_seed: Callable[[int], Job], contenders: Callable[[World], dict[str, Turn]], rounds: int
) -> dict[str, Result]:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # theirs, each of which takes a line
    found: dict[str, list[Result]] = defaultdict(list)
    for seed in range(rounds):
        with _world(job_of_seed(seed)) as world:
            for name, run in contenders(world).items():
                one = run()
                found[name].append(one)
                said = f"{one.per_second:.1f} examples/s, quality {one.qualities[0]:.3f}"
                print(f"round {seed + 1} of {rounds}, {name}: {said}", file=sys.stderr, flush=True)
    return {
        name: Result(
            median(run.per_second for run in runs),
            median(run.per_cpu_second for run in runs),
            [quality for run in runs for quality in run.qualities],
        )
        for name, runs in found.items()
    }


class World:
    """One job, with the examples that every contender trains on and is measured by."""

    def __init__(self, ws: Workspace, folder: Path, job: Job) -> None:
        self._ws, self._job, self._folder = ws, job, folder
        rows = folder / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in job.rows), encoding="utf-8")
        self.settings = self._settings(job.base)
        self.start = job.base
        opened = open_inputs(ws, self.settings)
        prepared = OBJECTIVES[self.settings.objective.kind](opened)
        if job.kind == "classify":  # all begin with the same head
            self.start = str(folder / "start")
            prepared.save(Path(self.start))
            for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
                (folder / "start" / file).write_bytes((Path(job.base) / file).read_bytes())
            self.settings = self._settings(self.start)
        assert isinstance(prepared.examples, TextExamples)
        self.examples = prepared.examples

    def ours(self, precision: Literal["bf16", "fp32"]) -> Result:
        settings = replace(self.settings, run=replace(self.settings.run, precision=precision))
        prepared = OBJECTIVES[settings.objective.kind](open_inputs(self._ws, settings))
        job = job_of(prepared, settings, ALONE, "ddp")
        clock, count = Clock(), 0
        clock.start()
        for _ in steps(job.state, job.examples, job.loss_of, job.sizes, job.schedule, self._job.seed, None):
            count += job.sizes.batch
            clock.lap()
        return _result(clock, count, self._quality(job.measured()))

    def hf_trainer(self, **options: Any) -> Result:
        from transformers import (
            AutoModelForSequenceClassification,
            AutoTokenizer,
            DataCollatorWithPadding,
            Trainer,
        )

        tokenizer = AutoTokenizer.from_pretrained(self.start)
        model = AutoModelForSequenceClassification.from_pretrained(self.start, dtype=torch.float32, **UNDROPPED)
        rows = [
            {"input_ids": example.texts[0].ids.tolist(), "labels": int(example.targets[0])}
            for example in (self.examples[number] for number in range(len(self.examples)))
        ]
        clock = Clock()
        trainer = Trainer(
            model=model,
            args=_arguments(self._folder, self._job, **options),
            train_dataset=rows,  # type: ignore[arg-type]
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[_watch(clock)],
        )
        trainer.train()
        model.save_pretrained(self._folder / "theirs")
        return _result(clock, len(rows) * self._job.epochs, self._theirs(self._folder / "theirs"))

    def sentence_transformers(self, **options: Any) -> Result:
        from datasets import Dataset
        from sentence_transformers import (
            SentenceTransformer,
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        model = SentenceTransformer(self.start, device="cpu", config_kwargs=dict(UNDROPPED))
        decode = model.tokenizer.decode
        texts = [
            [decode(text.ids, skip_special_tokens=True) for text in self.examples[number].texts]
            for number in range(len(self.examples))
        ]
        data = Dataset.from_dict({"anchor": [pair[0] for pair in texts], "positive": [pair[1] for pair in texts]})
        clock = Clock()
        trainer = SentenceTransformerTrainer(
            model=model,
            args=_arguments(self._folder, self._job, SentenceTransformerTrainingArguments, **options),
            train_dataset=data,
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[_watch(clock)],
        )
        trainer.train()
        model.save(str(self._folder / "theirs"))
        return _result(clock, len(texts) * self._job.epochs, self._theirs(self._folder / "theirs"))

    def _theirs(self, folder: Path) -> float:
        """The quality of a folder that another library wrote, as ours measures it."""
        for file in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / file).exists():
                (folder / file).write_bytes((Path(self.start) / file).read_bytes())
        settings = self._settings(str(folder))
        prepared = OBJECTIVES[settings.objective.kind](open_inputs(self._ws, settings))
        return self._quality(job_of(prepared, settings, ALONE, "ddp").measured())

    def _settings(self, base: str) -> TuneSettings:
        from windlass.build.adapt.recipe import TUNING

        job = self._job
        return TUNING.read(
            job.kind,
            {
                "model.base": base, "data.dataset": str(self._folder / "rows.jsonl"), "data.batch": job.batch,
                "data.epochs": job.epochs, "data.heldout": job.heldout, "data.overlong": "cut",
                "optimizer.matrix_rate": RATE, "run.precision": "fp32", "run.seed": job.seed,
            },
        )  # fmt: skip

    def _quality(self, figures: Any) -> float:
        return float(figures.metrics()["heldout_accuracy" if self._job.kind == "classify" else "heldout_mrr"])


def _result(clock: Clock, examples: float, quality: float) -> Result:
    figures = clock.figures()
    return Result(examples / figures["seconds"], examples / figures["cpu_seconds"], [quality])


def _watch(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            if not clock.laps:
                clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.lap()

    return Watch()


def _arguments(folder: Path, job: Job, kind: Any = None, **options: Any) -> Any:
    from transformers import TrainingArguments

    return (kind or TrainingArguments)(
        output_dir=str(folder / "trainer"),
        use_cpu=True,
        optim="adamw_torch_fused",
        learning_rate=RATE,
        weight_decay=0.01,
        lr_scheduler_type="cosine",
        warmup_steps=round(WARMUP * job.epochs * len(job.rows) / job.batch),
        max_grad_norm=1.0,
        per_device_train_batch_size=job.batch,
        num_train_epochs=job.epochs,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=job.seed,
        **options,
    )


def _minilm() -> str:
    from windlass.build.adapt.opening import _MINILM_PACKAGE

    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package with all-MiniLM-L6-v2 is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")


@contextlib.contextmanager
def _world(job: Job) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder, Workspace(Path(folder)) as ws:
        yield World(ws, Path(folder), job)
