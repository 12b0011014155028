"""What the training of an adapter begins with: a new one, or one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import adapter_of, attach, attach_adapter, transformer_of
from windlass.build.adapt.peft.quantised import quantise
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.adapters import virtual_files
from windlass.build.transformer.adapters.base import bits_of, check_base
from windlass.build.transformer.adapters.files import present
from windlass.build.transformer.adapters.parts import Adapter
from windlass.build.transformer.adapters.reading import read_adapter
from windlass.build.transformer.adapters.recipe import CONFIG, Recipe
from windlass.build.transformer.adapters.row_files import FIELD
from windlass.build.transformer.families.links import Link
from windlass.build.transformer.hf import load_links, tied_head, weights_digest
from windlass.core.errors import InputError


def attached(model: nn.Module, opened: Opened, links: Sequence[Link] | None = None) -> None:
    """Puts the adapter that the settings ask for into the model, in place; `links` as for `save_adapter`.

    Raises `InputError` for a map that no block has, for an adapter of another base, and for one that could not be
    stored with all that is trained.
    """
    settings, dtype = opened.settings, dtype_of(opened.settings.run)
    tied = tied_head(opened.base) if links is None else None
    links = load_links(opened.base) if links is None else links
    if opened.adapter is None:
        quantise(model, settings.adapter.bits)
        attach(model, settings.adapter, settings.run.seed, dtype, _tokens(opened))
    else:
        check_base(opened.adapter, weights_digest(opened.base), opened.base_name)
        _check_bits(opened.adapter, settings.adapter.bits)
        adapter = read_for(model, opened.adapter, links, tied)
        if adapter.virtual is not None and settings.adapter.merge:
            raise InputError(f"adapter.merge is on, but {opened.adapter} is no weight.", "Leave merge out.")
        quantise(model, settings.adapter.bits)
        attach_adapter(model, adapter, settings.adapter.dropout, dtype)
    if settings.stores_adapter:
        _check_room(model, links)


def _tokens(opened: Opened) -> list[int]:
    """The tokens whose rows are trained. Raises `InputError` for one that is none."""
    adapter, new = opened.settings.adapter, opened.settings.model.new_tokens
    if adapter.kind not in ("lora", "rslora", "dora"):  # other kinds train all rows, or none
        return []
    names = dict.fromkeys((*adapter.tokens, *new))
    numbers = {name: opened.tokenizer.token_to_id(name) for name in names}
    if missing := [name for name, number in numbers.items() if number is None]:
        raise InputError(
            f"adapter.tokens names {missing[0]!r}, which is no token of {opened.base_name}.",
            "Add it to the vocabulary: model.new_tokens.",
        )
    return [numbers[name] for name in names]


def _check_bits(folder: Path, asked: int | None) -> None:
    """Raises `InputError` when the adapter made up for the rounding of a base that is not rounded so now."""
    if (bits := bits_of(folder)) is not None and bits != asked:
        raise InputError(
            f"The adapter {folder} was trained beside a base in {bits} bits, but adapter.bits is {asked or 'not set'}.",
            f"Set adapter.bits to {bits}.",
        )


def _check_room(model: nn.Module, links: Sequence[Link]) -> None:
    """Raises `InputError` for what could not be stored after it was trained."""
    adapter, known = adapter_of(model), {name for link in links for name in link.ours}
    room = set() if adapter.virtual is not None else known
    if homeless := sorted(set(adapter.whole) - room):
        what = "positions before every text" if adapter.virtual is not None else "the adapter"
        raise InputError(
            f"'{homeless[0]}' would be trained beside {what}, but an adapter's file has no room for it.",
            "Choose another adapter.kind.",
        )


def read_for(model: nn.Module, folder: Path, links: Sequence[Link], tied: str | None = None) -> Adapter:
    """The adapter in a PEFT folder, which fits the model. Raises `InputError` and `Unsupported` as `read_adapter`."""
    more = (
        "use_dora", "modules_to_save", "ensure_weight_tying", "feedforward_modules", FIELD, *virtual_files.FIELDS
    )  # fmt: skip
    recipe = Recipe(present(folder, CONFIG), kinds=("LORA", "IA3", *virtual_files.KINDS), more=more)
    if recipe.kind in virtual_files.KINDS:
        return Adapter({}, virtual=virtual_files.read_virtual(folder, recipe, transformer_of(model).config))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    return read_adapter(folder, recipe, [links], shapes, tied)
