"""Everything that a run needs before its first step, made and checked in the order in which mistakes are likely."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from windlass.build.corpus import training_text
from windlass.build.corpus.split import Split
from windlass.build.tokenizer import Specials, load_specials, load_tokenizer
from windlass.build.training.bigram import bigram_start
from windlass.build.training.checkpoints import checkpoint
from windlass.build.training.checks.preflight import check_disk, check_text, check_workers
from windlass.build.training.compiling import prepare
from windlass.build.training.data.batches import Examples
from windlass.build.training.data.shard import Shard, write_shard
from windlass.build.training.distributed.parallel import Kind, Spread
from windlass.build.training.distributed.workers import Workers
from windlass.build.training.examples import LOSSES, examples_of
from windlass.build.training.fitting import Fit, Say, Tick
from windlass.build.training.loop import TrainState
from windlass.build.training.measuring.heldout import HeldOut, score, score_examples
from windlass.build.training.objectives import Arithmetic
from windlass.build.training.optim.average import Average
from windlass.build.training.optim.groups import pretraining_groups
from windlass.build.training.optim.optimizers import Optimizers
from windlass.build.training.optim.schedule import Plan
from windlass.build.training.pace import UNPLANNED
from windlass.build.training.settings import PretrainSettings
from windlass.build.training.sizes import Sizes, derive
from windlass.build.training.start import Base, check_tokenizer, find_base, first_model
from windlass.build.transformer.decoder import Decoder
from windlass.core.artifacts import Artifact
from windlass.core.files import disk_errors, sha256_json
from windlass.core.progress import tracked
from windlass.core.workspace import Workspace

SPLITS: tuple[Split, Split] = ("train", "heldout")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a person gave, opened and found to fit together."""

    corpus: Artifact
    tokenizer: Artifact
    settings: PretrainSettings
    loaded: Any
    """The tokenizer itself."""
    specials: Specials
    base: Base | None
    sizes: Sizes
    derivations: list[str]
    tokens: Path
    """Folder of the tokenized text, shared by all runs that read the same; whatever is missing there is made again."""


@dataclass(frozen=True, slots=True)
class Texts:
    train: Shard
    heldout: Shard
    examples: Examples
    """To train on."""
    unseen: Examples
    """Held out, the same for every run."""


@dataclass(slots=True)
class Job:
    inputs: Inputs
    texts: Texts
    math: Arithmetic
    fit: Fit[HeldOut]


def open_inputs(ws: Workspace, corpus: Artifact, tokenizer: Artifact, settings: PretrainSettings) -> Inputs:
    """Raises `InputError` for what cannot work together, before anything is read at length."""
    loaded, specials = load_tokenizer(tokenizer), load_specials(tokenizer)
    base = find_base(ws, settings)
    if base is not None:
        check_tokenizer(base, tokenizer)
    sizes, derivations = derive(settings, loaded.get_vocab_size(), None if base is None else base.config)
    kinds = sorted(settings.data.kinds) if settings.data.kinds else None
    tokens = ws.root / "tokens" / sha256_json([corpus.digest, tokenizer.digest, kinds])[:16]
    return Inputs(corpus, tokenizer, settings, loaded, specials, base, sizes, derivations, tokens)


def read_texts(inputs: Inputs) -> Texts:
    """Tokenizes both splits, or takes what an earlier run has tokenized."""
    settings, sizes = inputs.settings, inputs.sizes
    train, heldout = (_shard(inputs, split) for split in SPLITS)
    examples, unseen = (
        examples_of(settings, sizes.context, shard, inputs.loaded.get_vocab_size(), inputs.specials, seed)
        for shard, seed in ((train, settings.run.seed), (heldout, 0))
    )
    return Texts(train, heldout, examples, unseen)


def _shard(inputs: Inputs, split: Split) -> Shard:
    texts = tracked(
        training_text(inputs.corpus, split, inputs.settings.data.kinds), f"tokenize {split} text", None, "documents"
    )
    with disk_errors(inputs.tokens):
        inputs.tokens.mkdir(parents=True, exist_ok=True)
    return write_shard(inputs.tokens / f"{split}.bin", texts, inputs.loaded, inputs.specials.separator)


def prepare_job(inputs: Inputs, folder: Path, workers: Workers, parallel: Kind, say: Say) -> Job:
    """The job as it stands: fresh, or as the last checkpoint in `folder` left it. Says what it does."""
    settings, sizes = inputs.settings, inputs.sizes
    for line in inputs.derivations:
        say(f"  {line}")
    check_workers(workers, parallel, settings, sizes)
    say(f"  {check_disk(folder, sizes)}")
    if not workers.leads:
        workers.told("text")  # is ready, and no worker reads the checkpoints before they are in order
    texts = read_texts(inputs)
    if workers.leads:
        checkpoint.discard_unfinished(folder)
        workers.told("text", True)
    for line in check_text(texts.train, texts.heldout, sizes):
        say(f"  {line}")
    model = first_model(sizes.model, inputs.base, settings.run.seed)
    math, how = prepare(model, settings)
    say(f"  {how}")
    saved = checkpoint.load(folder)
    if saved is None and workers.leads and inputs.base is None and isinstance(model, Decoder):
        reached = bigram_start(model, texts.train)
        if reached is not None:
            say(f"  embedding and head fitted to the bigram counts: {reached:.3f} nats a token before the first step")
    loss_of = Spread(model, partial(LOSSES[settings.objective_kind], model, math=math), workers, parallel)
    steps = settings.schedule.steps
    state = TrainState(
        model,
        Optimizers(model, pretraining_groups(model, sizes, settings.optimizer), settings.optimizer),
        UNPLANNED if steps is None else Plan(steps),
        Average(model, settings.optimizer.ema) if settings.optimizer.ema else None,
    )
    measure = partial(_measured, settings, sizes, texts, loss_of)
    fit = Fit("pre-training", state, texts.examples, loss_of, sizes, settings.schedule, settings.run, measure)
    if saved is not None:
        fit.take_up(saved)
        say(f"  going on from step {state.step:,} after {fit.elapsed_before:.0f} s of training")
    return Job(inputs, texts, math, fit)


def _measured(
    settings: PretrainSettings,
    sizes: Sizes,
    texts: Texts,
    loss_of: Spread,
    most: int | None = None,
    tick: Tick | None = None,
) -> HeldOut:
    if settings.objective_kind != "causal":
        return score_examples(loss_of.shared, texts.unseen, batch=sizes.micro_batch, most=most, tick=tick)
    return score(loss_of.shared, sizes.context, texts.heldout, isolate=settings.data.isolate, most=most, tick=tick)
