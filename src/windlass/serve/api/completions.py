"""POST /v1/completions: goes on with texts, or with token numbers, as they stand.

What log-likelihood evaluations need: several prompts in one request, prompts as tokens, and `echo` with `logprobs`,
which scores the prompt itself (its first token follows nothing and has no log-probability).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.responses import Response

from windlass.core.protocols import Tokenizing
from windlass.core.values import ChatDelta, ChatRequest, ChatResponse, Message, TokenLogprob
from windlass.serve.api.context import Answers, Context
from windlass.serve.api.envelope import Envelope, envelope_schema
from windlass.serve.api.fields import Check, Json, Table, array, flag, integer, kind, only, text
from windlass.serve.api.generate import (
    MAX_CHOICES,
    MAX_LOGPROBS,
    MAX_TOKENS,
    TEXT,
    VOCABULARY,
    Call,
    text_request,
    times,
)
from windlass.serve.api.messages import extension_json
from windlass.serve.api.operation import TEXT_, Caller, Operation
from windlass.serve.api.sse import DONE, EventStream, Put, Template
from windlass.serve.errors import BadField

Prompt = str | list[int]
_TOKENS = array(integer(0, VOCABULARY), least=1, most=MAX_TOKENS)


def _prompts(most: int) -> Check:
    """One text or list of tokens, or a list of them."""

    def read(at: str, value: Any) -> list[Prompt]:
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not value:
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a text, a list of texts, or lists of tokens.")
        if isinstance(value[0], str):
            texts: list[Prompt] = array(text(), most=most)(at, value)
            return texts
        if isinstance(value[0], list):
            lists: list[Prompt] = array(_TOKENS, most=most)(at, value)
            return lists
        return [_TOKENS(at, value)]

    one = {"type": "string"}
    several = [array(text(), least=1, most=most).schema, _TOKENS.schema, array(_TOKENS, least=1, most=most).schema]
    return Check({"anyOf": [one, *several]}, read)


def operation(context: Context) -> Operation:
    table: Table = {
        "model": context.model_field(context.models),
        "prompt": _prompts(context.limits.prompts),
        **TEXT,
        "max_tokens": integer(0, MAX_TOKENS),
        "n": integer(1, MAX_CHOICES),
        "best_of": integer(1, MAX_CHOICES),
        "echo": flag,
        "logprobs": integer(0, MAX_LOGPROBS),
        "suffix": only(""),
    }

    async def handle(caller: Caller, fields: Json) -> Json | Response:
        made = _Completions(fields, context)
        if made.call.stream:
            return EventStream(lambda put: made.chunks(partial(context.answers, made.call, caller), put))
        return made.whole(await context.answers(made.call, caller))

    return Operation(
        method="POST",
        path="/v1/completions",
        summary="Goes on with a text",
        scope="generate",
        table=table,
        required=("model", "prompt"),
        answer=ANSWER,
        streams=True,
        handle=handle,
        errors=(404,),
    )


class _Completions:
    """One request: its call, and its answers as JSON."""

    def __init__(self, fields: Json, context: Context) -> None:
        self._logprobs: int | None = fields.get("logprobs")
        self._echo: bool = fields.get("echo", False)
        self._n: int = fields.get("n", 1)
        best_of: int | None = fields.get("best_of")
        self._best_of = best_of or self._n
        self._prompts: list[Prompt] = fields["prompt"]
        self._nothing_new = fields.get("max_tokens") == 0
        stream = fields.get("stream", False)
        if self._best_of < self._n:
            raise BadField("best_of", f"'best_of' is {self._best_of}, but 'n' is {self._n}.", "It must be at least n.")
        if self._best_of > self._n and stream:
            raise BadField("best_of", "'best_of' cannot be streamed: the best is known at the end only.")
        if self._nothing_new and not self._echo:
            raise BadField("max_tokens", "'max_tokens' is 0, which only makes sense with 'echo'.")
        self._texts = [self._text(context, fields["model"], prompt) for prompt in self._prompts] if self._echo else []
        requests = [one for prompt in self._prompts for one in times(self._request(fields, prompt), self._best_of)]
        include_usage = fields.get("stream_options", {}).get("include_usage", False)
        self.call = Call(fields["model"], requests, stream, include_usage)
        self._envelope = Envelope(self.call, KIND, KIND, prefix="cmpl")

    def _request(self, fields: Json, prompt: Prompt) -> ChatRequest:
        extra: Json = {"raw_prompt": True} if isinstance(prompt, str) else {"prompt_token_ids": prompt}
        if self._echo and self._logprobs is not None:
            extra["prompt_logprobs"] = self._logprobs
        # Without log-probabilities nobody knows which answer is best.
        logprobs = self._logprobs if self._logprobs is not None or self._best_of == self._n else 0
        message = Message("user", prompt if isinstance(prompt, str) else "")
        request = text_request(fields, messages=[message], logprobs=logprobs, extra=extra)
        # A model writes at least one token; where none is wanted it is left out of the answer.
        return replace(request, max_tokens=1 if self._nothing_new else fields.get("max_tokens"))

    def _text(self, context: Context, name: str, prompt: Prompt) -> str:
        """What is echoed."""
        if isinstance(prompt, str):
            return prompt
        model = context.named(context.models, name)
        if not isinstance(model, Tokenizing):
            raise BadField("echo", f"'echo' of tokens needs a model whose tokens are known; '{name}' is not one.")
        return model.decode(prompt)

    # whole -----------------------------------------------------------------------------------------------------------

    def whole(self, responses: Sequence[ChatResponse]) -> Json:
        step = self._best_of
        prompts = [responses[at : at + step] for at in range(0, len(responses), step)]
        choices: list[Json] = []
        for which, answers in enumerate(prompts):
            best = sorted(answers, key=_mean_logprob, reverse=True) if self._best_of > self._n else answers
            choices += [self._choice(len(choices) + i, which, answer) for i, answer in enumerate(best[: self._n])]
        return self._envelope.whole(choices, prompts)

    def _choice(self, index: int, which: int, answer: ChatResponse) -> Json:
        said = "" if self._nothing_new else answer.message.text
        tokens = () if self._nothing_new else answer.logprobs
        before = self._texts[which] if self._echo else ""
        logprobs: Json | None = None
        if self._logprobs is not None:
            logprobs = _legacy([*(answer.prompt_logprobs if self._echo else ()), *tokens], 0)
        finish = "length" if self._nothing_new else answer.finish_reason
        return {"index": index, "text": before + said, "logprobs": logprobs, "finish_reason": finish}

    # stream ----------------------------------------------------------------------------------------------------------

    async def chunks(self, answers: Answers, put: Put) -> None:
        sent = [0] * len(self.call.requests)
        templates: dict[int, Template] = {}
        """Of the answers that have begun."""

        def take(index: int, delta: ChatDelta) -> None:
            told = b""
            if index not in templates:
                templates[index] = Template(self._chunk(index, Template.BLANK))
                before = self._texts[index // self._n] if self._echo else ""
                sent[index] = len(before)
                told = self._chunk(index, before)
            if not self._nothing_new and delta.logprobs:
                told += self._chunk(index, delta.text, logprobs=_legacy(delta.logprobs, sent[index]))
            elif not self._nothing_new and delta.text:
                told += templates[index].filled(delta.text)
            sent[index] += len(delta.text)
            if delta.response is not None:
                scored = None
                if self._echo and self._logprobs is not None:
                    scored = _legacy(delta.response.prompt_logprobs, 0)
                finish = "length" if self._nothing_new else delta.response.finish_reason
                about = extension_json(delta.response)
                told += self._chunk(index, "", finish=finish, logprobs=scored, windlass=about)
            put(told)

        responses = await answers(take)
        prompts = [responses[at : at + self._n] for at in range(0, len(responses), self._n)]
        put(self._envelope.usage(prompts) + DONE)

    def _chunk(
        self, index: int, text: str, *, finish: str | None = None, logprobs: Json | None = None, **more: Any
    ) -> bytes:
        shown = logprobs if self._logprobs is not None and logprobs and logprobs["tokens"] else None
        choice = {"index": index, "text": text, "logprobs": shown, "finish_reason": finish}
        return self._envelope.chunk(choice, **more)


def _mean_logprob(answer: ChatResponse) -> float:
    known = [one.logprob for one in answer.logprobs if one.logprob is not None]
    return sum(known) / len(known) if known else float("-inf")


def _legacy(tokens: Sequence[TokenLogprob], offset: int) -> Json:
    """Log-probabilities as this endpoint has always had them: four lists of equal length."""
    offsets = []
    for one in tokens:
        offsets.append(offset)
        offset += len(one.token)
    return {
        "tokens": [one.token for one in tokens],
        "token_logprobs": [one.logprob for one in tokens],
        # The token itself may be missing among the likeliest: OpenAI's service adds it, and so do we.
        "top_logprobs": [
            None if one.logprob is None else {other.token: other.logprob for other in (*reversed(one.top), one)}
            for one in tokens
        ],
        "text_offset": offsets,
    }


KIND = "text_completion"
ANSWER = envelope_schema(KIND, {"text": TEXT_})
