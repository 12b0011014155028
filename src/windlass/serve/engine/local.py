"""A model folder as a `ChatModel`: the engine, with text at both ends.

Requests of any number of threads run side by side in one engine. A request whose reader goes away ends before the
engine's next step. What does not fit in the model's window is refused with both numbers; nothing is ever cut off
silently.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.hf import load_model
from windlass.build.transformer.model import Model
from windlass.core import semconv
from windlass.core.errors import InputError, NotFound, Unsupported, WindlassError
from windlass.core.files import sha256_file, sha256_json
from windlass.core.trace import Recorder, Span
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, FinishReason, Message, TokenLogprob, Usage
from windlass.serve.engine.adapters.model import AdaptedModel
from windlass.serve.engine.arithmetic.attention import kernel_here
from windlass.serve.engine.constraints.spelling import spell
from windlass.serve.engine.dialect.tools import End
from windlass.serve.engine.engine import Engine, Stats
from windlass.serve.engine.memory import check_memory
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.request import Running, Token
from windlass.serve.engine.sampling.beam import beam_search
from windlass.serve.engine.source import SourceEngine
from windlass.serve.engine.text import Text
from windlass.serve.engine.wishes import INCLUDE_STOP, Defaults, beams, generation

if TYPE_CHECKING:
    from windlass.serve.engine.constraints.grammars import Grammars


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
    ) -> None:
        self.name = name
        self.digest = digest
        self.engine = engine
        self.context = engine.context
        """The window: tokens of prompt and answer together; of an encoder-decoder, of each."""
        self._prompt = prompt
        self._defaults = defaults
        self._recorder = recorder

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
        it is run, the arguments of `Engine` or `SourceEngine`.

        `digest` is that of the artifact; left out, it is computed from the files. Raises `InputError` naming the file,
        field or tensor that is missing or does not fit, or both numbers when memory does not suffice, before loading.
        """
        folder = Path(folder)
        check_memory(folder)
        model = load_model(folder)
        defaults = Defaults.of(folder)
        if digest is None:
            parts = [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("*.json"))]
            digest = sha256_json({path.name: sha256_file(path) for path in parts})
        prompt = Prompt(folder, defaults.bos)
        if prompt.tokenizer.get_vocab_size() > model.config.vocab_size:
            raise InputError(
                f"{folder}: the tokenizer knows {prompt.tokenizer.get_vocab_size()} tokens, but the model only "
                f"{model.config.vocab_size}.",
                "tokenizer.json and config.json belong to different models.",
            )
        started = _engine(model, folder, defaults, engine)
        return cls(name or folder.name, digest, started, prompt, defaults, recorder or Recorder(None))

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

    def stream(self, request: ChatRequest, adapted: AdaptedModel | None = None) -> Iterator[ChatDelta]:
        """Deltas as soon as their characters are certain, written with the adapter of `adapted`, which is then the one
        who answers. Closing the iterator ends the work.

        Raises (at the first step) `InputError` when the prompt does not fit the window or a value is out of range,
        and `Unsupported` for parameters this model cannot honour.
        """
        span = self._recorder.span("chat", "chat").begin()
        span.input = [asdict(message) for message in request.messages]
        try:
            with span.active():
                answer = _Answer(self, request, span, adapted)
            yield from answer.deltas()
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()

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
        loaded = self.engine.adapters if isinstance(self.engine, Engine) else {}
        return {name: AdaptedModel(self, name, digest) for name, digest in loaded.items()}

    def load_adapter(self, name: str, folder: Path) -> AdaptedModel:
        """Reads a PEFT folder while requests run. Raises `InputError` naming what is wrong with the name or the folder,
        `Unsupported` for adapters of another kind and for encoder-decoders."""
        if not isinstance(self.engine, Engine):
            raise Unsupported(f"The model '{self.name}' is an encoder-decoder, which takes no adapters.")
        return AdaptedModel(self, name, self.engine.load_adapter(name, folder))

    def unload_adapter(self, name: str) -> None:
        """Requests that were accepted with it finish with it. Raises `NotFound`."""
        if name not in self.adapters or not isinstance(self.engine, Engine):
            known = ", ".join(f"'{one}'" for one in self.adapters) or "none"
            raise NotFound(f"There is no adapter '{name[:200]}'.", f"Loaded: {known}.")
        self.engine.unload_adapter(name)

    def close(self, *, drain: bool = False) -> None:
        """Ends the engine: its requests are finished (`drain`) or cancelled, new ones refused."""
        self.engine.close(drain=drain)

    # ---- tokens

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return self._prompt.encode(text, special=special)

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        return self._prompt.tokens(messages, opening=add_generation_prompt)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included. Raises `InputError` for a number that is no token."""
        if unknown := [token for token in tokens if self._prompt.tokenizer.id_to_token(token) is None]:
            raise InputError(f"{unknown[0]} is not a token of the model '{self.name}'.")
        return str(self._prompt.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def token_facts(self) -> Mapping[str, Any]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        return self._prompt.facts()

    @functools.cached_property
    def grammars(self) -> Grammars:
        """Makes constraints for this model's tokens."""
        from windlass.serve.engine.constraints.grammars import Grammars

        return Grammars(self._prompt.tokenizer, self._defaults.eos, visible=self._prompt.dialect.marks)

    @functools.cached_property
    def _shown(self) -> Callable[[Sequence[int]], str]:
        """Text of the tokens of an answer."""
        return self._prompt.dialect.decoder(self._prompt.tokenizer)

    @functools.cached_property
    def _bytes(self) -> Sequence[bytes] | None:
        """What each token writes; None where the text is not the sum of its tokens."""
        try:
            return spell(self._prompt.tokenizer).tokens
        except Unsupported:
            return None

    def _named(self, token: int, logprob: float | None, top: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        text = str(self._prompt.tokenizer.decode([token], skip_special_tokens=False))
        written = self._bytes[token] if self._bytes is not None and token < len(self._bytes) else b""
        others = tuple(self._named(*one) for one in top)
        return TokenLogprob(text, logprob, token, written or text.encode(), others)


def _engine(model: Model, folder: Path, defaults: Defaults, settings: Mapping[str, Any]) -> Engine | SourceEngine:
    if isinstance(model, Decoder):
        kernel = kernel_here() if model.embedding.device.type == "cpu" else None
        return Engine(model, **{"kernel": kernel, **settings})
    if not isinstance(model, EncoderDecoder):
        raise InputError(f"{folder} holds a model that is not a decoder.", "Give a decoder (Llama, ...) or T5.")
    if defaults.start is None:
        raise InputError(f"{folder}/config.json: 'decoder_start_token_id' is missing.", "Every answer begins with it.")
    if refused := settings.keys() - {"max_batch"}:
        raise Unsupported(
            f"{folder} holds an encoder-decoder, which takes no {', '.join(sorted(refused))}.", "Leave that out."
        )
    return SourceEngine(model, start=defaults.start, **settings)


class _Answer:
    """One request on its way through the engine."""

    def __init__(self, model: LocalModel, request: ChatRequest, span: Span, adapted: AdaptedModel | None) -> None:
        self._model, self._span = model, span
        self._who = who = model if adapted is None else adapted
        self._asked, self._parts = generation(
            request,
            model._prompt,
            model._defaults,
            lambda: model.grammars,
            model=who.name,
            context=model.context,
            apart=isinstance(model.engine, SourceEngine),
            adapter=None if adapted is None else adapted.name,
        )
        asked = self._asked
        self._beams = beams(request, asked)
        self._text = Text(model._shown, request.stop, include_stop=bool(request.extra.get(INCLUDE_STOP, False)))
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._output = 0
        self._thought = 0
        """Tokens of reasoning."""
        self._reasoning: list[str] = []
        self._pieces: list[str] = []
        self._end = End()
        self._logprobs: list[TokenLogprob] = []
        self._pending: list[TokenLogprob] = []
        """Of tokens whose text is held back."""
        span.attributes.update(
            {
                semconv.PROVIDER: "windlass",
                semconv.REQUEST_MODEL: who.name,
                semconv.REQUEST_TEMPERATURE: asked.sampling.temperature,
                semconv.REQUEST_TOP_P: asked.sampling.top_p,
                semconv.REQUEST_MAX_TOKENS: request.max_tokens,
                semconv.INPUT_TOKENS: len(asked.prompt),
                semconv.MODEL_DIGEST: model.digest,
                semconv.COST_USD: None,
            }
        )
        if adapted is not None:
            span[semconv.ADAPTER_DIGEST] = adapted.adapter
        if request.stop:
            span[semconv.REQUEST_STOP] = list(request.stop)

    def deltas(self) -> Iterator[ChatDelta]:
        running = self._model.engine.submit(self._asked) if self._beams is None else self._search(self._beams)
        self._span[semconv.REQUEST_SEED] = running.seed
        try:
            for token in running:
                self._output += 1
                if token.id in self._asked.stop_tokens:
                    break
                if token.logprob is not None:
                    self._pending.append(self._model._named(*token))
                self._thought += self._parts.thinking
                reasoning, content = self._parts.push(self._text.push(token.id))
                if reasoning or content:
                    yield self._delta(reasoning, content)
                if self._text.stopped:
                    break
            reasoning, content = self._parts.push(self._text.finish())
            rest, self._end = self._parts.finish()
            reasoning, content = reasoning + rest, content + self._end.text
            if reasoning or content or (self._pending and not self._text.stopped):
                yield self._delta(reasoning, content)
        finally:  # also when the reader has left: the trace says what was written until then
            running.cancel()
            self._span[semconv.OUTPUT_TOKENS] = self._output
            self._span.output = {
                "role": "assistant",
                "content": "".join(self._pieces),
                **({"reasoning": "".join(self._reasoning)} if self._reasoning else {}),
                **({"tool_calls": [asdict(call) for call in self._end.calls]} if self._end.calls else {}),
            }
        yield ChatDelta(response=self._response(running))

    def _search(self, settings: Mapping[str, Any]) -> Running:
        """The best answer of a beam search, as if it had just been written."""
        asked, engine = self._asked, self._model.engine
        if isinstance(engine, SourceEngine):
            raise Unsupported(f"The parameter 'beam_width' is not supported by '{self._who.name}'.", "Leave it out.")
        best, *_ = beam_search(
            engine.decoder,
            asked.prompt,
            max_tokens=asked.max_tokens,
            stop_tokens=asked.stop_tokens,
            turn=engine.turn,
            **settings,
        )
        running = Running(asked, lambda: None)
        for token in best.tokens:
            running.deliver(Token(token))
        running.end(best.finish)
        return running

    def _response(self, running: Running) -> ChatResponse:
        stopped = self._text.stopped or running.finish == "stop"
        if not stopped and running.finish != "length":
            raise WindlassError(
                f"The model '{self._who.name}' was ended by its server ({running.finish}).", "Ask again."
            )
        finish: FinishReason = "stop" if stopped else "length"
        if stopped and self._end.calls:
            finish = "tool_calls"
        if running.finish == "stop" and self._end.malformed:
            finish = "error"  # the model wrote a call that is none; it stands in the content
        self._span[semconv.RESPONSE_ID] = self._id
        self._span[semconv.RESPONSE_MODEL] = self._who.name
        self._span[semconv.FINISH_REASONS] = [finish]
        return ChatResponse(
            id=self._id,
            model=self._who.name,
            message=Message("assistant", "".join(self._pieces), self._end.calls, reasoning="".join(self._reasoning)),
            finish_reason=finish,
            usage=Usage(
                input=len(self._asked.prompt) - running.cached,
                cache_read=running.cached,
                output=self._output - self._thought,
                reasoning=self._thought or None,
            ),
            trace_id=self._span.trace_id,
            logprobs=tuple(self._logprobs),
            prompt_logprobs=tuple(self._model._named(*token) for token in running.prompt_logprobs),
        )

    def _delta(self, reasoning: str, content: str) -> ChatDelta:
        if not self._pieces and not self._reasoning:
            self._span[semconv.TIME_TO_FIRST_CHUNK] = (time.time_ns() - self._span.start_ns) / 1e9
        self._pieces += [content] if content else []
        self._reasoning += [reasoning] if reasoning else []
        ready, self._pending = tuple(self._pending), []
        self._logprobs += ready
        return ChatDelta(content, reasoning=reasoning, logprobs=ready)
