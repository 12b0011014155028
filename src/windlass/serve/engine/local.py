"""A model folder as a `ChatModel`: the engine, with text at both ends.

Requests of any number of threads run side by side in one engine. A request whose reader goes away ends before the
engine's next step. What does not fit in the model's window is refused with both numbers; nothing is ever cut off
silently.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from windlass.build.transformer.adapters.base import base_of, bits_of, check_base, measured_of
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.hf import load_model, weights_digest
from windlass.build.transformer.model import Model
from windlass.core.errors import InputError, NotFound, Unsupported
from windlass.core.files import sha256_file, sha256_json
from windlass.core.trace import Recorder
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.serve.engine.adapted import AdaptedModel
from windlass.serve.engine.answer import Answer
from windlass.serve.engine.arithmetic.attention import kernel_here
from windlass.serve.engine.engine import Engine, Stats
from windlass.serve.engine.memory import MEMORABLE, check_memory
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.reproducibility import prove
from windlass.serve.engine.source import SourceEngine
from windlass.serve.engine.speculation.choosing import speculation_of
from windlass.serve.engine.tokens import Tokens
from windlass.serve.engine.voice import Voice
from windlass.serve.engine.wishes import Defaults


class LocalModel:
    """Implements `core.protocols.ChatModel`, `Tokenizing` and `Measured`. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        digest: str,
        engine: Engine | SourceEngine,
        prompt: Prompt,
        defaults: Defaults,
        recorder: Recorder,
        weights: Callable[[], str] | None = None,
    ) -> None:
        """`weights`: computes the digest of the weights' files, by which an adapter knows its base."""
        self.name = name
        self.digest = digest
        self.engine = engine
        self.context = engine.context
        """The window: tokens of prompt and answer together; of an encoder-decoder, of each."""
        self.prompt = prompt
        self.defaults = defaults
        self._weights = weights
        self._prompts: dict[str, Prompt] = {}
        """Of adapters, and"""
        self._caveats: dict[str, str | None] = {}
        """what is to be said of them."""
        tokens = Tokens(name, prompt.tokenizer, defaults.eos)
        self._voice = Voice(name, digest, engine, prompt, defaults, tokens, recorder)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        digest: str | None = None,
        recorder: Recorder | None = None,
        **engine: Any,
    ) -> LocalModel:
        """Loads a Hugging Face model folder of a decoder or encoder-decoder: config, weights, tokenizer. `engine`: how
        it is run, the arguments of `Engine` (whose policy is "auto" here) or `SourceEngine`; and `speculate`, how it
        guesses ahead: "lookup", or the folder of a draft model.

        `digest` is that of the artifact; left out, it is computed from the files. Raises `InputError` naming the file,
        field or tensor that is missing or does not fit, or the numbers when memory does not suffice, before loading.
        """
        folder = Path(folder)
        check_memory(folder, **{name: engine[name] for name in MEMORABLE if name in engine})
        model = load_model(folder)
        defaults = Defaults.of(folder)
        prompt = Prompt(folder, defaults.bos)
        if digest is None:
            parts = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.json"))]
            digest = sha256_json({path.name: sha256_file(path) for path in parts})
        if prompt.tokenizer.get_vocab_size() > model.config.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer knows {prompt.tokenizer.get_vocab_size()} tokens, but the model only "
                f"{model.config.vocab_size}.",
                "tokenizer.json and config.json belong to different models.",
            )
        if (how := engine.pop("speculate", None)) is not None:
            if not isinstance(model, Decoder):
                raise Unsupported(f"{folder} holds an encoder-decoder, which does not guess ahead.", "Leave that out.")
            on_cpu = model.embedding.device.type == "cpu" and not engine.get("reproducible")
            policy = engine.get("policy", "auto") if on_cpu else "fp32"
            engine["speculation"] = speculation_of(how, prompt.tokenizer, policy)
        started = _engine(model, folder, defaults, engine)
        weights = functools.cache(functools.partial(weights_digest, folder))
        return cls(name or folder.name, digest, started, prompt, defaults, recorder or Recorder(None), weights)

    @property
    def policy(self) -> str:
        """The arithmetic of its matrices, one of `linears.POLICIES`."""
        return self._voice.policy

    @property
    def arithmetic(self) -> str:
        """How its matrices are multiplied, and why not otherwise."""
        report = self.engine.report if isinstance(self.engine, Engine) else None
        return "linear maps in fp32" if report is None else str(report)

    @property
    def is_base(self) -> bool:
        """Whether the model has no chat template, and so continues the text of one user message."""
        return self.prompt.is_base

    def complete(self, request: ChatRequest) -> ChatResponse:
        response = None
        for delta in self.stream(request):
            response = delta.response
        assert response is not None, "the last delta carries the response"
        return response

    def stream(self, request: ChatRequest) -> Answer:
        """Deltas as soon as their characters are certain. Closing or cancelling the iterator ends the work.

        Raises (at the first step) `InputError` when the prompt does not fit the window or a value is out of range,
        `Unsupported` for parameters this model cannot honour, and `TimedOut` when the request's time is over.
        """
        return Answer(self._voice, request)

    def stats(self) -> Mapping[str, float]:
        """The engine's gauges; those of guessing ahead with `speculation_` before them."""
        stats = self.engine.stats()
        found = asdict(stats)
        guessing = found.pop("speculation", None) or {}
        hits = {"hit_rate": stats.hit_rate} if isinstance(stats, Stats) else {}
        gauges = {**found, **hits, **{f"speculation_{name}": guessing[name] for name in guessing}}
        return {name: float(value) for name, value in gauges.items() if value is not None}

    # ---- adapters

    @property
    def adapters(self) -> Mapping[str, AdaptedModel]:
        """Each adapter that is loaded now, as a model of its own, by name."""
        return {name: self._adapted(name, digest) for name, digest in self.engine.adapters.items()}

    def _adapted(self, name: str, digest: str) -> AdaptedModel:
        prompt = self._prompts.get(name, self.prompt)
        return AdaptedModel(replace(self._voice, name=name, prompt=prompt, adapter=digest), self._caveats.get(name))

    def load_adapter(self, name: str, folder: Path) -> AdaptedModel:
        """Reads a PEFT folder while requests run; conversations with it are written by the chat template that lies
        there, if one does. One that was trained beside a rounded base has a caveat.

        Raises `InputError` naming what is wrong with the name or the folder, or that it was trained on another base,
        `Unsupported` for adapters of another kind.
        """
        if self._weights is not None and base_of(folder) is not None:
            check_base(folder, self._weights(), self.name)
        prompt, caveat = self.prompt.beside(folder), self._caveat(name, folder)
        digest = self.engine.load_adapter(name, folder)
        self._prompts[name], self._caveats[name] = prompt, caveat
        return self._adapted(name, digest)

    def _caveat(self, name: str, folder: Path) -> str | None:
        """QLoRA learns to make up for the errors of a rounded base, which the base does not have here: int8 and int4 of
        the engine round otherwise."""
        if (bits := bits_of(folder)) is None:
            return None
        worse, measured = "its answers are worse than they were measured", measured_of(folder)
        if measured is not None:
            worse = f"its held-out loss was {measured[0]:.4g} there, and {measured[1]:.4g} beside the base as it is"
        return (
            f"The adapter '{name}' was trained beside a base in {bits} bits and makes up for errors that "
            f"'{self.name}' in {self.policy} does not make: {worse}. `windlass adapters merge` makes a model of it and "
            f"the base in {bits} bits; serve that."
        )

    def unload_adapter(self, name: str) -> None:
        """Requests that were accepted with it finish with it. Raises `NotFound`."""
        if name not in self.adapters:
            known = ", ".join(f"'{one}'" for one in self.adapters) or "none"
            raise NotFound(f"There is no adapter '{name[:200]}'.", f"Loaded: {known}.")
        self.engine.unload_adapter(name)
        self._prompts.pop(name, None)  # who was accepted holds it
        self._caveats.pop(name, None)

    def close(self, *, drain: bool = False) -> None:
        """Ends the engine: its requests are finished (`drain`) or cancelled, new ones refused."""
        self.engine.close(drain=drain)

    # ---- tokens

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return self.prompt.encode(text, special=special)

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return self.prompt.tokens(messages, opening=add_generation_prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._voice.tokens.decode(tokens)

    def token_facts(self) -> Mapping[str, Any]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        return self.prompt.facts()


def _engine(model: Model, folder: Path, defaults: Defaults, settings: Mapping[str, Any]) -> Engine | SourceEngine:
    if isinstance(model, Decoder):
        here: dict[str, Any] = (
            {"kernel": kernel_here(), "policy": "auto"} if model.embedding.device.type == "cpu" else {}
        )
        engine = Engine(model, **{**here, **settings})
        if settings.get("reproducible"):
            prove(engine.decoder, here.get("kernel"))
        return engine
    if not isinstance(model, EncoderDecoder):
        raise InputError(f"{folder} holds a model that is not a decoder.", "Give a decoder (Llama, ...) or T5.")
    if defaults.start is None:
        raise InputError(f"{folder}/config.json: 'decoder_start_token_id' is missing.", "Every answer begins with it.")
    if settings.get("policy") in ("auto", "fp32"):  # which is what it does
        settings = {name: value for name, value in settings.items() if name != "policy"}
    if refused := settings.keys() - {"max_batch", "adapter_bytes"}:
        raise Unsupported(
            f"{folder} holds an encoder-decoder, which takes no {', '.join(sorted(refused))}.", "Leave that out."
        )
    return SourceEngine(model, start=defaults.start, **settings)
