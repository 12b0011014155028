"""What the training of an adapter begins with: a new one, or one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import attach, attach_adapter, transformer_of
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.adapters import virtual_files
from windlass.build.transformer.adapters.files import check_base, present, read_adapter
from windlass.build.transformer.adapters.parts import Adapter
from windlass.build.transformer.adapters.recipe import CONFIG, Recipe
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import load_links, weights_digest


def attached(model: nn.Module, opened: Opened, links: Sequence[Link] | None = None) -> None:
    """Puts the adapter that the settings ask for into the model, in place; `links` as for `save_adapter`.

    Raises `InputError` for a map that no block has, and for an adapter of another base.
    """
    settings, dtype = opened.settings, dtype_of(opened.settings.run)
    if opened.adapter is None:
        attach(model, settings.adapter, settings.run.seed, dtype)
        return
    check_base(opened.adapter, weights_digest(opened.base), opened.base_name)
    adapter = read_for(model, opened.adapter, load_links(opened.base) if links is None else links)
    attach_adapter(model, adapter, settings.adapter.dropout, dtype)


def read_for(model: nn.Module, folder: Path, links: Sequence[Link]) -> Adapter:
    """The adapter in a PEFT folder, which fits the model. Raises `InputError` and `Unsupported` as `read_adapter`."""
    more = ("use_dora", "modules_to_save", "feedforward_modules", *virtual_files.FIELDS)
    recipe = Recipe(present(folder, CONFIG), kinds=("LORA", "IA3", *virtual_files.KINDS), more=more)
    if recipe.kind in virtual_files.KINDS:
        return Adapter({}, virtual=virtual_files.read_virtual(folder, recipe, transformer_of(model).config))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return read_adapter(folder, recipe, [links], shapes)
