"""A model behind `POST /v1/completions`, as benchmarks ask it: log-likelihoods by `echo` with `logprobs`, and texts.

vLLM, SGLang, llama-cpp-python, OpenAI's base models and windlass's own server offer that; chat endpoints of today's
providers do not tell how likely a text is, and can only be asked to write. Where a continuation begins among the tokens
is found by having the context echoed alone: its tokens are cut off, as lm-evaluation-harness does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from windlass.apply.providers.dialects.dialect import Call
from windlass.apply.providers.remote import RemoteChat
from windlass.core.errors import InputError, ProviderError, Unsupported, WindlassError
from windlass.core.protocols import Likelihood, Prompt
from windlass.core.values import ChatRequest

T = TypeVar("T")
_OF_ONE_REQUEST = (400, 413, 422)
"""Statuses that speak about what was asked, not about the endpoint."""
_PROMPTS = 16
"""Of one call."""


@dataclass(frozen=True, slots=True)
class _Echo:
    """The tokens of a text, each with its log-probability (None: nothing stands before it)."""

    tokens: Sequence[str]
    logprobs: Sequence[float | None]
    best: Sequence[float | None]
    """Of the likeliest token in the place of each."""


class RemoteLanguageModel:
    """Implements `core.protocols.LanguageModel`. Conversations go to the chat endpoint, texts to `/completions`.

    Raises `ProviderError` for what goes wrong there, `Unsupported` where the endpoint cannot tell what is asked.
    """

    def __init__(self, chat: RemoteChat, *, digest: str | None = None, at_once: int = 8) -> None:
        """`digest`: of the model, where the endpoint tells it. `at_once`: calls under way together."""
        self._chat, self.digest, self._at_once = chat, digest, at_once

    @property
    def name(self) -> str:
        return self._chat.name

    def identity(self) -> Mapping[str, Any]:
        """What its scores hang on; what runs behind an address nobody knows, unless it tells."""
        return {"model": self.digest, "endpoint": self._chat.identity}

    def close(self) -> None:
        self._chat.close()

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:
        split = []
        for prompt, continuation in pairs:
            if not isinstance(prompt, str):
                raise Unsupported(
                    f"How likely a text is behind a conversation, '{self.name}' does not tell.",
                    "Leave out --chat, or choose benchmarks whose answers are written.",
                )
            context = prompt.rstrip()
            split.append((context, prompt + continuation))
        texts = dict.fromkeys(text for pair in split for text in pair if text)
        echoes = dict(zip(texts, self._echoed(list(texts)), strict=True))
        return [self._after(echoes.get(context), echoes[whole], whole) for context, whole in split]

    def rolling(self, texts: Sequence[str]) -> list[Likelihood | WindlassError]:
        return [self._after(None, echo, text) for echo, text in zip(self._echoed(texts), texts, strict=True)]

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str | WindlassError]:
        common = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}

        def one(prompt: Prompt) -> str:
            if isinstance(prompt, str):
                value = self._completed({"prompt": prompt, **common, **({"stop": list(stop)} if stop else {})})
                with self._chat.understood():
                    return _text(value["choices"][0]["text"])
            request = ChatRequest(prompt, stop=tuple(stop), temperature=temperature, max_tokens=max_tokens)
            return self._chat.complete(request).message.text

        return self._each(lambda prompt: _or_error(lambda: one(prompt)), prompts)

    # ---- echoes

    def _echoed(self, texts: Sequence[str]) -> list[_Echo | WindlassError]:
        batches = [texts[start : start + _PROMPTS] for start in range(0, len(texts), _PROMPTS)]
        return [echo for batch in self._each(self._batch, batches) for echo in batch]

    def _batch(self, texts: Sequence[str]) -> list[_Echo | WindlassError]:
        try:
            return [*self._echo(texts)]
        except ProviderError as error:
            if error.status not in _OF_ONE_REQUEST:
                raise
            if len(texts) == 1:
                return [error]
        return [echo for text in texts for echo in self._batch([text])]  # to see which of them it is

    def _echo(self, texts: Sequence[str]) -> Iterator[_Echo]:
        body = {"prompt": list(texts), "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0.0}
        value = self._completed(body)
        with self._chat.understood():
            choices = sorted(value["choices"], key=lambda one: one["index"])
            if len(choices) != len(texts):
                raise ValueError(f"{len(choices)} choices for {len(texts)} prompts")
            for choice in choices:
                said = choice["logprobs"]
                if said is None:
                    raise ValueError("no logprobs")
                best = [max(top.values()) if top else None for top in said["top_logprobs"]]
                yield _Echo(said["tokens"], said["token_logprobs"], best)

    def _after(
        self, context: _Echo | WindlassError | None, whole: _Echo | WindlassError, text: str
    ) -> Likelihood | WindlassError:
        """Of what stands behind the context."""
        for echo in (context, whole):
            if isinstance(echo, WindlassError):
                return echo
        assert isinstance(whole, _Echo)
        first = len(context.tokens) if isinstance(context, _Echo) else 0
        if first == 0:
            if "".join(whole.tokens) == text:
                raise Unsupported(
                    f"'{self.name}' at {self._chat.endpoint.base_url} begins texts with no token of its own, so that "
                    "nobody knows how likely their first token is.",
                    "Choose benchmarks with a prompt, or evaluate the model's folder.",
                )
            first = 1
        logprobs, best = whole.logprobs[first:], whole.best[first:]
        if not logprobs:
            return InputError(
                "The continuation adds no token to its context.", "Its characters end one that began there."
            )
        known = [one for one in logprobs if one is not None]
        if len(known) < len(logprobs):
            return ProviderError(f"{self._chat.endpoint.base_url} left out the log-probability of a token.")
        greedy = all(top is not None and one >= top for one, top in zip(known, best))
        return Likelihood(float(sum(known)), greedy, len(known))

    # ---- calls

    def _completed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._chat.endpoint.post(Call("/completions", {"model": self.name, **body}))

    def _each(self, work: Callable[[Any], T], over: Sequence[Any]) -> list[T]:
        with ThreadPoolExecutor(self._at_once) as pool:
            return list(pool.map(work, over))


def _or_error(work: Callable[[], str]) -> str | WindlassError:
    try:
        return work()
    except InputError as error:
        return error
    except ProviderError as error:
        if error.status not in _OF_ONE_REQUEST:
            raise
        return error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text should be")
    return value
