"""The dry run of a tuning: the dataset described, every input opened, memory, time and disk told, nothing trained.

What a pass keeps is counted on the model itself, adapter and all, with one row and with some more: the difference is
what each further token takes, of which the largest pass has so many. The time is that of a real pass, so it holds for
this machine as busy as it is now.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from windlass.build.adapt.data.describing import DatasetReport, Lengths, describe
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.sources import asked_of
from windlass.build.adapt.data.wording import text_of
from windlass.build.adapt.objectives.hidden import Pupil
from windlass.build.adapt.objectives.preparing import Prepared
from windlass.build.adapt.objectives.sft import encoded_rows
from windlass.build.adapt.opening import Opened, evaluation_of, given_rows, open_inputs
from windlass.build.adapt.peft.quantised import numbers, told
from windlass.build.adapt.settings import TuneSettings
from windlass.build.adapt.tuning import OBJECTIVES, job_of
from windlass.build.tokenizer import batches
from windlass.build.training.checking import Check
from windlass.build.training.checks.footprint import (
    Memory,
    available,
    bytes_of_logit,
    counted_activations,
    most_resident,
    resident,
)
from windlass.build.training.data.batches import Batch, DataState, OnPolicy, take, updates
from windlass.build.training.distributed.workers import ALONE
from windlass.build.training.fitting import Fit, Say
from windlass.build.training.head import chunk_size
from windlass.build.training.settings import budget_seconds
from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.core.workspace import Workspace

_FLOAT = 4
_FEW, _PASSES = 4, 200
_HOLES = 0.25
"""Of what passes keep: freed memory that the next pass, whose rows are of other lengths, has no use for as it lies."""
_LIBRARIES = 64 << 20
"""What PyTorch and oneDNN load and compile when they first train, beside what they took before."""
_COPIES = 3
"""Checkpoints that exist at once: two stay, and an old one goes only when the new one is whole."""
Line = tuple[str, str, str]


def open_uncompiled(ws: Workspace, settings: TuneSettings) -> Opened:
    """The inputs for a look at them, which compiling would only delay."""
    return open_inputs(ws, replace(settings, run=replace(settings.run, compile="no")))


def describe_dataset(ws: Workspace, opened: Opened) -> DatasetReport:
    """What was given, before curation. Raises the error that training would raise for a row it cannot read."""
    rows = given_rows(ws, opened.settings)
    whole = opened.settings.objective.kind != "continue"  # else documents go on from row to row
    limit = opened.settings.model.context or opened.context if whole else None
    return describe(rows, _lengths(opened, rows), limit=limit, evaluation=evaluation_of(ws, opened.settings))


def check_tuning(ws: Workspace, opened: Opened, workers: int = 1, *, say: Say = print) -> Check:
    """Prepares all that training would, runs passes forward and back, and throws them away. Raises the error that
    training would raise."""
    process, free = resident(), available()  # before the weights are there
    prepared = OBJECTIVES[opened.settings.objective.kind](opened)
    for line in (*opened.notes, *prepared.lines):
        say(line)
    job = job_of(prepared, opened.settings, ALONE, "ddp")
    micro = min(job.sizes.micro_batch, max(1, job.sizes.batch // workers))
    memory = planned_memory(prepared, job, micro, process)
    need = memory.total * workers
    here = free is None or need - memory.process <= free
    rows = [
        *_plan(prepared, job, micro, workers),
        *((f"memory: {name}", _mb(size), "") for name, size in memory.rows() if size),
    ]
    told = "this machine does not tell its memory" if free is None else f"{_mb(free)} of memory, free now"
    rows.append(("memory in all", _mb(need), f"for {workers} workers, {told}" if workers > 1 else told))
    rows.append(_time(prepared, job, micro, workers) if here else ("time", "not measured", "it does not fit"))
    if here:  # a plan leaves out what libraries take for themselves; the pass that was timed did not
        reached = most_resident() + memory.optimizer + memory.average
        rows.append(("memory measured", _mb(reached), "the most that this check held, and what the optimizer adds"))
        here = free is None or max(need, reached * workers) - process <= free
    disk, left = _disk_needed(prepared), shutil.disk_usage(ws.root).free
    rows.append(("disk", _mb(disk), f"{_mb(left)} free, checkpoints and what is stored"))
    return Check(rows, here and disk <= left)


def _lengths(opened: Opened, rows: list[Row]) -> Lengths:
    kind: str = opened.settings.objective.kind
    if opened.config.decoder_layers:
        pairs = asked_of(opened, rows)
        return Lengths(np.array([len(pair) for pair in pairs]), sum(len(pair.answer) for pair in pairs))
    if kind in ("sft", "distil") and opened.config.causal:
        encoded = encoded_rows(opened, rows)
        return Lengths(np.array([len(one) for one in encoded]), sum(int(one.learned.sum()) for one in encoded))
    encodings = (opened.tokenizer.encode_batch_fast(texts) for texts in batches(map(text_of, rows)))
    return Lengths(np.array([len(one.ids) for some in encodings for one in some], np.int64))


def _plan(prepared: Prepared, job: Fit[Any], micro: int, workers: int) -> list[Line]:
    trained, every = _trained(prepared.model), numbers(prepared.model)
    steps = job.schedule.steps
    ends = f"{steps:,} steps" if steps is not None else f"{(budget_seconds(job.schedule) or 0) / 60:g} minutes"
    epochs = "" if steps is None else f"{steps * job.sizes.batch / len(prepared.examples):.2f} epochs"
    return [
        ("parameters trained", f"{trained:,}", f"of {every:,}, {trained / every:.2%}{told(prepared.model)}"),
        ("rows an epoch", f"{len(prepared.examples):,}", f"of {prepared.positions:,} positions at most"),
        ("step", f"{job.sizes.batch} rows", f"{micro} at a time, {workers} at work"),
        ("training", ends, epochs),
    ]


def planned_memory(prepared: Prepared, job: Fit[Any], micro: int, process: int) -> Memory:
    """On one worker, whose passes read `micro` rows; `process`: bytes that Python and PyTorch take."""
    model, state = prepared.model, job.state
    models = (model,) if prepared.beside is None else (model, prepared.beside)
    weights = sum(one.nbytes for part in models for one in (*part.parameters(), *part.buffers()))
    trained = _trained(model) * _FLOAT
    largest = _largest(prepared, job, micro)
    activations = _activations(prepared, largest)
    blocks = sum(isinstance(module, Block) for module in model.modules())
    width = 2 if job.asked.precision == "bf16" else _FLOAT
    head = 0
    inner = model.decoder if isinstance(model, Pupil) else model
    if isinstance(inner, Decoder | EncoderDecoder):
        head = min(largest.counted, _chunk(inner)) * inner.config.vocab_size * bytes_of_logit(width)
    return Memory(
        process=process,
        weights=weights,
        gradients=trained,
        optimizer=sum(tensor.numel() * tensor.element_size() for tensor in state.optimizers.tensors().values()),
        average=trained if state.average is not None else 0,
        activations=activations,
        head=head,
        working=activations // max(blocks, 1) + round(_HOLES * activations) + _LIBRARIES,
    )


def _chunk(model: Decoder | EncoderDecoder) -> int:
    """Positions whose logits are there at once."""
    trained = model.output_weight.requires_grad
    return chunk_size(model.config.vocab_size, trained=trained)


def _activations(prepared: Prepared, largest: Batch) -> int:
    """Bytes that the largest pass keeps until its way back, from two passes over few rows. Rows are of different
    lengths, so what counts is the tokens in them."""
    sizes = []
    for rows in (1, 1 + _FEW):
        batch = _batch(prepared, rows)
        with counted_activations(prepared.model) as kept:
            prepared.loss(batch)
            sizes.append((batch.tokens, kept()))
    (tokens, few), (more_tokens, more) = sizes
    each = (more - few) / (more_tokens - tokens) if more_tokens > tokens else more / more_tokens
    return round(few + max(each, 0.0) * (largest.tokens - tokens))


def _largest(prepared: Prepared, job: Fit[Any], micro: int) -> Batch:
    """Of the first passes of a run, the one with the most tokens."""
    examples = prepared.examples
    if isinstance(examples, OnPolicy):  # what will be written is not there yet
        return _batch(prepared, micro)
    state, found = DataState(), None
    for _ in range(min(_PASSES, -(-len(examples) // micro))):
        numbers, state = take(examples, state, micro, job.asked.seed)
        batch = examples.batch(numbers)
        found = batch if found is None or batch.tokens > found.tokens else found
    assert found is not None
    return found


def _time(prepared: Prepared, job: Fit[Any], micro: int, workers: int) -> Line:
    batch = _batch(prepared, micro)
    seconds = []
    for _ in range(2):  # the first one warms up
        began = time.perf_counter()
        torch.autograd.backward(prepared.loss(batch).sum)
        prepared.model.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - began)
    passes = -(-job.sizes.batch // (micro * workers))
    step = passes * min(seconds)
    steps = job.schedule.steps
    written = ", the writing of answers left out" if isinstance(prepared.examples, OnPolicy) else ""
    told = f"{step:.2f} s a step, not compiled{written}"
    return ("time", "as scheduled" if steps is None else f"about {_span(step * steps)}", told)


def _batch(prepared: Prepared, rows: int) -> Batch:
    count = len(prepared.examples)
    (first, *_), *_ = updates(prepared.examples, [(0, number % count) for number in range(rows)], 0, rows)
    return first


def _trained(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _disk_needed(prepared: Prepared) -> int:
    """Bytes: checkpoints hold what is trained and two moments of it; what is stored is an adapter or everything."""
    trained = _trained(prepared.model)
    stored = trained if prepared.kind == "adapter" else sum(one.numel() for one in prepared.model.parameters())
    return (_COPIES * 3 * trained + stored) * _FLOAT


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
