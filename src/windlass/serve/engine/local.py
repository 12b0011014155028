"""A model folder as a `ChatModel`: reads the prompt, then writes token by token until something says stop.

Requests in progress share the processor step by step (`turns.py`), each with a key/value cache of its own. A request
whose reader goes away ends with the step it is in. What does not fit in the model's window is refused with both
numbers; nothing is ever cut off silently.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.core import semconv
from windlass.core.errors import InputError, Unsupported
from windlass.core.files import sha256_file, sha256_json
from windlass.core.trace import Recorder, Span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, FinishReason, Message, Usage
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.sampling import Sampler, Sampling, choose
from windlass.serve.engine.text import Text
from windlass.serve.engine.turns import Turns

PREFILL_CHUNK = 512
"""Tokens of a prompt read in one turn, so that a long prompt does not hold up the others' next word."""

RAW_PROMPT = "raw_prompt"
"""Key of `ChatRequest.extra` (true or false): read the one user message as it stands, without the chat template."""


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What generation_config.json says, for requests that do not."""

    temperature: float
    top_p: float
    eos: frozenset[int]
    bos: int | None


class LocalModel:
    """Implements `core.protocols.ChatModel`. Safe to share between threads."""

    def __init__(
        self, name: str, digest: str, decoder: Decoder, prompt: Prompt, defaults: _Defaults, recorder: Recorder
    ) -> None:
        self.name = name
        self.digest = digest
        self.context = decoder.config.context
        """The window: tokens of prompt and answer together."""
        self._decoder = decoder.eval().requires_grad_(False)
        self._prompt = prompt
        self._defaults = defaults
        self._recorder = recorder
        self._turns = Turns()

    @classmethod
    def load(
        cls, folder: Path, *, name: str | None = None, digest: str | None = None, recorder: Recorder | None = None
    ) -> LocalModel:
        """Loads a Hugging Face model folder of the Llama family: config, weights, tokenizer.

        `digest` is that of the artifact; left out, it is computed from the files. Raises `InputError` naming the file,
        field or tensor that is missing or does not fit.
        """
        folder = Path(folder)
        decoder = load_decoder(folder)
        defaults = _defaults(folder)
        if digest is None:
            parts = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.json"))]
            digest = sha256_json({path.name: sha256_file(path) for path in parts})
        prompt = Prompt(folder, defaults.bos)
        if prompt.tokenizer.get_vocab_size() > decoder.config.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer knows {prompt.tokenizer.get_vocab_size()} tokens, but the model only "
                f"{decoder.config.vocab_size}.",
                "tokenizer.json and config.json belong to different models.",
            )
        return cls(name or folder.name, digest, decoder, prompt, defaults, recorder or Recorder(None))

    @property
    def is_base(self) -> bool:
        """Whether the model has no chat template, and so continues the text of one user message."""
        return self._prompt.is_base

    def complete(self, request: ChatRequest) -> ChatResponse:
        response = None
        for delta in self.stream(request):
            response = delta.response
        assert response is not None, "the last delta carries the response"
        return response

    def stream(self, request: ChatRequest) -> Iterator[ChatDelta]:
        """Deltas as soon as their characters are certain. Closing the iterator ends the work.

        Raises (at the first step) `InputError` when the prompt does not fit the window or a value is out of range,
        and `Unsupported` for parameters this model cannot honour.
        """
        span = self._recorder.span("chat", "chat").begin()
        span.input = [asdict(message) for message in request.messages]
        try:
            with span.active():
                run = _Generation(self, request, span)
            yield from run.deltas()
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()

    @torch.inference_mode()
    def _read(self, ids: list[int], cache: KVCache) -> Tensor:
        """Reads tokens behind those in the cache; logits of the next one, shape (vocabulary,)."""
        with self._turns.turn():
            return self._decoder.prefill(torch.tensor([ids]), cache)[0]


class _Generation:
    """One request on its way through the model."""

    def __init__(self, model: LocalModel, request: ChatRequest, span: Span) -> None:
        raw = request.beyond_text()
        as_it_stands = raw.pop(RAW_PROMPT, False)
        for name in raw:
            raise Unsupported(f"The parameter '{name}' is not supported by the model '{model.name}'.", "Leave it out.")
        defaults = model._defaults
        self._model = model
        self._span = span
        self._prompt = model._prompt.tokens(request.messages, raw=bool(as_it_stands))
        settings = Sampling(
            temperature=defaults.temperature if request.temperature is None else request.temperature,
            top_p=defaults.top_p if request.top_p is None else request.top_p,
            seed=request.seed,
        )
        self._sampler = Sampler(settings, self._prompt)
        self._text = Text(lambda ids: str(model._prompt.tokenizer.decode(ids, skip_special_tokens=True)), request.stop)
        self._limit = self._tokens_allowed(request.max_tokens)
        self._output = 0
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        span.attributes.update(
            {
                semconv.PROVIDER: "windlass",
                semconv.REQUEST_MODEL: model.name,
                semconv.REQUEST_TEMPERATURE: self._sampler.settings.temperature,
                semconv.REQUEST_TOP_P: self._sampler.settings.top_p,
                semconv.REQUEST_SEED: self._sampler.seed,
                semconv.REQUEST_MAX_TOKENS: request.max_tokens,
                semconv.INPUT_TOKENS: len(self._prompt),
                semconv.MODEL_DIGEST: model.digest,
                semconv.COST_USD: None,
            }
        )
        if request.stop:
            span[semconv.REQUEST_STOP] = list(request.stop)

    def _tokens_allowed(self, wanted: int | None) -> int:
        room = self._model.context - len(self._prompt)
        if room < 1:
            raise InputError(
                f"The prompt has {len(self._prompt)} tokens, but the model '{self._model.name}' reads at most "
                f"{self._model.context}, the answer included.",
                "Shorten the prompt.",
            )
        if wanted is None:
            return room
        if wanted < 1:
            raise InputError(f"max_tokens is {wanted}, but must be at least 1.")
        if wanted > room:
            raise InputError(
                f"max_tokens is {wanted}, but after a prompt of {len(self._prompt)} tokens the window of the model "
                f"'{self._model.name}' ({self._model.context}) has room for {room}.",
                "Shorten the prompt, or ask for fewer tokens.",
            )
        return wanted

    def deltas(self) -> Iterator[ChatDelta]:
        pieces: list[str] = []
        finish: FinishReason = "length"
        try:
            for token in self._tokens():
                if token in self._model._defaults.eos:
                    finish = "stop"
                    break
                if piece := self._text.push(token):
                    yield self._piece(pieces, piece)
                if self._text.stopped:
                    break
            if piece := self._text.finish():
                yield self._piece(pieces, piece)
            if self._text.stopped:
                finish = "stop"
        finally:  # also when the reader has left: the trace says what was written until then
            text = "".join(pieces)
            self._span[semconv.OUTPUT_TOKENS] = self._output
            self._span.output = {"role": "assistant", "content": text}
        self._span[semconv.RESPONSE_ID] = self._id
        self._span[semconv.RESPONSE_MODEL] = self._model.name
        self._span[semconv.FINISH_REASONS] = [finish]
        response = ChatResponse(
            id=self._id,
            model=self._model.name,
            message=Message("assistant", text),
            finish_reason=finish,
            usage=Usage(input=len(self._prompt), output=self._output),
            trace_id=self._span.trace_id,
        )
        yield ChatDelta(response=response)

    def _tokens(self) -> Iterator[int]:
        """The tokens the model writes, at most the limit; each is read back only when the next one is asked for."""
        cache = self._model._decoder.new_cache(capacity=len(self._prompt) + self._limit)
        for start in range(0, len(self._prompt), PREFILL_CHUNK):
            logits = self._model._read(self._prompt[start : start + PREFILL_CHUNK], cache)
        while True:
            token = choose(logits[None], [self._sampler])[0].id
            self._output += 1
            yield token
            if self._output == self._limit:
                return
            logits = self._model._read([token], cache)

    def _piece(self, pieces: list[str], piece: str) -> ChatDelta:
        if not pieces:
            self._span[semconv.TIME_TO_FIRST_CHUNK] = (time.time_ns() - self._span.start_ns) / 1e9
        pieces.append(piece)
        return ChatDelta(piece)


def _defaults(folder: Path) -> _Defaults:
    merged: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):  # the later one wins, as in transformers
        path = folder / name
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path} is not valid JSON ({error}).") from error
            merged |= {key: value for key, value in found.items() if value is not None}
    eos = merged.get("eos_token_id", [])
    greedy = merged.get("do_sample") is False
    return _Defaults(
        temperature=0.0 if greedy else float(merged.get("temperature", 1.0)),
        top_p=float(merged.get("top_p", 1.0)),
        eos=frozenset(eos if isinstance(eos, list) else [eos]),
        bos=merged.get("bos_token_id"),
    )
