"""The shape of a transformer: one frozen value from which decoder, encoder and encoder-decoder are built.

The defaults are Llama's. Everything else that a family does differently is a field here, so a family is a value of
`TransformerConfig` and a table of tensor names (`families/`), never a model file of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from windlass.core.errors import InputError

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are slowed down for contexts longer than those of pre-training (see `rope.py`)."""

    kind: Literal["linear", "yarn", "llama3", "longrope"]
    factor: float = 1.0
    original_context: int = 0
    """Tokens of a sequence before stretching; needed by all but `linear`."""
    attention_factor: float | None = None
    """Multiplies cosine and sine, and so tempers the softmax (YaRN, LongRoPE). None: as the paper derives it."""
    fast: float = 32.0
    """YaRN: frequencies that turn more often than this within the original context stay as they are (beta_fast)."""
    slow: float = 1.0
    """YaRN: those that turn less often are slowed down by the whole factor (beta_slow)."""
    truncate: bool = True
    """YaRN: round the borders of the ramp between them to whole dimensions."""
    low: float = 1.0
    """Llama 3: wavelengths above original_context/low are stretched by the whole factor (low_freq_factor)."""
    high: float = 4.0
    """Llama 3: wavelengths below original_context/high stay as they are (high_freq_factor)."""
    short_factors: tuple[float, ...] = ()
    """LongRoPE: a divisor for each frequency while the sequence fits the original context ..."""
    long_factors: tuple[float, ...] = ()
    """... and when it does not."""

    def __post_init__(self) -> None:
        _check_choices(self, "RoPE scaling")
        if self.kind != "linear" and self.original_context < 1:
            raise InputError(f"RoPE scaling: '{self.kind}' needs original_context, the context before stretching.")
        if self.factor <= 0:
            raise InputError(f"RoPE scaling: factor is {self.factor}, but must be positive.")


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of the MLP (see `moe.py`)."""

    count: int
    active: int
    """Experts that each token visits."""
    ffn: int
    """Inner width of one expert."""
    normalise: bool = True
    """Whether the weights of the visited experts are made to sum to one."""
    shared_ffn: int = 0
    """Inner width of one more expert that sees every token, weighted by a gate of its own (Qwen-MoE); 0: none."""
    every: int = 1
    """Only every n-th layer has experts: layers n-1, 2n-1, ..."""
    dense_layers: tuple[int, ...] = ()
    """Layers that keep the ordinary MLP all the same."""

    def __post_init__(self) -> None:
        for field in ("count", "active", "ffn", "every"):
            if getattr(self, field) < 1:
                raise InputError(f"Experts: {field} is {getattr(self, field)}, but must be at least 1.")
        if self.active > self.count:
            raise InputError(f"Experts: a token cannot visit {self.active} of {self.count} experts.")


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Everything that the weights' shapes and the arithmetic depend on."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    """Grouped-query attention: each key/value head serves heads/kv_heads query heads (arXiv 2305.13245)."""
    head_dim: int
    ffn: int
    """Inner width of the MLP."""
    context: int
    """Longest sequence in tokens."""

    causal: bool = True
    """Whether a position sees only itself and earlier ones; of an encoder-decoder, the decoder always is."""
    decoder_layers: int = 0
    """Layers of an encoder-decoder's second half, which also look at the first (`layers`); 0: there is no such half."""
    tied: bool = False
    """Whether the head shares the embedding's matrix."""

    # Positions
    position: Literal["rope", "learned", "sinusoidal", "alibi", "relative", "none"] = "rope"
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rotary_share: float = 1.0
    """Share of each head's dimensions that RoPE turns."""
    local_rope_theta: float | None = None
    """Base of the local layers, which then are not scaled (Gemma 3, ModernBERT); None: as all the others."""
    relative_buckets: int = 32
    relative_distance: int = 128
    """Distances beyond this share the last bucket (T5)."""

    # What a layer sees
    window: int | None = None
    """Positions that a local layer sees: the last `window` including its own, or when not causal those at most
    window/2 away."""
    pattern: str = "L"
    """One letter per layer, repeated to the last one: L is local (sees the window), G global (sees everything)."""

    # Attention
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    """RMSNorm over each head of queries and keys, before they are rotated (Qwen3, Gemma 3)."""
    attention_scale: float | None = None
    """Factor of the scores; None: head_dim^-1/2."""
    attention_cap: float | None = None
    """Scores s become cap * tanh(s / cap) (Gemma 2)."""

    # Norms
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    """Before each part; on the sum behind it (BERT); or before and behind it, on the residual branch (Gemma 2)."""
    norm_offset: bool = False
    """Whether a norm multiplies by 1 + weight (Gemma)."""
    norm_bias: bool = True
    """Whether a LayerNorm adds a bias; an RMSNorm never does."""
    embedding_norm: bool = False
    """A norm behind the embedding (BERT, ModernBERT)."""
    first_norm: bool = True
    """Whether the first layer norms its input before attention (ModernBERT, whose embedding is normed, does not)."""

    # MLP
    activation: Activation = "silu"
    gated: bool = True
    """down(act(gate(x)) * up(x)) rather than down(act(up(x)))."""
    mlp_bias: bool = False
    experts: Experts | None = None

    # Embedding and head
    token_types: int = 0
    """Kinds of segments (BERT); a lone text is of type 0."""
    embedding_scale: float = 1.0
    head_bias: bool = False
    head_transform: bool = False
    """A dense layer, the activation and a norm before the head (masked-LM models)."""
    headless: bool = False
    """An encoder that makes vectors only (embedding models)."""
    logit_scale: float = 1.0
    logit_cap: float | None = None
    """Logits l become cap * tanh(l / cap) (Gemma 2)."""

    def __post_init__(self) -> None:
        _check_choices(self, "Model configuration")
        for field in ("vocab_size", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "context"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise InputError(
                    f"Model configuration: {field} is {value!r}, but must be a whole number of at least 1."
                )
        if self.heads % self.kv_heads:
            raise InputError(
                f"Model configuration: {self.heads} query heads cannot share {self.kv_heads} key/value heads evenly.",
                "Choose kv_heads as a divisor of heads.",
            )
        for field in ("window", "attention_cap", "logit_cap", "attention_scale", "local_rope_theta"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise InputError(f"Model configuration: {field} is {value}, but must be positive, or absent.")
        if not self.pattern or set(self.pattern) - set("LG"):
            raise InputError(
                f"Model configuration: pattern is {self.pattern!r}, but holds one letter per layer, L or G.",
                "L is a layer that sees the window only, G one that sees everything; 'LLLLLG' repeats.",
            )
        if self.position == "rope":
            self._check_rope()
        if self.headless and (self.head_transform or self.head_bias):
            raise InputError("Model configuration: headless excludes head_transform and head_bias.")
        if self.position == "relative" and not 4 <= self.relative_buckets < 2 * self.relative_distance:
            raise InputError(
                f"Model configuration: relative_buckets is {self.relative_buckets}, but must be at least 4 and less "
                f"than twice relative_distance ({self.relative_distance}).",
                "Half of the buckets hold one distance each, and the others must reach further.",
            )
        self._canonical()
        if self.norm_placement == "post" and self.norm_offset:
            raise InputError("Model configuration: norm_offset has no meaning known here with norm_placement 'post'.")

    def _check_rope(self) -> None:
        if self.rotary_dim % 2 or not 2 <= self.rotary_dim <= self.head_dim:
            raise InputError(
                f"Model configuration: RoPE turns pairs, but {self.rotary_dim} of head_dim {self.head_dim} dimensions "
                f"would be turned (rotary_share {self.rotary_share:g}).",
                "Choose an even number of dimensions.",
            )
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "longrope":
            for field in ("short_factors", "long_factors"):
                if len(getattr(scaling, field)) != self.rotary_dim // 2:
                    raise InputError(
                        f"Model configuration: rope_scaling.{field} has {len(getattr(scaling, field))} numbers, but "
                        f"there are {self.rotary_dim // 2} frequencies."
                    )

    def _canonical(self) -> None:
        """One spelling for each computation, so that equal models have equal configurations."""
        letters = "".join(self.pattern[layer % len(self.pattern)] for layer in range(self.layers))
        if self.window is None or "L" not in letters:
            object.__setattr__(self, "window", None)
            letters = "L"
        periods = (n for n in range(1, len(letters) + 1) if (letters[:n] * len(letters))[: len(letters)] == letters)
        object.__setattr__(self, "pattern", letters[: next(periods)])
        if self.window is None or (self.local_rope_theta == self.rope_theta and self.rope_scaling is None):
            object.__setattr__(self, "local_rope_theta", None)
        if self.attention_scale == self.head_dim**-0.5:
            object.__setattr__(self, "attention_scale", None)

    # ---- what follows from the fields ------------------------------------------------------------------------------

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head RoPE turns."""
        return int(self.head_dim * self.rotary_share)

    @property
    def score_scale(self) -> float:
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def local(self, layer: int) -> bool:
        """Whether a layer sees only the window."""
        return self.window is not None and self.pattern[layer % len(self.pattern)] == "L"

    def stretched(self, length: int) -> bool:
        """Whether LongRoPE's long factors hold for a sequence of this length."""
        scaling = self.rope_scaling if self.position == "rope" else None
        return scaling is not None and scaling.kind == "longrope" and length > scaling.original_context

    def sparse(self, layer: int) -> bool:
        """Whether a layer has experts."""
        experts = self.experts
        return experts is not None and (layer + 1) % experts.every == 0 and layer not in experts.dense_layers

    @property
    def halves(self) -> tuple[TransformerConfig, ...]:
        """Encoder and decoder of an encoder-decoder, each as the configuration of one stack; else only this one."""
        if not self.decoder_layers:
            return (self,)
        first = replace(self, causal=False, decoder_layers=0)
        return first, replace(first, causal=True, layers=self.decoder_layers)

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return self.matrix_parameters + sum(half._vectors for half in self.halves) + self._cross_vectors + self._head

    @property
    def matrix_parameters(self) -> int:
        """Weights of the blocks' matrices, without embedding and head."""
        return self._matrices(active=False)

    @property
    def active_parameters(self) -> int:
        """Of `parameters`, those that one token passes: all of them unless there are experts."""
        return self.parameters - self._matrices(active=False) + self._matrices(active=True)

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations to train on one token at full context: 6 for every weight that multiplies,
        plus attention's scores and sums over the positions really seen (arXiv 2204.02311, appendix B).

        Of an encoder-decoder: the mean of a source's and a target's token, as many of each."""
        head = 0 if self.headless else self.vocab_size * self.hidden + self.head_transform * self.hidden**2
        seen = sum(half.seen(layer, self.context) for half in self.halves for layer in range(half.layers))
        seen += self.decoder_layers * self.context
        total = 6 * (self._matrices(active=True) + head) + 12 * self.heads * self.head_dim * seen
        return total / len(self.halves)

    def seen(self, layer: int, full: int) -> float:
        """Positions that one position of a layer sees, on average over a sequence of `full`."""
        window = self.window
        reach = full if window is None or not self.local(layer) else window if self.causal else window // 2
        if reach >= full:
            return full / 2 if self.causal else full
        # The sequence's ends see less: the first positions on one side, or both ends each on one.
        return reach - reach * reach / (2 * full) if self.causal else 2 * reach + 1 - reach * (reach + 1) / full

    def _matrices(self, active: bool) -> int:
        layers = sum(half._layer_matrices(layer, active) for half in self.halves for layer in range(half.layers))
        return layers + self.decoder_layers * self._attention_matrices

    @property
    def _attention_matrices(self) -> int:
        return self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)

    def _layer_matrices(self, layer: int, active: bool) -> int:
        maps = 3 if self.gated else 2
        experts = self.experts
        if experts is None or not self.sparse(layer):
            return self._attention_matrices + maps * self.hidden * self.ffn
        width = experts.ffn * (experts.active if active else experts.count) + experts.shared_ffn
        gates = experts.count + (1 if experts.shared_ffn else 0)
        return self._attention_matrices + maps * self.hidden * width + self.hidden * gates

    @property
    def _norm(self) -> int:
        return self.hidden * (2 if self.norm == "layer" and self.norm_bias else 1)

    @property
    def _attention_vectors(self) -> int:
        biases = self.qkv_bias * self.head_dim * (self.heads + 2 * self.kv_heads) + self.output_bias * self.hidden
        return biases + self.qk_norm * 2 * self.head_dim

    @property
    def _vectors(self) -> int:
        """Norms, biases and small tables of one stack."""
        norms = (4 if self.norm_placement == "sandwich" else 2) * self.layers
        norms += (self.norm_placement != "post") + self.embedding_norm - (not self.first_norm)
        count = norms * self._norm + self.layers * self._attention_vectors
        count += self.mlp_bias * sum(self._mlp_biases(layer) for layer in range(self.layers))
        count += self.token_types * self.hidden + (self.position == "learned") * self.context * self.hidden
        return count + (self.position == "relative") * self.relative_buckets * self.heads

    def _mlp_biases(self, layer: int) -> int:
        """Of the plain MLP, or of the shared expert; the others have none."""
        if self.experts is None or not self.sparse(layer):
            width = self.ffn
        elif self.experts.shared_ffn:
            width = self.experts.shared_ffn
        else:
            return 0
        return (2 if self.gated else 1) * width + self.hidden

    @property
    def _cross_vectors(self) -> int:
        return self.decoder_layers * (self._norm + self._attention_vectors)

    @property
    def _head(self) -> int:
        """Embedding and head."""
        count = (1 if self.tied or self.headless else 2) * self.vocab_size * self.hidden
        count += self.head_transform * (self.hidden**2 + self.mlp_bias * self.hidden + self._norm)
        return count + self.head_bias * self.vocab_size


def _check_choices(value: Any, where: str) -> None:
    """Every field of a `Literal` type holds one of its values."""
    hints = get_type_hints(type(value))
    for field in fields(value):
        choices = get_args(hints[field.name])
        if choices and all(isinstance(choice, str) for choice in choices):
            found = getattr(value, field.name)
            if found not in choices:
                raise InputError(f"{where}: {field.name} is {found!r}.", f"It may be: {', '.join(choices)}.")
