"""Many adapters on one base, in one batch.

    adapters = Adapters(decoder)                        # after `prepare`, whose arithmetic stays as it is
    adapters.load("french", folder)                     # while others are in use; a PEFT folder (`lora_files.py`)
    lora = adapters["french"]                           # whoever holds it may finish, also after `unload("french")`
    with adapters.rows([(lora, 7), (None, 1)]):         # the next pass: seven tokens with it, one without
        decoder.hidden_of_parts(tokens_T, parts)

Every matrix of attention and MLPs is wrapped in an `Adapted`, which adds to the base's product that of the thin
matrices. Those of all adapters in a batch are joined along their ranks, so that two products serve any number of them:
between the two, each token keeps the ranks of its own adapter and the others become zero (as S-LoRA gathers, Sheng et
al., arXiv 2311.03285). Where adapters scale inputs or outputs (DoRA, (IA)3), each token is multiplied by the factors of
its own. A token without an adapter gets exactly what the base alone gives.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from windlass.build.transformer.attention import Attention
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import MLP
from windlass.core.errors import InputError, NotFound
from windlass.serve.engine.adapters.lora_files import Factors, LoRA, Thin, read_lora, size
from windlass.serve.one_thread import in_one_thread

MAX_BYTES = 2**30

Spans = Sequence[tuple[LoRA | None, int]]
"""Neighbouring tokens of a pass: their adapter, and how many they are."""


class Adapters:
    """The adapters of one model that writes. Loading and unloading are safe from any thread; `rows` is for the one that
    runs the model."""

    def __init__(self, model: Decoder | EncoderDecoder, *, max_bytes: int = MAX_BYTES) -> None:
        self._model = model
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loaded: dict[str, LoRA] = {}
        self._shared = _Shared()
        self._join: _Joined | None = None
        self._bases: dict[str, Linear] = {}
        for name, module in list(model.named_modules()):
            if isinstance(module, Attention | MLP):
                for child, linear in list(module.named_children()):
                    if isinstance(linear, Linear):
                        self._bases[f"{name}.{child}"] = linear
                        setattr(module, child, Adapted(linear, f"{name}.{child}", self._shared))

    def load(self, name: str, folder: Path) -> LoRA:
        """Reads a PEFT folder and makes it known as `name`.

        Raises `InputError` when the name is taken, the folder does not hold an adapter of this model (naming what is
        wrong with it), or memory would exceed `max_bytes` (with both numbers, before anything is read); `Unsupported`
        for kinds of adapters that do more than this.
        """
        if not name:
            raise InputError("The adapter's name is empty.")
        weight = self._model.embedding
        with self._lock:
            if name in self._loaded:
                raise InputError(f"There is an adapter '{name}' already.", "Unload it first, or choose another name.")
            needed, held = size(folder) * weight.element_size(), self.bytes
            if held + needed > self._max_bytes:
                raise InputError(
                    f"The adapter '{name}' needs {needed:,} bytes, but of the {self._max_bytes:,} for all adapters "
                    f"{held:,} are taken.",
                    "Unload another one, or allow more.",
                )
            read = partial(read_lora, folder, self._model.config, weight.dtype, weight.device, self._bases)
            lora = in_one_thread(read)
            self._loaded[name] = lora
            return lora

    def unload(self, name: str) -> None:
        """Forgets an adapter; requests that hold it finish with it. Raises `NotFound`."""
        with self._lock:
            self[name]
            del self._loaded[name]

    def __getitem__(self, name: str) -> LoRA:
        if (found := self._loaded.get(name)) is None:
            known = ", ".join(f"'{one}'" for one in self._loaded) or "none"
            raise NotFound(f"There is no adapter '{name[:200]}'.", f"Loaded: {known}.")
        return found

    @property
    def loaded(self) -> Mapping[str, LoRA]:
        return MappingProxyType(dict(self._loaded))

    @property
    def bytes(self) -> int:
        """Memory of all loaded ones."""
        return sum(lora.bytes for lora in self._loaded.values())

    @contextmanager
    def rows(self, spans: Spans, *, singly: bool = False) -> Iterator[None]:
        """Passes inside the block read these tokens, in this order; what a pass holds behind them has no adapter.

        `singly`: each adapter has products of its own, so that what it adds has the same bits in any company.
        """
        distinct = tuple(dict.fromkeys(lora for lora, count in spans if lora is not None and count))
        if not distinct:
            self._join = None  # lets go of what was unloaded
            yield
            return
        if self._join is None or set(self._join.loras) != set(distinct):
            self._join = _Joined(distinct)  # while the same requests are being written, it stays the same
        joins = [_Joined((lora,)) for lora in distinct] if singly else [self._join]
        self._shared.batch = [_Batch(joined, spans) for joined in joins]
        try:
            yield
        finally:
            self._shared.batch = []


class _Shared:
    """What all `Adapted` of a model look at."""

    batch: Sequence[_Batch] = ()


class Adapted(Linear):
    """A map, whatever its arithmetic, and behind it the adapters of the batch."""

    def __init__(self, base: Linear, name: str, shared: _Shared) -> None:
        nn.Module.__init__(self)  # no parameters of its own
        self.base, self._name, self._shared = base, name, shared

    def forward(self, x: Tensor) -> Tensor:
        for batch in self._shared.batch:
            x = batch.into(x, self._name)
        return self._added(self.base(x), x)

    def together(self, x: Tensor, *others: Linear) -> tuple[Tensor, ...]:
        maps = [self, *others]
        if any(batch.parts(one._name) for batch in self._shared.batch for one in maps if isinstance(one, Adapted)):
            return tuple(one(x) for one in maps)  # what they read is not the same any more
        outs = self.base.together(x, *(one.base if isinstance(one, Adapted) else one for one in others))
        return tuple(
            one._added(out, x) if isinstance(one, Adapted) else out for one, out in zip(maps, outs, strict=True)
        )

    def _added(self, out: Tensor, x: Tensor) -> Tensor:
        for batch in self._shared.batch:
            out = batch.add(out, x, self._name)
        return out


class _Joined:
    """Several adapters as one of the sum of their ranks, joined place by place when first asked for."""

    def __init__(self, loras: tuple[LoRA, ...]) -> None:
        self.loras = loras
        self._places: dict[str, tuple[Thin, tuple[int, ...]] | None] = {}
        self._factors: dict[str, Factors] = {}

    def at(self, name: str) -> tuple[Thin, tuple[int, ...]] | None:
        """The thin matrices there and the rank of each adapter (0: it adds nothing there), or None when none does."""
        if name not in self._places:
            self._places[name] = self._made(name)
        return self._places[name]

    def factors(self, name: str) -> Factors:
        """Of each adapter there, one a row; behind them, of none."""
        if name not in self._factors:
            there = [lora.factors.get(name, _NONE) for lora in self.loras]
            inward, outward, shift = zip(*there, strict=True)
            self._factors[name] = Factors(_table(inward, 1.0), _table(outward, 1.0), _table(shift, 0.0))
        return self._factors[name]

    def _made(self, name: str) -> tuple[Thin, tuple[int, ...]] | None:
        there = [lora.thin.get(name) for lora in self.loras]
        found = [thin for thin in there if thin is not None]
        if not found:
            return None
        joined = found[0] if len(found) == 1 else Thin(*(torch.cat(parts) for parts in zip(*found, strict=True)))
        return joined, tuple(0 if thin is None else len(thin.down_RK) for thin in there)


_NONE = Factors(None, None, None)


def _table(rows: Sequence[Tensor | None], otherwise: float) -> Tensor | None:
    """The rows, and behind them one for tokens without an adapter; None when no adapter has any."""
    like = next((row for row in rows if row is not None), None)
    if like is None:
        return None
    nothing = torch.full_like(like, otherwise)
    return torch.stack([nothing if row is None else row for row in (*rows, None)])


class _Batch:
    """Which token of one pass has which adapter."""

    def __init__(self, joined: _Joined, spans: Spans) -> None:
        self._joined = joined
        index: dict[LoRA | None, int] = {lora: number for number, lora in enumerate(joined.loras)}
        self._owners = [index.get(lora, -1) for lora, count in spans for _ in range(count)]
        self._masks: dict[tuple[tuple[int, ...], int], Tensor | None] = {}

    def parts(self, name: str) -> bool:
        """Whether some token's input is another one for this map."""
        return self._joined.factors(name).inward_K is not None

    def into(self, x: Tensor, name: str) -> Tensor:
        """What the map is to read instead of x."""
        inward = self._joined.factors(name).inward_K
        return x if inward is None else (x * self._own(inward, x)).to(x.dtype)

    def _own(self, table: Tensor, like: Tensor) -> Tensor:
        """Each token's row of a table, in the shape of the tokens."""
        tokens = like.shape[:-1].numel()
        owners = self._owners + [-1] * (tokens - len(self._owners))  # -1: the last row
        return table[torch.tensor(owners, device=table.device)].view(*like.shape[:-1], -1)

    def add(self, out: Tensor, x: Tensor, name: str) -> Tensor:
        """The map's output with what the adapters make of it."""
        _, outward, shift = self._joined.factors(name)
        if outward is not None:
            scaled = out * self._own(outward, out)
            out = (scaled if shift is None else scaled + self._own(shift, out)).to(out.dtype)
        if (found := self._joined.at(name)) is None:
            return out
        (down_RK, up_RN), ranks = found
        rows_TK = x.reshape(-1, x.shape[-1])
        inner_TR = rows_TK.to(down_RK.dtype) @ down_RK.T
        if (mask_TR := self._mask(ranks, len(rows_TK), inner_TR)) is not None:
            inner_TR = inner_TR * mask_TR
        added_TN = inner_TR @ up_RN
        return out + added_TN.view(out.shape).to(out.dtype)

    def _mask(self, ranks: tuple[int, ...], tokens: int, like: Tensor) -> Tensor | None:
        """1 where a rank belongs to the token's own adapter, else 0, (T, R); None where all do."""
        key = (ranks, tokens)
        if key not in self._masks:
            owners = self._owners + [-1] * (tokens - len(self._owners))
            if len(ranks) == 1 and -1 not in owners:
                self._masks[key] = None
            else:
                owner_T = torch.tensor(owners)
                owner_R = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
                self._masks[key] = (owner_T[:, None] == owner_R).to(like.device, like.dtype)
        return self._masks[key]
