"""Adapters on disk as PEFT has them: `adapter_config.json` + `adapter_model.safetensors`, read strictly.

A file that does not hold exactly what its configuration says is refused by name. Beside ours lies `base.json`, which
PEFT passes over: the digest of the weights that the adapter was trained on, and in how many bits they were then, if in
few, with what was measured of that. Of others only shapes can tell.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from windlass.build.transformer.adapters.modules import adaptable, short
from windlass.build.transformer.adapters.parts import Adapter, LowRank, Part, Rescaled, divided, joined
from windlass.build.transformer.adapters.recipe import CONFIG, WEIGHTS, Recipe
from windlass.build.transformer.adapters.row_files import FIELD, SUFFIX, read_rows, written_rows
from windlass.build.transformer.families.links import Link
from windlass.core.errors import InputError, Unsupported
from windlass.core.files import disk_errors, write_json

_PREFIX = "base_model.model."
_T = TypeVar("_T")
BASE = "base.json"
"""Not in the weights' metadata, of which safetensors writes several entries in an order that changes by chance."""


# Reading ------------------------------------------------------------------------------------------------------------


def size(folder: Path) -> int:
    """Numbers that the adapter in `folder` holds, from the file's header alone."""
    path = present(folder, WEIGHTS)
    with _readable(path), safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def base_of(folder: Path) -> str | None:
    """Digest (`hf.weights_digest`) of the weights that the adapter was trained on; None where no file says so."""
    path = folder / BASE
    return _told(path, lambda values: str(values["weights"])) if path.is_file() else None


def bits_of(folder: Path) -> int | None:
    """4 or 8: that of the base's maps as the adapter was trained beside them; None: they were whole, or nobody says."""
    path = folder / BASE
    bits = _told(path, lambda values: values.get("bits")) if path.is_file() else None
    if bits not in (None, 4, 8):
        raise InputError(f"{path}: bits is {bits!r}, which is neither 4 nor 8.", "Restore or delete it.")
    return bits


def measured_of(folder: Path) -> tuple[float, float] | None:
    """Held-out loss beside the rounded base that the adapter was trained beside, and beside that base as it is; None
    where nobody measured both."""
    path = folder / BASE
    found = _told(path, lambda values: values.get("heldout_loss")) if path.is_file() else None
    return None if found is None else _told(path, lambda values: (float(found["rounded"]), float(found["whole"])))


def note_measured(folder: Path, rounded: float, whole: float) -> None:
    """For `measured_of`."""
    values = _told(folder / BASE, dict)
    write_json(folder / BASE, {**values, "heldout_loss": {"rounded": rounded, "whole": whole}})


def _told(path: Path, what: Callable[[Any], _T]) -> _T:
    try:
        return what(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}).", "Restore or delete it.") from error


def task_of(folder: Path) -> str | None:
    """PEFT's name for what the adapter's model does, if its file tells."""
    return _field(folder, "task_type")


def base_name_of(folder: Path) -> str | None:
    """What the adapter's file calls its base: a name, or the folder in which it lay."""
    return _field(folder, "base_model_name_or_path")


def _field(folder: Path, name: str) -> str | None:
    value = json.loads(present(folder, CONFIG).read_text(encoding="utf-8")).get(name)
    return value if isinstance(value, str) else None


def check_base(folder: Path, digest: str, name: str) -> None:
    """Raises `InputError` when the adapter says that it was trained beside weights other than those of `name`."""
    wanted = base_of(folder)
    if wanted is not None and wanted != digest:
        raise InputError(
            f"The adapter {folder} was trained on a base whose weights have the digest {wanted[:12]}, but those of "
            f"{name} have {digest[:12]}.",
            f"Name the base that it was trained on. If these are its weights in another form, delete {BASE}.",
        )


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
    kind = _kinds(recipe)[0]
    for module in sorted(chosen | modules):
        if module not in modules:
            raise InputError(
                f"{path} lacks '{_key(module, kind)}', which target_modules of {CONFIG} promises.",
                "The file was cut short, or the adapter was made for a model with fewer layers.",
            )
        if module not in chosen:
            raise InputError(f"{path} holds '{_key(module, kind)}', which target_modules of {CONFIG} does not name.")
    parts: dict[str, Part] = {}
    for module in sorted(modules):
        parts |= _parts(module, targets[module], shapes, recipe, tensors, str(path))
    if tied is not None:
        others = _without_copy(others, links, tensors, tied, recipe)
    whole = read_whole(others, links, shapes, tensors, str(path))
    by_module = {key.removeprefix(_PREFIX).removesuffix(SUFFIX): tensor for key, tensor in rows.items()}
    return Adapter(parts, whole, rows=read_rows(by_module, recipe, links, shapes))


def _modules_of(tensors: Mapping[str, Tensor], recipe: Recipe, where: str) -> tuple[set[str], set[str]]:
    """Which modules the file changes, each with all of its tensors; and the other keys, where such are allowed."""
    kinds = _kinds(recipe)
    modules, others = set(), set()
    for key in tensors:
        match = re.fullmatch(re.escape(_PREFIX) + rf"(.+)\.({'|'.join(map(re.escape, kinds))})", key)
        if match is not None:
            modules.add(match[1])
        elif recipe.whole and key.startswith(_PREFIX) and ".lora_" not in key:
            others.add(key)
        else:
            raise Unsupported(
                f"{where} holds '{key}', which is no part of a plain LoRA.",
                f"Known are tensors called {', '.join(kinds)}.",
            )
    if not modules:
        raise InputError(f"{where} holds no tensors.", "Save the adapter again.")
    for key in (_key(module, kind) for module in sorted(modules) for kind in kinds):
        if key not in tensors:
            raise InputError(f"{where} lacks '{key}', but holds its other half.", "The file is damaged; save it again.")
    return modules, others


def _kinds(recipe: Recipe) -> tuple[str, ...]:
    """What stands behind a module's name in the keys of its tensors."""
    if recipe.kind == "IA3":
        return ("ia3_l",)
    plain = ("lora_A.weight", "lora_B.weight")
    return (*plain, "lora_magnitude_vector") if recipe.magnitudes else plain


def _key(module: str, kind: str) -> str:
    return f"{_PREFIX}{module}.{kind}"


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
        key, fed = _key(module, "ia3_l"), recipe.feeds(module)
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
        found = tensors[_key(module, kind)]
        if list(found.shape) != shape:
            raise InputError(
                f"{where}: '{_key(module, kind)}' has shape {list(found.shape)}, but rank {rank} on this model needs "
                f"{shape}.",
                f"Is it an adapter of another base model, or was r or rank_pattern of {CONFIG} changed?",
            )
    down_RK, up_NR, *magnitude = (tensors[_key(module, kind)] for kind in wanted)
    whole = LowRank(down_RK, up_NR, recipe.alpha(module), recipe.rooted, *magnitude)
    return dict(zip(names, divided(whole, outputs), strict=True))


def _without_copy(
    keys: set[str], links: Sequence[Link], tensors: Mapping[str, Tensor], tied: str, recipe: Recipe
) -> set[str]:
    """The keys without the second copy of a trained embedding that is the head too. PEFT trains the two apart unless it
    is told to, and then they are not one matrix any more."""
    embedding = _PREFIX + next(link.theirs[0] for link in links if link.ours == ("embedding",))
    head = _PREFIX + tied
    together = head in keys and embedding in keys and torch.equal(tensors[head], tensors[embedding])
    if head not in keys and (embedding not in keys or recipe.values.get("ensure_weight_tying")):
        return keys
    if not together:
        raise Unsupported(
            f"{recipe.where}: the embedding and the head were trained apart, but are one matrix in this model.",
            "Train both as modules_to_save with ensure_weight_tying, or neither.",
        )
    return keys - {head}


def read_whole(
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
        link = by_name.get(key.removeprefix(_PREFIX))
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


def present(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"{path} is missing.", f"An adapter's folder holds {CONFIG} and {WEIGHTS}, as PEFT saves them."
        )
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of an adapter's file, in float32.

    From its bytes: each tensor got through `safe_open` leaves two objects behind for good (safetensors 0.8), which is
    nothing to a model that is loaded once, but adds up in a server whose adapters come and go.
    """
    with _readable(path):
        return {name: tensor.float() for name, tensor in load(path.read_bytes()).items()}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: numbers of a kind that torch does not have
        raise InputError(f"{path} cannot be read: {error}.", "The file is damaged; fetch it again.") from error


# Writing ------------------------------------------------------------------------------------------------------------


def write_adapter(
    folder: Path,
    adapter: Adapter,
    links: Sequence[Link],
    state: Mapping[str, Tensor],
    *,
    base: str,
    digest: str | None = None,
    bits: int | None = None,
    task: str | None = None,
    dropout: float = 0.0,
    tied: str | None = None,
) -> None:
    """Writes the adapter of a model with these links and tensors; PEFT reads the folder.

    `base` is the base's name, `digest` that of its weights, `bits` as in `bits_of`, `task` PEFT's task_type, `tied` as
    in reading. `state` is looked into only where several of our maps are one module elsewhere and not all of them are
    adapted.
    """
    tensors: dict[str, Tensor] = {}
    modules: dict[str, Part] = {}
    links = list(links)
    targets = adaptable(links)
    for module, link in targets.items():
        parts = [adapter.parts.get(name.removesuffix(".weight")) for name in link.ours]
        if any(part is not None for part in parts):
            modules[module] = part = _of_module(parts, link, state)
            tensors |= {_key(module, kind): tensor for kind, tensor in _tensors(part).items()}
    whole, saved = whole_tensors(adapter, links, state, tied)
    rows, tokens = written_rows(adapter.rows, links)
    tensors |= whole | {_PREFIX + name: tensor for name, tensor in rows.items()}
    known = {name.rpartition(".")[0] for link in links for name in link.theirs}
    values: dict[str, Any] = {
        **_described(modules, known),
        "fan_in_fan_out": any(targets[module].transposed for module in modules),
        "target_modules": short(modules, known),
        "modules_to_save": saved,
    }
    if values["peft_type"] == "LORA":
        values |= {"lora_dropout": dropout, "bias": "none", FIELD: tokens}
    write_folder(folder, values, tensors, base=base, digest=digest, bits=bits, task=task)


def whole_tensors(
    adapter: Adapter, links: Sequence[Link], state: Mapping[str, Tensor], tied: str | None
) -> tuple[dict[str, Tensor], list[str] | None]:
    """The tensors that were trained as they are, by the file's keys, and PEFT's `modules_to_save`. An embedding that is
    the head too is written as both: PEFT would train on with the old head otherwise."""
    tensors: dict[str, Tensor] = {}
    for link in links:
        if any(name in adapter.whole for name in link.ours):
            tensors |= link.export({**state, **adapter.whole})
            if link.ours == ("embedding",) and tied is not None:
                tensors[tied] = adapter.whole["embedding"].clone()
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    return {_PREFIX + name: tensor for name, tensor in tensors.items()}, modules or None


def write_folder(
    folder: Path,
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    base: str,
    digest: str | None,
    bits: int | None = None,
    task: str | None,
) -> None:
    """Writes the files of an adapter of any kind: `values` of its configuration, and those that all kinds have."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"base_model_name_or_path": base, "task_type": task, "inference_mode": True}
    write_json(folder / CONFIG, {**values, **own})
    if digest is not None:
        write_json(folder / BASE, {"name": base, "weights": digest} | ({} if bits is None else {"bits": bits}))
    with disk_errors(folder):
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, folder / WEIGHTS, {"format": "pt"})


def _of_module(parts: Sequence[Part | None], link: Link, state: Mapping[str, Tensor]) -> Part:
    """One part for their module of those for our maps."""
    if len(parts) == 1 and parts[0] is not None:
        return parts[0]
    rescaled = [part if isinstance(part, Rescaled) else None for part in parts]
    if any(part is not None and part.on_input for part in rescaled):
        raise Unsupported(f"'{link.theirs[0]}' is several maps here, whose inputs are rescaled differently.")
    if any(part is not None for part in rescaled):
        factors = [
            torch.ones(len(state[name])) if part is None else part.factors
            for part, name in zip(rescaled, link.ours, strict=True)
        ]
        return Rescaled(torch.cat(factors), False)
    low = [part if isinstance(part, LowRank) else None for part in parts]
    outputs = [len(state[name] if part is None else part.up_NR) for part, name in zip(low, link.ours, strict=True)]
    part = joined(low, outputs)
    if part.magnitude_N is None:
        return part
    lengths = [  # a row that nothing is added to keeps its length
        state[name].float().norm(dim=1) if own is None or own.magnitude_N is None else own.magnitude_N
        for own, name in zip(low, link.ours, strict=True)
    ]
    return replace(part, magnitude_N=torch.cat(lengths))


def _tensors(part: Part) -> dict[str, Tensor]:
    if isinstance(part, Rescaled):
        return {"ia3_l": part.factors[None] if part.on_input else part.factors[:, None]}
    found = {"lora_A.weight": part.down_RK, "lora_B.weight": part.up_NR}
    if part.magnitude_N is not None:
        found["lora_magnitude_vector"] = part.magnitude_N
    return found


def _described(modules: Mapping[str, Part], known: Collection[str]) -> dict[str, Any]:
    """The fields that tell how the tensors are meant: the commonest rank and alpha, and which modules have others."""
    low = {module: part for module, part in modules.items() if isinstance(part, LowRank)}
    if not low:
        fed = [module for module, part in modules.items() if isinstance(part, Rescaled) and part.on_input]
        return {"peft_type": "IA3", "feedforward_modules": short(fed, known)}
    rank = Counter(part.rank for part in low.values()).most_common(1)[0][0]
    alpha = Counter(part.alpha for part in low.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _number(alpha),
        "rank_pattern": {module: part.rank for module, part in low.items() if part.rank != rank},
        "alpha_pattern": {module: _number(part.alpha) for module, part in low.items() if part.alpha != alpha},
        "use_rslora": any(part.rooted for part in low.values()),
        "use_dora": any(part.magnitude_N is not None for part in low.values()),
        "init_lora_weights": True,
    }


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
