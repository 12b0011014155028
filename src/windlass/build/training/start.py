"""Where the weights of a run come from: random numbers, or a model to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from windlass.build.tokenizer import load_tokenizer
from windlass.build.training.settings import FITTING, PretrainSettings
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.hf import load_config, load_model
from windlass.build.transformer.init import initialise
from windlass.build.transformer.model import Model, model_of
from windlass.core.artifacts import Artifact
from windlass.core.errors import InputError
from windlass.core.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Base:
    """A model to go on from."""

    folder: Path
    config: TransformerConfig
    artifact: Artifact | None
    """None for a folder outside the workspace."""


def find_base(ws: Workspace, settings: PretrainSettings) -> Base | None:
    """The model that `model.init_from` names, a folder or an artifact. Raises `InputError` when it cannot be used."""
    name = settings.model.init_from
    if name is None:
        return None
    artifact = None if Path(name).is_dir() else ws.artifacts.get(name)
    if artifact is not None and artifact.kind != "model":
        raise InputError(f"model.init_from: {artifact.ref} is of kind '{artifact.kind}', not a model.", "Name a model.")
    folder = Path(name) if artifact is None else artifact.path
    config = load_config(folder)
    found = "encoder-decoder" if config.decoder_layers else "decoder" if config.causal else "encoder"
    if found != settings.model.architecture:
        raise InputError(
            f"model.init_from: {name} is a model of architecture '{found}', but the recipe trains an "
            f"'{settings.model.architecture}' ({', '.join(FITTING[settings.model.architecture])}).",
            f'Set model.architecture to "{found}", or name another model.',
        )
    return Base(folder, config, artifact)


def check_tokenizer(base: Base, tokenizer: Artifact) -> None:
    """The model must know the tokens by the same numbers. Raises `InputError` naming the first that differs."""
    given = load_tokenizer(tokenizer).get_vocab()
    hint = "Use the tokenizer that the model was trained with."
    if (base.folder / "tokenizer.json").exists():
        known = load_tokenizer(base.folder).get_vocab()
        for token, number in sorted(given.items(), key=lambda item: item[1]):
            if known.get(token) != number:
                stands = f"is {known[token]} there" if token in known else "is unknown there"
                raise InputError(
                    f"{tokenizer.ref} does not match {base.folder}: token {token!r} is number {number} and {stands}.",
                    hint,
                )
    highest = max(given.values())
    if highest >= base.config.vocab_size:
        raise InputError(
            f"{tokenizer.ref} does not match {base.folder}: it has {highest + 1:,} tokens, the model "
            f"{base.config.vocab_size:,}.",
            hint,
        )


def first_model(config: TransformerConfig, base: Base | None, seed: int) -> Model:
    """The model before its first step. Raises `InputError` naming a missing, unknown or misshapen tensor of `base`."""
    if base is None:
        model = model_of(config)
        initialise(model, seed)
        return model
    loaded = load_model(base.folder)
    if not config.headless or loaded.config.headless:
        return loaded.train()
    bare = Encoder(config)  # trained on pairs, an encoder needs no head
    weights: dict[str, Any] = loaded.state_dict()
    bare.load_state_dict({name: weights[name] for name in bare.state_dict()})
    return bare
