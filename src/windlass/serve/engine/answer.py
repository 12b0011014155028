"""One request on its way through the engine, from what was asked to the deltas of the answer.

    answer = Answer(voice, request)
    for delta in answer: ...        # `answer.cancel()` from any thread ends it, wherever it is
    answer.listen(wake)             # or, without waiting: `answer.poll()` whenever `wake` was called

A request leaves the engine as soon as it is cancelled: out of its queue, between two parts of a long prompt, or
between two tokens.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

from windlass.core import semconv
from windlass.core.errors import TimedOut, Unsupported, WindlassError
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, FinishReason, Message, TokenLogprob, Usage
from windlass.serve.engine.dialect.tools import End, Piece
from windlass.serve.engine.request import Finish, Running
from windlass.serve.engine.sampling.beam import beam_search
from windlass.serve.engine.sampling.token import Token
from windlass.serve.engine.source import SourceEngine
from windlass.serve.engine.text import Text
from windlass.serve.engine.voice import Voice
from windlass.serve.engine.wishes import INCLUDE_STOP, beams, generation


class Answer(Iterator[ChatDelta]):
    """Implements `core.protocols.Polled`. Nothing happens before the first step, which raises what is wrong with
    the request. One that is dropped half read is closed."""

    def __init__(self, voice: Voice, request: ChatRequest) -> None:
        self._work = _Work(voice, request)
        self._deltas = self._work.deltas()

    def __next__(self) -> ChatDelta:
        delta = next(self._deltas)
        assert delta is not None, "one that is polled is not iterated over"
        return delta

    def listen(self, wake: Callable[[], None]) -> None:
        self._work.heard = wake

    def poll(self) -> ChatDelta | None:
        return next(self._deltas)

    def cancel(self) -> None:
        self._work.leave()

    def close(self) -> None:
        self._deltas.close()


class _Left(Exception):
    """Nobody waits for this answer any more."""


class _Work:
    """Apart from `Answer`, which is then no cycle: the last reference to it ends the work at once."""

    def __init__(self, voice: Voice, request: ChatRequest) -> None:
        self._voice, self._request = voice, request
        self._span = voice.recorder.span("chat", "chat")
        self.heard: Callable[[], None] | None = None
        """Told when there may be more to read, by whoever does not wait for it."""
        self._left = False
        self._running: Running | None = None

    def leave(self) -> None:
        """From any thread."""
        self._left = True  # before the look at what is running: whoever starts it looks at this afterwards
        if self._running is not None:
            self._running.cancel()

    def deltas(self) -> Generator[ChatDelta | None]:
        """None: there is none yet, which only those are told who do not wait."""
        span = self._span.begin()
        span.input = [asdict(message) for message in self._request.messages]
        try:
            with span.active():
                self._prepare()
            yield from self._written()
        except _Left:
            span.finish(GeneratorExit())
            return
        except BaseException as error:
            span.finish(error)
            raise
        span.finish()

    def _prepare(self) -> None:
        voice, request, span = self._voice, self._request, self._span
        prompt = voice.prompt
        self._asked, self._parts = generation(
            request,
            prompt,
            voice.defaults,
            lambda: voice.tokens.grammars(prompt.dialect.marks),
            model=voice.name,
            context=voice.context,
            apart=isinstance(voice.engine, SourceEngine),
            adapter=None if voice.adapter is None else voice.name,
        )
        asked = self._asked
        self._beams = beams(request, asked)
        self._text = Text(prompt.characters(), request.stop, include_stop=bool(request.extra.get(INCLUDE_STOP, False)))
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._output = 0
        self._thought = 0
        """Tokens of reasoning."""
        self._begun = False
        self._reasoning: list[str] = []
        self._pieces: list[str] = []
        self._end = End()
        self._logprobs: list[TokenLogprob] = []
        self._pending: list[TokenLogprob] = []
        """Of tokens whose text is held back."""
        span.attributes.update(
            {
                semconv.PROVIDER: "windlass",
                semconv.REQUEST_MODEL: self._voice.name,
                semconv.REQUEST_TEMPERATURE: asked.sampling.temperature,
                semconv.REQUEST_TOP_P: asked.sampling.top_p,
                semconv.REQUEST_MAX_TOKENS: request.max_tokens,
                semconv.INPUT_TOKENS: len(asked.prompt),
                semconv.MODEL_DIGEST: voice.digest,
                semconv.MODEL_POLICY: voice.policy,
                semconv.COST_USD: None,
            }
        )
        if voice.adapter is not None:
            span[semconv.ADAPTER_DIGEST] = voice.adapter
        if request.stop:
            span[semconv.REQUEST_STOP] = list(request.stop)

    def _written(self) -> Generator[ChatDelta | None]:
        running = self._voice.engine.submit(self._asked) if self._beams is None else self._search(self._beams)
        self._running = running
        if self._left:
            running.cancel()
        self._span[semconv.REQUEST_SEED] = running.seed
        try:
            for token in running if self.heard is None else running.polled(self.heard):
                if token is None:
                    yield None
                    continue
                self._output += 1
                if token.id in self._asked.stop_tokens:
                    continue  # it is the last; how the request ended is said behind it
                if token.logprob is not None:
                    self._pending.append(self._voice.tokens.named(*token))
                self._thought += self._parts.thinking
                if piece := self._parts.push(self._text.push(token.id)):
                    yield self._delta(piece)
                if self._text.stopped:
                    break
            piece = self._parts.push(self._text.finish())
            rest, self._end = self._parts.finish()
            if (piece := piece + rest) or (self._pending and not self._text.stopped):
                yield self._delta(piece)
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
        asked, engine = self._asked, self._voice.engine
        if isinstance(engine, SourceEngine):
            raise Unsupported(f"The parameter 'beam_width' is not supported by '{self._voice.name}'.", "Leave it out.")
        engine.check(asked)

        def turn(step: Callable[[], None]) -> None:
            if self._left:
                self._unfinished("cancelled")
            if asked.deadline is not None and asked.deadline <= time.monotonic():
                self._unfinished("deadline")
            engine.turn(step)

        best, *_ = beam_search(
            engine.decoder,
            asked.prompt,
            max_tokens=asked.max_tokens,
            stop_tokens=asked.stop_tokens,
            turn=turn,
            **settings,
        )
        running = Running(asked, lambda: None)
        for token in best.tokens:
            running.deliver(Token(token))
        running.end(best.finish)
        return running

    def _unfinished(self, finish: Finish | None) -> NoReturn:
        """Why there is no whole answer."""
        if self._left:
            raise _Left
        if finish == "deadline":
            took = max(0.0, self._request.timeout or 0.0)
            raise TimedOut(
                f"The model '{self._voice.name}' had not finished its answer after {took:.1f} s.",
                "Ask for fewer tokens, or allow more time.",
            )
        raise WindlassError(f"The model '{self._voice.name}' was ended by its server ({finish}).", "Ask again.")

    def _response(self, running: Running) -> ChatResponse:
        stopped = self._text.stopped or running.finish == "stop"
        if not stopped and running.finish != "length":
            self._unfinished(running.finish)
        finish: FinishReason = "stop" if stopped else "length"
        if stopped and self._end.calls:
            finish = "tool_calls"
        if running.finish == "stop" and self._end.malformed:
            finish = "error"  # the model wrote a call that is none; it stands in the content
        self._span[semconv.RESPONSE_ID] = self._id
        self._span[semconv.RESPONSE_MODEL] = self._voice.name
        self._span[semconv.FINISH_REASONS] = [finish]
        return ChatResponse(
            id=self._id,
            model=self._voice.name,
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
            prompt_logprobs=tuple(self._voice.tokens.named(*token) for token in running.prompt_logprobs),
        )

    def _delta(self, piece: Piece) -> ChatDelta:
        if not self._begun:
            self._begun = True
            self._span[semconv.TIME_TO_FIRST_CHUNK] = (time.time_ns() - self._span.start_ns) / 1e9
        self._pieces += [piece.text] if piece.text else []
        self._reasoning += [piece.reasoning] if piece.reasoning else []
        ready, self._pending = tuple(self._pending), []
        self._logprobs += ready
        return ChatDelta(piece.text, reasoning=piece.reasoning, logprobs=ready, calls=piece.calls)
