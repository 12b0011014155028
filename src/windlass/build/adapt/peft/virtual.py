"""Positions before every text that hold no token but trained numbers: prompt tuning and prefix tuning, of decoders.

Prompt tuning (Lester et al., arXiv 2104.08691) trains what the first block reads there; prefix tuning (Li and Liang,
arXiv 2101.00190) trains the keys and values of every layer. Later positions see these, and they see no text: so the
keys and values of a prompt are computed once per pass, and of every text of a packed row, one behind the other, the
positions count on from them. That equals PEFT, which puts them before each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from windlass.build.transformer.adapters.parts import Virtual
from windlass.build.transformer.attention import KeysValues, Sight, as_mask, visible
from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.positions import positions_in_documents
from windlass.build.transformer.stack import Stack
from windlass.build.transformer.vocabulary import embed
from windlass.core.errors import InputError


def begun(model: Decoder, kind: str, count: int, seed: int) -> Virtual:
    """`count` tokens drawn from the vocabulary: their vectors, or the keys and values that the model makes of them.
    Numbers by chance would be no text that the model has ever seen, and learn much more slowly (both papers)."""
    generator = torch.Generator().manual_seed(seed)
    tokens_1T = torch.randint(model.config.vocab_size, (1, count), generator=generator)
    with torch.no_grad():
        x_1TC = embed(tokens_1T, model.embedding, model.config, None)
        if kind == "prompt":
            return Virtual("prompt", x_1TC[0].clone())
        pairs = [torch.stack(pair)[:, 0] for pair in _keys_values(model, x_1TC)]  # each (2, K, T, D)
        return Virtual("prefix", torch.stack(pairs).permute(3, 0, 1, 2, 4).flatten(1).contiguous())


def put_before(model: Decoder, virtual: Virtual) -> None:
    """Puts the trained positions before all that the model reads: `hidden` computes with them, and `new_cache`
    gives caches that hold them already. Raises `InputError` for models whose positions cannot begin later."""
    config = model.config
    if config.position not in ("rope", "learned") or (config.rope_scaling and config.rope_scaling.kind == "longrope"):
        raise InputError(
            f"adapter.kind '{virtual.kind}' moves a text's positions, which this model's kind of positions "
            f"({config.position}) does not allow.",
            "Choose 'lora'.",
        )
    model.register_module("virtual", Virtually(virtual))
    # On the instance, as with compiled blocks: the names of the weights stay as they are.
    model.hidden = partial(_hidden, model)  # type: ignore[method-assign]
    model.hidden_of_texts = partial(_hidden_of_texts, model)  # type: ignore[method-assign]
    model.new_cache = partial(_new_cache, model, model.new_cache)  # type: ignore[method-assign]


class Virtually(nn.Module):
    """The trained numbers, (positions, C) of a prompt, or of a prefix (positions, layers x 2 x K x D)."""

    def __init__(self, virtual: Virtual) -> None:
        super().__init__()
        self.kind, self.vectors = virtual.kind, nn.Parameter(virtual.vectors.clone())

    def value(self) -> Virtual:
        return Virtual(self.kind, self.vectors)

    def keys_values(self, model: Decoder, dtype: torch.dtype) -> list[KeysValues]:
        """Of each layer, (1, K, positions, D) each."""
        vectors = self.vectors.to(dtype)
        if self.kind == "prompt":
            return _keys_values(model, vectors[None])
        config = model.config
        shape = (len(vectors), config.layers, 2, config.kv_heads, config.head_dim)
        pairs = vectors.view(shape).permute(1, 2, 3, 0, 4).contiguous()
        return [(pair[0][None], pair[1][None]) for pair in pairs]


def virtual_of(model: nn.Module) -> Virtually | None:
    """What stands before the texts of a model, if anything."""
    return next((module for module in model.modules() if isinstance(module, Virtually)), None)


class _Recording(KVCache):
    """Keeps the keys and values of a pass, with what is needed for their gradients, and holds nothing before it."""

    def __init__(self) -> None:
        self.length, self.found = 0, dict[int, KeysValues]()

    def extend(self, layer: int, k: Tensor, v: Tensor, first: int = 0, at: int | None = None) -> KeysValues:
        self.found[layer] = (k, v)
        return k, v


class _Before(KVCache):
    """Holds the virtual positions, the same for all rows, and is forgotten with the pass."""

    def __init__(self, each: list[KeysValues]) -> None:
        self.length, self._each = each[0][0].shape[2], each

    def extend(self, layer: int, k: Tensor, v: Tensor, first: int = 0, at: int | None = None) -> KeysValues:
        before = (kept.expand(len(k), -1, -1, -1) for kept in self._each[layer])
        key, value = (torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))
        return key, value


def _keys_values(model: Decoder, x_1TC: Tensor) -> list[KeysValues]:
    recording = _Recording()
    model.through(*model.enter(x_1TC, cache=recording))
    return [recording.found[layer] for layer in range(model.config.layers)]


def _hidden(
    model: Decoder,
    tokens_BT: Tensor,
    *,
    documents_BT: Tensor | None = None,
    cache: KVCache | None = None,
    dtype: torch.dtype | None = None,
    routing: list[Tensor] | None = None,
) -> Tensor:
    """As `Decoder.hidden`."""
    if cache is not None:
        return Decoder.hidden(model, tokens_BT, cache=cache, dtype=dtype, routing=routing)
    virtual = virtual_of(model)
    assert virtual is not None
    x_BTC = embed(tokens_BT, model.embedding, model.config, dtype)
    before = _Before(virtual.keys_values(model, x_BTC.dtype))
    if documents_BT is None:
        return model.through(*model.enter(x_BTC, cache=before), routing)
    return model.through(*_entered(model, x_BTC, documents_BT, before), routing)


def _hidden_of_texts(
    model: Decoder,
    tokens_T: Tensor,
    lengths: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    routing: list[Tensor] | None = None,
) -> Tensor:
    """As `Decoder.hidden_of_texts`; each text has a row of its own, whose padding nothing sees."""
    tokens_BT = pad_sequence(list(torch.split(tokens_T, list(lengths))), batch_first=True)
    x_BTC = model.hidden(tokens_BT, dtype=dtype, routing=routing)
    return torch.cat([x_TC[:length] for x_TC, length in zip(x_BTC, lengths, strict=True)])


def _entered(model: Stack, x_BTC: Tensor, documents_BT: Tensor, before: _Before) -> tuple[Tensor, list[Sight]]:
    """As `Stack.enter`, where the positions of every document count on from those before it, which it sees."""
    config, length = model.config, x_BTC.shape[1]
    end = before.length + length
    if end > config.context:
        raise InputError(
            f"Rows of {length} positions behind {before.length} virtual tokens are longer than the {config.context} "
            "that the model reads.",
            "Choose a smaller model.context or fewer adapter.virtual_tokens.",
        )
    place_BT = before.length + positions_in_documents(documents_BT)
    if model.positions is not None:
        x_BTC = x_BTC + model.positions[place_BT].to(x_BTC.dtype)
    if model.embedding_norm is not None:
        x_BTC = model.embedding_norm(x_BTC)
    kinds = [config.local(layer) for layer in range(config.layers)]
    sights = {}
    for local in set(kinds):
        may = visible(
            length, length, causal=True, window=config.window if local else None, documents_BT=documents_BT,
            device=x_BTC.device,
        )  # fmt: skip
        may_B1TS = torch.cat([_sees_before(config, local, place_BT, before.length), may], dim=-1)
        sights[local] = Sight(False, as_mask(may_B1TS), _turned(model, local, place_BT), before)
    return x_BTC, [sights[local] for local in kinds]


def _sees_before(config: TransformerConfig, local: bool, place_BT: Tensor, count: int) -> Tensor:
    """(B, 1, T, count): a window ends there too."""
    distance = place_BT[:, None, :, None] - torch.arange(count, device=place_BT.device)
    return distance < config.window if local and config.window is not None else distance > 0


def _turned(model: Stack, local: bool, place_BT: Tensor) -> tuple[Tensor, Tensor] | None:
    if model.config.position != "rope":
        return None
    cos, sin = model.turned(local, place_BT, False)
    return cos[:, None], sin[:, None]


def _new_cache(model: Decoder, empty: Callable[..., KVCache], batch: int = 1, capacity: int | None = None) -> KVCache:
    """A cache that holds the virtual positions; `capacity` counts the others."""
    virtual = virtual_of(model)
    assert virtual is not None
    count = len(virtual.vectors)
    cache = empty(batch, None if capacity is None else capacity + count)
    with torch.no_grad():
        for layer, (k, v) in enumerate(virtual.keys_values(model, cache.keys.dtype)):
            cache.keys[layer, :, :, :count], cache.values[layer, :, :, :count] = k, v
    cache.length = count
    return cache
