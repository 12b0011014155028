"""An adapter read from PEFT's files, strictly: one that does not hold exactly what its configuration says is refused by
name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from windlass.build.transformer.adapters.files import PREFIX, key_of, kinds_of, present, tensors_of
from windlass.build.transformer.adapters.modules import adaptable
from windlass.build.transformer.adapters.parts import Adapter, LowRank, Part, Rescaled, divided
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.build.transformer.adapters.row_files import SUFFIX, read_rows
from windlass.build.transformer.families.links import Link
from windlass.core.errors import InputError, Unsupported


def read_adapter(
    folder: Path,
    recipe: Recipe,
    tables: Iterable[Sequence[Link]],
    shapes: Mapping[str, Sequence[int]],
    tied: str | None = None,
) -> Adapter:
    """The adapter in `folder`, in float32, for a model of these shapes (by our names).

    `tables`: the links of the families that the model may be of; the one that knows all modules of the file is meant.
    `tied`: what the head's matrix is called in the base, where the embedding is the head (`hf.tied_head`).

    Raises `InputError` naming the key that is missing, unknown or of another shape, and `Unsupported` for what adapters
    can be but these cannot.
    """
    path = present(folder, WEIGHTS)
    tensors = tensors_of(path)
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(f"{path}: '{key}' holds numbers that are not finite.", "Its training diverged.")
    rows = {key: tensors.pop(key) for key in [key for key in tensors if key.endswith(SUFFIX)]}
    modules, others = _modules_of(tensors, recipe, str(path))
    links = _meant(tables, modules, str(path))
    targets = adaptable(links)
    chosen = recipe.chosen(targets)
    kind = kinds_of(recipe)[0]
    for module in sorted(chosen | modules):
        if module not in modules:
            raise InputError(
                f"{path} lacks '{key_of(module, kind)}', which target_modules of {CONFIG} promises.",
                "The file was cut short, or the adapter was made for a model with fewer layers.",
            )
        if module not in chosen:
            raise InputError(f"{path} holds '{key_of(module, kind)}', which target_modules of {CONFIG} does not name.")
    parts: dict[str, Part] = {}
    for module in sorted(modules):
        parts |= _parts(module, targets[module], shapes, recipe, tensors, str(path))
    if tied is not None:
        others = _without_copy(others, links, tensors, tied, recipe)
    whole = _read_whole(others, links, shapes, tensors, str(path))
    by_module = {key.removeprefix(PREFIX).removesuffix(SUFFIX): tensor for key, tensor in rows.items()}
    return Adapter(parts, whole, rows=read_rows(by_module, recipe, links, shapes))


def _modules_of(tensors: Mapping[str, Tensor], recipe: Recipe, where: str) -> tuple[set[str], set[str]]:
    """Which modules the file changes, each with all of its tensors; and the other keys, where such are allowed."""
    kinds = kinds_of(recipe)
    modules, others = set(), set()
    for key in tensors:
        match = re.fullmatch(re.escape(PREFIX) + rf"(.+)\.({'|'.join(map(re.escape, kinds))})", key)
        if match is not None:
            modules.add(match[1])
        elif recipe.whole and key.startswith(PREFIX) and ".lora_" not in key:
            others.add(key)
        else:
            raise Unsupported(
                f"{where} holds '{key}', which is no part of a plain LoRA.",
                f"Known are tensors called {', '.join(kinds)}.",
            )
    if not modules:
        raise InputError(f"{where} holds no tensors.", "Save the adapter again.")
    for key in (key_of(module, kind) for module in sorted(modules) for kind in kinds):
        if key not in tensors:
            raise InputError(f"{where} lacks '{key}', but holds its other half.", "The file is damaged; save it again.")
    return modules, others


def _meant(tables: Iterable[Sequence[Link]], modules: set[str], where: str) -> Sequence[Link]:
    unknown = ""
    for links in tables:
        missing = sorted(modules - adaptable(links).keys())
        if not missing:
            return links
        unknown = unknown or missing[0]
    raise InputError(
        f"{where} is for the module '{unknown}', which this model does not have, or to which no adapter can be added.",
        "Adapters are added to the matrices of attention and MLPs; is this adapter of another base model?",
    )


def _parts(
    module: str,
    link: Link,
    shapes: Mapping[str, Sequence[int]],
    recipe: Recipe,
    tensors: Mapping[str, Tensor],
    where: str,
) -> dict[str, Part]:
    """The part of each of our maps that their module consists of (query, key and value may be one of theirs)."""
    names = [ours.removesuffix(".weight") for ours in link.ours]
    outputs, inputs = [shapes[ours][0] for ours in link.ours], shapes[link.ours[0]][1]
    if recipe.kind == "IA3":
        key, fed = key_of(module, "ia3_l"), recipe.feeds(module)
        factors = tensors[key]
        if factors.numel() != (inputs if fed else sum(outputs)):
            raise InputError(
                f"{where}: '{key}' has shape {list(factors.shape)}, but the module has {inputs} inputs and "
                f"{sum(outputs)} outputs.",
                f"Is it an adapter of another base model, or was feedforward_modules of {CONFIG} changed?",
            )
        flat = factors.flatten()
        each = [flat.clone() for _ in names] if fed else [part.clone() for part in torch.split(flat, outputs)]
        return {name: Rescaled(own, fed) for name, own in zip(names, each, strict=True)}
    rank = recipe.rank(module)
    wanted = {"lora_A.weight": [rank, inputs], "lora_B.weight": [sum(outputs), rank]}
    if recipe.magnitudes:
        wanted["lora_magnitude_vector"] = [sum(outputs)]
    for kind, shape in wanted.items():
        found = tensors[key_of(module, kind)]
        if list(found.shape) != shape:
            raise InputError(
                f"{where}: '{key_of(module, kind)}' has shape {list(found.shape)}, but rank {rank} on this model needs "
                f"{shape}.",
                f"Is it an adapter of another base model, or was r or rank_pattern of {CONFIG} changed?",
            )
    down_RK, up_NR, *magnitude = (tensors[key_of(module, kind)] for kind in wanted)
    whole = LowRank(down_RK, up_NR, recipe.alpha(module), recipe.rooted, *magnitude)
    return dict(zip(names, divided(whole, outputs), strict=True))


def _without_copy(
    keys: set[str], links: Sequence[Link], tensors: Mapping[str, Tensor], tied: str, recipe: Recipe
) -> set[str]:
    """The keys without the second copy of a trained embedding that is the head too. PEFT trains the two apart unless it
    is told to, and then they are not one matrix any more."""
    embedding = PREFIX + next(link.theirs[0] for link in links if link.ours == ("embedding",))
    head = PREFIX + tied
    together = head in keys and embedding in keys and torch.equal(tensors[head], tensors[embedding])
    if head not in keys and (embedding not in keys or recipe.values.get("ensure_weight_tying")):
        return keys
    if not together:
        raise Unsupported(
            f"{recipe.where}: the embedding and the head were trained apart, but are one matrix in this model.",
            "Train both as modules_to_save with ensure_weight_tying, or neither.",
        )
    return keys - {head}


def _read_whole(
    keys: Collection[str],
    links: Sequence[Link],
    shapes: Mapping[str, Sequence[int]],
    tensors: Mapping[str, Tensor],
    where: str,
) -> dict[str, Tensor]:
    """Tensors of the model that the file holds as they are, by our names."""
    by_name = {theirs: link for link in links for theirs in link.theirs}
    found: dict[str, Tensor] = {}
    for key in sorted(keys):
        link = by_name.get(key.removeprefix(PREFIX))
        if link is None or len(link.theirs) > 1:
            raise InputError(f"{where} holds '{key}', which this model does not have.", "Is it for another base model?")
        own = {name: torch.empty(tuple(shapes[name])) for name in link.ours}
        (wanted,) = link.shapes(own).values()
        if list(tensors[key].shape) != wanted:
            table = {link.ours[0], link.ours[0].rpartition(".")[2]} & {"embedding", "head.weight"}
            raise InputError(
                f"{where}: '{key}' has shape {list(tensors[key].shape)}, but this model needs {wanted}.",
                "Its base had another vocabulary: name the one that has the adapter's tokens, such as the one that "
                "model.new_tokens made."
                if table
                else "Is it an adapter of another base model?",
            )
        link.fill(own, {link.theirs[0]: tensors[key]})
        found |= own
    return found
