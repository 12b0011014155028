"""The key-values that say how a model computes, and the configuration they stand for. Both directions are exact: what
does not survive the way there and back is refused by name, and so is a key that would change the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

import torch

from windlass.build.transformer.config import Experts, RopeScaling, TransformerConfig
from windlass.build.transformer.gguf.architectures import ARCHITECTURES, Architecture
from windlass.build.transformer.gguf.container import Value
from windlass.build.transformer.rope import frequencies
from windlass.core.errors import InputError

_WITHOUT_MEANING = {"vocab_size", "rope.scaling.finetuned", "attention.causal", "tensor_data_layout"}
_DIVISORS = "rope_freqs.weight"
_LONG, _SHORT = "rope_factors_long.weight", "rope_factors_short.weight"

Vectors = dict[str, torch.Tensor]


def chosen(config: TransformerConfig, family: str | None = None) -> Architecture:
    """The architecture that expresses a configuration. Raises `InputError` naming, for the likeliest, what it cannot.

    `family`: the model's family here, whose own architecture is tried first.
    """
    if not config.causal or config.decoder_layers:
        raise InputError("Only decoders can be written as GGUF; this model is none.", "Export a decoder: Llama, ...")
    rows = sorted(ARCHITECTURES.values(), key=lambda row: row.family != family)
    refusals = {}
    for row in rows:
        lost = _lost(config, row)
        if not lost:
            return row
        refusals[row.name] = lost
    name = min(refusals, key=lambda name: (ARCHITECTURES[name].family != family, len(refusals[name])))
    window = " A window has no effect when --context is at most as long." if config.window else ""
    raise InputError(
        f"llama.cpp does not compute this model: as '{name}', nearest to it, {'; '.join(refusals[name])}.",
        f"With other values there it can be written.{window}",
    )


def _lost(config: TransformerConfig, row: Architecture) -> list[str]:
    """The fields that the architecture cannot express."""
    if row.narrow and config.heads * config.head_dim != config.hidden:
        return [f"heads x head_dim is {config.heads * config.head_dim}, not hidden {config.hidden}"]
    if row.rope_in_neighbours and config.rotary_share != 1.0:
        return [f"rotary_share is {config.rotary_share}, not 1"]
    if config.position != "rope":
        return [f"position is '{config.position}', not 'rope'"]
    if config.experts is not None and config.experts.shared_ffn and row.name != "qwen2moe":
        return ["a shared expert is not known"]
    if config.tied and not row.optional_head:
        return ["the head cannot be the embedding"]
    sparse = {config.sparse(layer) for layer in range(config.layers)}
    if len(sparse) > 1 or sparse != {row.name.endswith("moe") or (row.name == "llama" and config.experts is not None)}:
        return ["experts stand in other layers than it expects"]
    if row.name == "gemma2" and config.window is None:
        return ["it always has a window"]
    if row.name != "llama" and (config.output_bias or config.mlp_bias):
        return ["output_bias and mlp_bias are not known"]
    if not row.windowed and config.window is not None and config.window >= config.context:
        config = replace(config, window=None)  # what is never reached need not be computed
    try:
        values, vectors = written(config, row)
        again = read(values, vectors, "the file", tied=config.tied, biases=_biases(config), vocab=config.vocab_size)
    except InputError as error:
        return [error.message]
    return [
        f"{field.name} cannot be {getattr(config, field.name)!r}"
        for field in fields_of(config)
        if not _same(getattr(_plain(again), field.name), getattr(_plain(config), field.name))
    ]


def _plain(config: TransformerConfig) -> TransformerConfig:
    """With LongRoPE's tempering as the number it comes to, however it was said."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "longrope":
        return config
    tempering = frequencies(config.rotary_dim, config.rope_theta, scaling)[1]
    return replace(config, rope_scaling=replace(scaling, factor=1.0, attention_factor=tempering))


def _same(a: Any, b: Any) -> bool:
    """Equal but for what a 32-bit float loses."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-6 * abs(b)
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return all(map(_same, a, b))
    if isinstance(a, RopeScaling) and isinstance(b, RopeScaling):
        return all(_same(getattr(a, field.name), getattr(b, field.name)) for field in fields_of(a))
    return bool(a == b)


def _biases(config: TransformerConfig) -> dict[str, bool]:
    return {"qkv_bias": config.qkv_bias, "output_bias": config.output_bias, "mlp_bias": config.mlp_bias}


def written(config: TransformerConfig, row: Architecture) -> tuple[dict[str, Value], Vectors]:
    """The key-values, and the vectors that stretch RoPE."""
    arch = row.name
    values: dict[str, Value] = {
        "general.architecture": arch,
        f"{arch}.context_length": config.context,
        f"{arch}.embedding_length": config.hidden,
        f"{arch}.block_count": config.layers,
        f"{arch}.feed_forward_length": config.experts.ffn if config.experts and arch == "llama" else config.ffn,
        f"{arch}.attention.head_count": config.heads,
        f"{arch}.attention.head_count_kv": config.kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.norm_eps,
        f"{arch}.rope.dimension_count": config.rotary_dim,
        f"{arch}.rope.freq_base": config.rope_theta,
        f"{arch}.vocab_size": config.vocab_size,
    }
    if row.windowed and config.window is not None:
        values[f"{arch}.attention.sliding_window"] = config.window
        values[f"{arch}.attention.sliding_window_pattern"] = [config.local(layer) for layer in range(config.layers)]
        values[f"{arch}.rope.freq_base_swa"] = config.local_rope_theta or config.rope_theta
    elif arch == "phi3":
        values[f"{arch}.attention.sliding_window"] = 0  # else llama.cpp warns that it leaves it out
    if config.attention_cap is not None:
        values[f"{arch}.attn_logit_softcapping"] = config.attention_cap
    if config.logit_cap is not None:
        values[f"{arch}.final_logit_softcapping"] = config.logit_cap
    if config.experts is not None:
        values[f"{arch}.expert_count"] = config.experts.count
        values[f"{arch}.expert_used_count"] = config.experts.active
        if arch != "llama":
            values[f"{arch}.expert_feed_forward_length"] = config.experts.ffn
        if config.experts.shared_ffn:
            values[f"{arch}.expert_shared_feed_forward_length"] = config.experts.shared_ffn
    if config.rope_scaling is None:
        return values, {}
    scaling, vectors = _scaling_written(config, config.rope_scaling)
    return values | {f"{arch}.rope.scaling.{key}": value for key, value in scaling.items()}, vectors


def _scaling_written(config: TransformerConfig, scaling: RopeScaling) -> tuple[dict[str, Value], Vectors]:
    match scaling.kind:
        case "linear":
            return {"type": "linear", "factor": scaling.factor}, {}
        case "yarn":
            values: dict[str, Value] = {
                "type": "yarn",
                "factor": scaling.factor,
                "original_context_length": scaling.original_context,
            }
            _, tempering = frequencies(config.rotary_dim, config.rope_theta, scaling)
            _, plain = frequencies(config.rotary_dim, config.rope_theta, replace(scaling, attention_factor=None))
            return values | ({"attn_factor": tempering / plain} if tempering != plain else {}), {}
        case "longrope":
            _, tempering = frequencies(config.rotary_dim, config.rope_theta, scaling)
            vectors = {_LONG: torch.tensor(scaling.long_factors), _SHORT: torch.tensor(scaling.short_factors)}
            context = scaling.original_context
            return {"type": "longrope", "original_context_length": context, "attn_factor": tempering}, vectors
        case "llama3":
            # There is no key for it: every frequency's divisor is written. What made them goes into keys of our own.
            plain_frequencies, _ = frequencies(config.rotary_dim, config.rope_theta, None)
            slowed, _ = frequencies(config.rotary_dim, config.rope_theta, scaling)
            made = [scaling.factor, float(scaling.original_context), scaling.low, scaling.high]
            return {"llama3": made}, {_DIVISORS: plain_frequencies / slowed}


def read(
    values: Mapping[str, Any], vectors: Vectors, where: str, *, tied: bool, biases: Mapping[str, bool], vocab: int
) -> TransformerConfig:
    """The configuration that a file's key-values stand for. `tied`, `biases` and `vocab` are seen from its tensors.

    Raises `InputError` naming the key that is missing, of the wrong kind, or not understood.
    """
    row = architecture(values, where)
    take = _Keys(values, row.name, where)
    layers, hidden, heads = (take.size(key) for key in ("block_count", "embedding_length", "attention.head_count"))
    head_dim = take.size("attention.key_length", hidden // heads)
    if take.size("attention.value_length", head_dim) != head_dim:
        raise InputError(f"{where}: keys and values of different widths are not computed here.")
    theta = take.number("rope.freq_base", 10_000.0)
    found: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": take.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "ffn": take.size("feed_forward_length"),
        "context": take.size("context_length"),
        "norm_eps": take.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "rotary_share": take.size("rope.dimension_count", head_dim) / head_dim,
        "tied": tied,
        **row.fixed,
        **biases,
    }
    if row.name.startswith("gemma"):
        found |= _gemma(take, hidden, heads, head_dim, layers)
    elif 0 < (window := take.whole("attention.sliding_window", 0)) < found["context"]:
        raise take.refused("attention.sliding_window", window)
    found["rope_scaling"] = _scaling_read(take, vectors, found["context"])
    if row.windowed and take.whole("attention.sliding_window", 4096 if row.name == "gemma2" else 0):
        found |= _windows(take, layers, theta)
    if count := take.whole("expert_count", 0):
        found["experts"] = Experts(
            count=count,
            active=min(take.size("expert_used_count"), count),
            ffn=take.size("expert_feed_forward_length", found["ffn"]),
            normalise=row.name != "qwen2moe",
            shared_ffn=take.whole("expert_shared_feed_forward_length", 0),
        )
    take.finish()
    try:
        return TransformerConfig(**found)
    except InputError as error:
        raise InputError(f"{where}: {error.message}", error.hint) from error


def architecture(values: Mapping[str, Any], where: str) -> Architecture:
    name = values.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(
            f"{where}: general.architecture is {name!r}, which cannot be read.",
            f"Known are: {', '.join(ARCHITECTURES)}.",
        )
    return ARCHITECTURES[name]


def _gemma(take: _Keys, hidden: int, heads: int, head_dim: int, layers: int) -> dict[str, Any]:
    # llama.cpp knows the 27B models, whose scores are scaled otherwise, by their number of layers.
    largest = {"gemma2": 46, "gemma3": 62}[take.arch]
    cap = take.number("attn_logit_softcapping", 0.0)
    return {
        "embedding_scale": hidden**0.5,
        "attention_scale": (hidden // heads if layers == largest else head_dim) ** -0.5,
        "attention_cap": cap or None,
        "logit_cap": take.number("final_logit_softcapping", 0.0) or None,
    }


def _windows(take: _Keys, layers: int, theta: float) -> dict[str, Any]:
    every = {"gemma2": 2, "gemma3": 6}[take.arch]
    local = take.flags("attention.sliding_window_pattern", layers, every)
    swa = take.number("rope.freq_base_swa", 10_000.0 if take.arch == "gemma3" else theta)
    return {
        "window": take.size("attention.sliding_window", 4096),
        "pattern": "".join("L" if flag else "G" for flag in local),
        "local_rope_theta": None if take.arch == "gemma2" and swa == theta else swa,
    }


def _scaling_read(take: _Keys, vectors: Vectors, context: int) -> RopeScaling | None:
    kind = take.text("rope.scaling.type", "none")
    factor = take.number("rope.scaling.factor", 1.0)
    original = take.size("rope.scaling.original_context_length", context)
    tempering = take.number("rope.scaling.attn_factor", 1.0)
    made = take.numbers("rope.scaling.llama3", 4)
    if _LONG in vectors or _SHORT in vectors:
        if not {_LONG, _SHORT} <= set(vectors):
            raise InputError(f"{take.where}: of {_LONG} and {_SHORT} one is missing.")
        return RopeScaling(
            "longrope",
            factor=context / original,
            original_context=original,
            attention_factor=tempering,
            short_factors=tuple(vectors[_SHORT].tolist()),
            long_factors=tuple(vectors[_LONG].tolist()),
        )
    if _DIVISORS in vectors:
        return _llama3(take, vectors[_DIVISORS], made)
    if kind == "yarn":
        scaling = RopeScaling("yarn", factor=factor, original_context=original)
        if tempering == 1.0:
            return scaling
        return replace(scaling, attention_factor=tempering * frequencies(2, 10_000.0, scaling)[1])
    if kind not in ("none", "linear"):
        raise take.refused("rope.scaling.type", kind)
    return None if factor == 1.0 else RopeScaling("linear", factor=factor)


def _llama3(take: _Keys, divisors: torch.Tensor, made: list[float] | None) -> RopeScaling:
    """The parameters that gave these divisors: our own keys, else the ones that all published models share."""
    theta = take.number("rope.freq_base", 10_000.0)
    factor = float(divisors.max())
    guesses = [made] if made else [[factor, 8192.0, 1.0, 4.0]]
    for each in guesses:
        scaling = RopeScaling("llama3", factor=each[0], original_context=int(each[1]), low=each[2], high=each[3])
        dims = 2 * len(divisors)
        expected = frequencies(dims, theta, None)[0] / frequencies(dims, theta, scaling)[0]
        if torch.allclose(expected, divisors, rtol=1e-4):
            return scaling
    raise InputError(
        f"{take.where}: {_DIVISORS} stretches RoPE in a way that Llama 3's rule does not explain.",
        "Import the model from its Hugging Face folder.",
    )


class _Keys:
    """The key-values of one architecture; `finish` refuses those that nobody asked for."""

    def __init__(self, values: Mapping[str, Any], arch: str, where: str) -> None:
        self.arch, self.where, self._values = arch, where, values
        self._asked = set(_WITHOUT_MEANING)

    def _get(self, key: str) -> Any:
        self._asked.add(key)
        return self._values.get(f"{self.arch}.{key}")

    def number(self, key: str, default: float | None = None) -> float:
        found = self._get(key)
        found = default if found is None else found
        if found is None:
            raise InputError(f"{self.where}: '{self.arch}.{key}' is missing.", "The file is no complete model.")
        if isinstance(found, bool) or not isinstance(found, int | float) or found != found:
            raise self.refused(key, found)
        return float(found)

    def whole(self, key: str, default: int | None = None) -> int:
        found = self.number(key, default)
        if found != int(found) or not 0 <= found < 1 << 31:
            raise self.refused(key, found)
        return int(found)

    def size(self, key: str, default: int | None = None) -> int:
        found = self.whole(key, default)
        if found < 1:
            raise self.refused(key, found)
        return found

    def text(self, key: str, default: str) -> str:
        found = self._get(key)
        return default if found is None else str(found)

    def numbers(self, key: str, count: int) -> list[float] | None:
        found = self._get(key)
        if found is not None and (not isinstance(found, list) or len(found) != count):
            raise self.refused(key, found)
        return found

    def flags(self, key: str, layers: int, every: int) -> list[bool]:
        """One for each layer: a list, or a period whose last layer is not flagged."""
        found = self._get(key)
        if isinstance(found, list):
            if len(found) != layers:
                raise self.refused(key, found)
            return [bool(flag) for flag in found]
        period = every if found is None else self.size(key)
        return [(layer + 1) % period != 0 for layer in range(layers)]

    def refused(self, key: str, found: Any) -> InputError:
        return InputError(f"{self.where}: '{self.arch}.{key}' is {str(found)[:80]}, which is not computed here.")

    def finish(self) -> None:
        prefix = f"{self.arch}."
        for key, value in self._values.items():
            if key.startswith(prefix) and key.removeprefix(prefix) not in self._asked:
                raise self.refused(key.removeprefix(prefix), value)
