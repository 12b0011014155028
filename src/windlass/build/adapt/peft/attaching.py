"""Putting an adapter into a model, taking it out as a value, and making one model of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from windlass.build.adapt.peft import ia3, virtual
from windlass.build.adapt.peft.adapted import AdaptedLinear
from windlass.build.adapt.peft.choosing import in_layers, named
from windlass.build.adapt.peft.dora import DoRALinear, begun_with_lengths
from windlass.build.adapt.peft.ia3 import IA3Linear
from windlass.build.adapt.peft.lora import LoRALinear, begun
from windlass.build.adapt.peft.quantised import dequantise
from windlass.build.adapt.peft.rows import begun_rows, merge_rows, put_rows, rows_of
from windlass.build.adapt.sections import AdapterSettings
from windlass.build.transformer.adapters.parts import Adapter, Part, Rescaled
from windlass.build.transformer.attention import Attention
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP
from windlass.build.transformer.model import Model
from windlass.core.errors import InputError, Unsupported

_WHOLE = re.compile(r"(.*\.)?(embedding|positions|token_types|head\.weight|(\w+_)?norm\.(weight|bias))")
_DEFAULT = {"ia3": ("key", "value", "down")}
"""What the paper rescales; the other kinds take every map."""


def attach(
    model: nn.Module,
    settings: AdapterSettings,
    seed: int,
    dtype: torch.dtype | None = None,
    tokens: Sequence[int] = (),
) -> None:
    """Freezes the transformer and puts a new adapter's trained numbers into it, in place; a head of its own that the
    model has behind the transformer stays trained. `dtype`: what the frozen weights are kept in, that of the
    activations, so that no pass has to cast them. `tokens`: those whose own rows of embedding and head are trained
    too.

    Without an adapter, what the settings do not name is frozen, and nothing where they name nothing. Raises
    `InputError` when they name a map that no block has.
    """
    if settings.kind == "none":
        if settings.layers or settings.targets:
            _freeze_but(model, settings, dtype)
        return
    if settings.kind in ("prompt", "prefix"):
        decoder = _decoder(model, settings.kind)
        begun_virtual = virtual.begun(decoder, settings.kind, settings.virtual_tokens, seed)
        attach_adapter(model, Adapter({}, virtual=begun_virtual), dtype=dtype)
        return
    places = dict(_places(model))
    generator = torch.Generator().manual_seed(seed)
    attach_adapter(
        model,
        Adapter({name: _begun(name, places[name], settings, generator) for name in _chosen(places, settings)}),
        settings.dropout,
        dtype,
    )
    _train_also(transformer_of(model), settings.also)
    put_rows(model, begun_rows(model, tokens))


def attach_adapter(model: nn.Module, adapter: Adapter, dropout: float = 0.0, dtype: torch.dtype | None = None) -> None:
    """As `attach`, of an adapter that exists and fits (as `read_adapter` makes sure)."""
    for parameter in transformer_of(model).parameters():
        _freeze(parameter, dtype)
    with torch.no_grad():
        for name, tensor in adapter.whole.items():
            parameter = model.get_parameter(name)
            parameter.data = tensor.clone()
            parameter.requires_grad_(True)
    if adapter.virtual is not None:
        virtual.put_before(_decoder(model, adapter.virtual.kind), adapter.virtual)
    places = dict(_places(model))
    for name, part in adapter.parts.items():
        owner, _, child = name.rpartition(".")
        setattr(model.get_submodule(owner), child, _with(places[name], part, dropout))
    put_rows(model, adapter.rows)


def adapter_of(model: nn.Module) -> Adapter:
    """All that is trained of a model with an adapter inside."""
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    before = virtual.virtual_of(model)
    own = {id(parameter) for module in adapted.values() for parameter in module.parameters(recurse=False)}
    own |= set() if before is None else {id(before.vectors)}
    rows = rows_of(model)
    own |= {id(one.vectors_NC) for one in rows.values()}
    whole = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad and id(p) not in own}
    parts = {name: module.part() for name, module in adapted.items()}
    values = {name: one.value() for name, one in rows.items()}
    return Adapter(parts, whole, None if before is None else before.value(), values)


def merge(model: nn.Module) -> None:
    """Makes plain float32 maps of all that was attached or quantised, in place. Raises `Unsupported` for what
    is no map."""
    if (before := virtual.virtual_of(model)) is not None:
        raise Unsupported(
            f"An adapter of kind '{before.kind}' cannot be merged: it is what stands before each text, and no weight.",
            "Keep it as an adapter.",
        )
    for name, module in list(model.named_modules()):
        if isinstance(module, AdaptedLinear):
            owner, _, child = name.rpartition(".")
            setattr(model.get_submodule(owner), child, module.merged())
    dequantise(model)
    merge_rows(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.float()


def transformer_of(model: nn.Module) -> Model:
    """The model itself, or what stands below its head."""
    return next(module for module in model.modules() if isinstance(module, Model))


def _decoder(model: nn.Module, kind: str) -> Decoder:
    inner = transformer_of(model)
    if not isinstance(inner, Decoder):
        raise InputError(
            f"adapter.kind is '{kind}', which stands before a text that is read from left to right, but this model is "
            "no decoder.",
            "Choose 'lora'.",
        )
    return inner


def _train_also(inner: Model, also: Sequence[str]) -> None:
    """Tables, head and norms, each module whole: what PEFT's files can hold beside an adapter."""
    weights = {name: parameter for name, parameter in inner.named_parameters() if _WHOLE.fullmatch(name)}
    hint = f"There are tables, head and norms: {', '.join(list(weights)[:6])}, ..."
    chosen = named(weights, also, hint, "also")
    modules = {name.rpartition(".")[0] for name in chosen} - {""}
    for name, parameter in weights.items():
        if name in chosen or name.rpartition(".")[0] in modules:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def _begun(name: str, linear: Linear, settings: AdapterSettings, generator: torch.Generator) -> Part:
    if settings.kind == "ia3":
        return ia3.begun(linear, on_input=name.endswith("mlp.down"))
    start = begun_with_lengths if settings.kind == "dora" else begun
    return start(linear, settings.rank, settings.alpha, settings.kind == "rslora", generator)


def _with(linear: Linear, part: Part, dropout: float) -> AdaptedLinear:
    if isinstance(part, Rescaled):
        return IA3Linear(linear, part)
    return (LoRALinear if part.magnitude_N is None else DoRALinear)(linear, part, dropout)


def _chosen(places: Mapping[str, Linear], settings: AdapterSettings) -> list[str]:
    """The maps that the settings mean."""
    there = ", ".join(sorted({name.rpartition(".")[2] for name in places}))
    hint = f"There are: {there}; a pattern stands for whole names, such as {next(iter(places), '')}."
    found = named(places, settings.targets or _DEFAULT.get(settings.kind, ("*",)), hint)
    return _some(in_layers(found, settings.layers), settings)


def _freeze_but(model: nn.Module, settings: AdapterSettings, dtype: torch.dtype | None) -> None:
    """Trains only those parameters of the transformer that the settings mean."""
    inner = transformer_of(model)
    names = [name for name, _ in inner.named_parameters()]
    found = named(names, settings.targets or ("*",), "A pattern stands for whole names, such as " + names[-1] + ".")
    trained = set(_some(in_layers(found, settings.layers), settings))
    for name, parameter in inner.named_parameters():
        if name not in trained:
            _freeze(parameter, dtype)


def _some(names: list[str], settings: AdapterSettings) -> list[str]:
    if not names:
        raise InputError(
            f"adapter.targets {list(settings.targets)} and adapter.layers {settings.layers!r} have nothing in common.",
            "Nothing would be trained; leave one of the two out.",
        )
    return names


def _freeze(parameter: nn.Parameter, dtype: torch.dtype | None) -> None:
    parameter.requires_grad_(False)
    if dtype is not None:
        parameter.data = parameter.data.to(dtype)


def _places(model: nn.Module) -> Iterator[tuple[str, Linear]]:
    """Every map of attention and MLPs, by its name: what `transformer.adapters.modules` calls adaptable."""
    for name, owner in model.named_modules():
        if isinstance(owner, Attention | MLP):
            for child, linear in owner.named_children():
                if isinstance(linear, Linear):
                    yield f"{name}.{child}", linear
