"""What is made of adapters that are stored already: one model of base and adapter, one adapter of several."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windlass.build.adapt.peft.attaching import attach_adapter, merge, transformer_of
from windlass.build.adapt.peft.beginning import read_for
from windlass.build.adapt.peft.bodies import Body, Whole, body_of
from windlass.build.adapt.peft.composing import How, combined
from windlass.build.adapt.peft.quantised import quantise
from windlass.build.transformer.adapters.base import base_name_of, bits_of, check_base, task_of
from windlass.build.transformer.adapters.parts import Adapter, LowRank
from windlass.build.transformer.adapters.writing import write_adapter
from windlass.build.transformer.classifier import Classifier
from windlass.build.transformer.embedder_files import Embedder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.hf import weights_digest
from windlass.build.transformer.reward_model import RewardModel
from windlass.core.artifacts import Artifact
from windlass.core.chat_template import TEMPLATE_FILE
from windlass.core.errors import InputError, NotFound
from windlass.core.workspace import Workspace

MERGE_ERROR = 1e-3
"""Above this a merge is refused: float32 gives about a hundredth of it."""
_BESIDE = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TEMPLATE_FILE
)  # fmt: skip
_STEPS = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling/config.json")


@dataclass(frozen=True, slots=True)
class Stored:
    """An adapter and its base, of the workspace or outside."""

    name: str
    adapter: Path
    base: Path
    base_name: str
    parents: tuple[tuple[str, Artifact], ...]

    def read(self) -> tuple[Body, Adapter]:
        """The base as the adapter was trained in it, and the adapter. Raises `InputError` when they do not belong
        together."""
        check_base(self.adapter, weights_digest(self.base), self.base_name)
        body = body_of(self.base, self.adapter)
        adapter = read_for(body.model, self.adapter, body.links, body.tied)
        if body.needs is not None and body.needs not in adapter.whole:
            raise InputError(
                f"{self.name} was trained with a head, but holds none ('{body.needs}').",
                "Train it with modules_to_save, or save it again.",
            )
        return body, adapter


def stored(ws: Workspace | None, adapter: str, base: str | None = None) -> Stored:
    """`adapter`: an artifact, or a PEFT folder; `base`: left out, the one that the artifact was trained on, or else the
    folder that the adapter's file names.

    Raises `NotFound`, and `InputError` for other kinds and where nothing says what the base is.
    """
    parents: list[tuple[str, Artifact]] = []
    if Path(adapter).is_dir():
        folder = Path(adapter)
    else:
        artifact = _of_kind(ws, adapter, "adapter")
        parents.append(("adapter", artifact))
        folder = artifact.path
        known = dict(artifact.record.parents)
        base = base or known.get("base")
    base = base or _named_base(folder)
    if base is None:
        raise InputError(f"Nothing says on which model {adapter} was trained.", "Name it with --base.")
    if Path(base).is_dir():
        return Stored(adapter, folder, Path(base), base, tuple(parents))
    model = _of_kind(ws, base, "model")
    return Stored(adapter, folder, model.path, model.ref, (("base", model), *parents))


def _named_base(folder: Path) -> str | None:
    """The folder that the adapter's file calls its base, if it is there; `check_base` sees whether it is the same."""
    named = base_name_of(folder)
    return named if named is not None and Path(named).is_dir() else None


def facts(one: Stored) -> dict[str, Any]:
    """What the adapter is, for the person who asks."""
    _, adapter = one.read()
    found: dict[str, Any] = {"base": one.base_name, "maps": len(adapter.parts)}
    if (bits := bits_of(one.adapter)) is not None:
        found["base_bits"] = bits
    if adapter.virtual is not None:
        found |= {"kind": adapter.virtual.kind, "virtual_tokens": len(adapter.virtual.vectors)}
    low = [part for part in adapter.parts.values() if isinstance(part, LowRank)]
    if low:
        kind = "rslora" if low[0].rooted else "lora"
        found["kind"] = kind if low[0].magnitude_N is None else "dora"
        found["ranks"] = sorted({part.rank for part in low})
        found["scales"] = sorted({part.scale for part in low})
    elif adapter.parts:
        found["kind"] = "ia3"
    if adapter.rows:
        found["tokens"] = sorted({number for rows in adapter.rows.values() for number in rows.ids})
    return found | {
        "places": sorted({name.rpartition(".")[2] for name in adapter.parts}),
        "whole": sorted(adapter.whole),
    }


def merge_stored(ws: Workspace, one: Stored, name: str) -> Artifact:
    """Stores the model that base and adapter are together. Its card says what `write_merged` found."""
    with ws.artifacts.build("model", name) as draft:
        for role, parent in one.parents:
            draft.add_parent(role, parent)
        facts = write_merged(one, draft.path)
        draft.card.update({"description": f"{one.base_name} and an adapter in one", **facts})
    return draft.done


def write_merged(one: Stored, folder: Path) -> dict[str, Any]:
    """Writes the model that base and adapter are together, in float32, and says how far its outputs lie from theirs;
    what is further off than `MERGE_ERROR` is refused.

    An adapter of a base in few bits is merged into the rounded weights that it was trained beside; then it is also said
    how far the outputs lie from them when it stands beside the weights as they were."""
    body, adapter = one.read()
    model, bits = body.model, bits_of(one.adapter)
    facts: dict[str, Any] = {}
    whole = None
    if bits is not None:
        whole = one.read()[0].model
        attach_adapter(whole, adapter)
        quantise(model, bits)
    attach_adapter(model, adapter)
    beside = _outputs(model)
    if whole is not None:
        facts = {"base_bits": bits, "error_beside_whole_base": _away(_outputs(whole), beside)}
        del whole
    merge(model)
    error = _away(_outputs(model), beside)
    if not error <= MERGE_ERROR:
        raise InputError(
            f"The merged model's outputs are {error:.1e} away from those of {one.base_name} with its adapter.",
            "Keep the two apart: `windlass serve BASE --lora NAME=ADAPTER`.",
        )
    body.save(folder)
    for file in _BESIDE:
        places = [where / file for where in (one.adapter, one.base)]  # a template may come with the adapter
        if (found := next((place for place in places if place.is_file()), None)) is not None:
            shutil.copyfile(found, folder / file)
    return {"merge_error": error, **facts}


def combine_stored(
    ws: Workspace,
    ones: Sequence[tuple[Stored, float]],
    name: str,
    how: How = "cat",
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Artifact:
    """Stores the weighted sum of adapters of one base; the card says how far it lies from the exact one. Raises as
    `combined` does."""
    first = ones[0][0]
    if other := next((one for one, _ in ones if one.base.resolve() != first.base.resolve()), None):
        raise InputError(
            f"{other.name} is for the base {other.base_name}, but {first.name} for {first.base_name}.",
            "Combine adapters of one base.",
        )
    bits = {bits_of(one.adapter) for one, _ in ones}
    if len(bits) > 1:
        raise InputError(
            "Some of the adapters were trained beside a base in few bits, others beside one in more.",
            "Merge each into its base, or train them beside the same.",
        )
    body, adapter = first.read()
    others = [(one.read()[1], weight) for one, weight in ones[1:]]
    found = combined([(adapter, ones[0][1]), *others], how, rank, density, seed)
    digest = weights_digest(first.base)
    with ws.artifacts.build("adapter", name) as draft:
        parents = {(role, parent.digest) for one, _ in ones for role, parent in one.parents}
        for role, parent in sorted(parents):
            draft.add_parent(role, parent)
        task, state = task_of(first.adapter), body.model.state_dict()
        own = bits.pop()
        for file in _STEPS:
            if (first.adapter / file).is_file():
                (draft.path / file).parent.mkdir(exist_ok=True)
                shutil.copyfile(first.adapter / file, draft.path / file)
        write_adapter(
            draft.path, found.adapter, body.links, state, base=first.base_name, digest=digest, bits=own, task=task
        )
        weights = {one.name: weight for one, weight in ones}
        thinned = {} if density is None else {"density": density}
        if how.startswith("dare"):
            thinned["seed"] = seed
        told = {"how": how, "weights": weights, **thinned, "lost": found.lost}
        draft.card.update({"description": f"sum of {len(ones)} adapters", **told})
    return draft.done


def _away(outputs: Tensor, those: Tensor) -> float:
    return float((outputs - those).abs().max() / those.abs().max())


@torch.inference_mode()
def _outputs(model: Whole) -> Tensor:
    """What a model makes of tokens drawn by chance."""
    config = transformer_of(model).config
    count = min(64, config.context)
    tokens_1T = torch.randint(config.vocab_size, (1, count), generator=torch.Generator().manual_seed(0))
    if isinstance(model, RewardModel):
        return model(tokens_1T.repeat(1, 2)[0, : count + count // 2], [count, count // 2])
    if isinstance(model, Classifier | Embedder):
        return model(tokens_1T, [count])
    return model.hidden(tokens_1T, tokens_1T) if isinstance(model, EncoderDecoder) else model.hidden(tokens_1T)


def _of_kind(ws: Workspace | None, name: str, kind: str) -> Artifact:
    if ws is None:
        raise NotFound(f"There is no folder '{name}', and no workspace here.", "Check the path.")
    artifact = ws.artifacts.get(name)
    if artifact.kind != kind:
        raise InputError(
            f"{artifact.ref} is of kind '{artifact.kind}', not '{kind}'.", f"Name an artifact of kind {kind}."
        )
    return artifact
