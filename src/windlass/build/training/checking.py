"""The dry run of a training: everything that can go wrong, found before hours are spent, and nothing trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from windlass.build.training.checks.footprint import Memory, available, estimate
from windlass.build.training.checks.preflight import check_inputs, check_text, disk_needed
from windlass.build.training.job import Inputs, Texts, open_inputs, read_texts
from windlass.build.training.settings import PretrainSettings, budget_seconds
from windlass.build.training.start import first_model
from windlass.core.artifacts import Artifact
from windlass.core.tables import table
from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Check:
    rows: list[tuple[str, str, str]]
    """What was looked at, what was found, and a remark."""
    fits: bool
    """Whether memory and disk are enough."""

    def render(self) -> str:
        verdict = "ready to train" if self.fits else "this does not fit here"
        return f"{table(('checked', 'found', ''), self.rows, right=(1,))}\n\n{verdict}"


def check_run(
    ws: Workspace, corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings, workers: int = 1
) -> Check:
    """Opens every input and reads the whole text as training would, which then need not do it again. Raises the error
    that training would raise."""
    check_inputs(corpus, tokenizer)
    inputs = open_inputs(ws, corpus, tokenizer, settings)
    texts = read_texts(inputs)
    warnings = [line for line in check_text(texts.train, texts.heldout, inputs.sizes) if "warning" in line]
    if inputs.base is not None:
        first_model(inputs.sizes.model, inputs.base, settings.run.seed)  # its tensors are there and fit
    rows = _inputs(inputs, texts, warnings)
    memory, first = _memory(inputs, texts, workers)
    disk, second = _disk(ws, inputs)
    return Check([*rows, *memory, *disk], first and second)


def _inputs(inputs: Inputs, texts: Texts, warnings: list[str]) -> list[tuple[str, str, str]]:
    settings, sizes, model = inputs.settings, inputs.sizes, inputs.sizes.model
    steps = settings.schedule.steps
    ends = f"{steps:,} steps" if steps is not None else f"{(budget_seconds(settings.schedule) or 0) / 60:g} minutes"
    epochs = "" if steps is None else f"{steps * sizes.batch / len(texts.examples):.2f} epochs"
    layers = f"{model.layers} + {model.decoder_layers}" if model.decoder_layers else f"{model.layers}"
    counted = texts.examples.batch([(0, 0)]).counted
    return [
        ("corpus", inputs.corpus.ref, f"{texts.train.documents:,} documents, {texts.train.bytes / 1e6:,.1f} MB"),
        ("tokenizer", inputs.tokenizer.ref, f"{inputs.loaded.get_vocab_size():,} tokens, fits the model"),
        ("training text", f"{len(texts.train):,} tokens", "; ".join(warnings)),
        ("held-out text", f"{len(texts.heldout):,} tokens", ""),
        ("examples an epoch", f"{len(texts.examples):,}", f"{counted} targets in the first one"),
        (
            "model",
            f"{model.parameters:,} parameters",
            f"{layers} layers, width {model.hidden}, context {sizes.context}",
        ),
        ("objective", settings.objective_kind, f"{settings.model.architecture}, {settings.optimizer.kind}"),
        (
            "step",
            f"{sizes.batch_tokens:,} tokens",
            f"{sizes.batch} sequences, {sizes.micro_batch} at a time",
        ),
        ("training", ends, epochs),
    ]


def _memory(inputs: Inputs, texts: Texts, workers: int) -> tuple[list[tuple[str, str, str]], bool]:
    sizes = inputs.sizes
    rows = min(sizes.micro_batch, max(1, sizes.batch // workers))
    count = len(texts.examples)
    batch = texts.examples.batch([(0, number % count) for number in range(rows)])
    found: Memory = estimate(inputs.settings, sizes, batch)
    free = available()
    total = found.total * workers
    fits = free is None or total - found.process <= free
    remark = "of memory, free now" if free is not None else "this machine does not tell its memory"
    shown = [(f"memory: {name}", _mb(size), "") for name, size in found.rows() if size]
    each = f"for {workers} workers, " if workers > 1 else ""
    return [*shown, ("memory in all", _mb(total), f"{each}{_mb(free)} {remark}" if free else remark)], fits


def _disk(ws: Workspace, inputs: Inputs) -> tuple[list[tuple[str, str, str]], bool]:
    need, free = disk_needed(inputs.sizes), shutil.disk_usage(ws.root).free
    return [("disk", _mb(need), f"{_mb(free)} free, checkpoints and the model")], need <= free


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
