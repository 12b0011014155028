"""A local model as benchmarks ask it: log-likelihoods of texts, and what it writes. Texts become tokens as in
lm-evaluation-harness, so that scores are its scores.

A continuation is tokenised together with its context and cut off behind the context's own tokens; white space at the
end of a context belongs to the continuation, as most vocabularies hold words with the space before them. An empty
context is the token that texts begin with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError, TooLong, Unsupported, WindlassError
from windlass.core.protocols import Likelihood, Prompt
from windlass.core.values import ChatRequest, Message
from windlass.serve.engine.arithmetic import native
from windlass.serve.engine.arithmetic.fused import fuse
from windlass.serve.engine.arithmetic.packed import pack
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.local import LocalModel
from windlass.serve.engine.scoring.scorer import Scorer
from windlass.serve.engine.wishes import PROMPT_TOKENS

Tokens = list[int]
_AT_ONCE = 32
"""Requests for text that wait in the engine together."""
_CHUNK = 1024
"""Tokens of one pass: nobody else waits for it."""


class EngineLanguageModel:
    """Implements `core.protocols.LanguageModel` by windlass's engine. Raises `Unsupported` for an encoder-decoder.

    `bos`: begin each text with the model's first token, also where its tokenizer does not; never: not even where the
    tokenizer does; None: as the tokenizer does it. `truncate`: cut what is too long at its left, as
    lm-evaluation-harness does, and count it in `truncated`; else it is an error in the place of its answer.
    """

    def __init__(self, model: LocalModel, *, bos: bool | None = None, truncate: bool = False) -> None:
        if not isinstance(model.engine, Engine):
            raise Unsupported(f"'{model.name}' is an encoder-decoder, whose texts are not scored.", "Give a decoder.")
        self._model, self._engine = model, model.engine
        decoder = model.engine.decoder
        if model.policy == "fp32":
            model.engine.turn(lambda: _ready(decoder))
        self._scorer = Scorer(decoder, chunk=_CHUNK, turn=model.engine.turn)
        self._tokenizer = model.prompt.tokenizer
        self._bos, self._truncate = bos, truncate
        self._opening = model.token_facts()["bos_token"]
        self._prefix = self._first_token()
        self.truncated = 0
        """Requests that were cut."""

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def digest(self) -> str:
        return self._model.digest

    @property
    def context(self) -> int:
        """Tokens that it reads at once."""
        return self._model.context

    def identity(self) -> Mapping[str, Any]:
        """What its scores hang on."""
        return {
            "model": self.digest,
            "policy": self._model.policy,
            "bos": self._bos,
            "truncate": self._truncate,
        }

    def close(self) -> None:
        self._model.close()

    # ---- the protocol

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:
        return self._scored([self._fitting(pair) for pair in self._encoded(pairs)])

    def rolling(self, texts: Sequence[str]) -> list[Likelihood | WindlassError]:
        """A text begins behind the token that texts begin with. One that the tokenizer itself puts there is scored as
        well: so perplexities are counted everywhere."""
        ids = self._tokens({self._as_read(text) for text in texts})
        rows = [ids[self._as_read(text)] for text in texts]
        scores = iter(self._scorer.rolling([row for row in rows if row], start=self._prefix))
        return [Likelihood(next(scores), False, len(row)) if row else _no_text() for row in rows]

    def write(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str | WindlassError]:
        if max_tokens < 1:
            raise InputError(f"max_tokens is {max_tokens}.", "Let it write at least one token.")
        texts = [self._text(prompt) for prompt in prompts]
        ids = self._tokens(set(texts))

        def one(text: tuple[str, bool]) -> str | WindlassError:
            try:
                tokens, room = self._with_room(ids[text], max_tokens)
                request = ChatRequest(
                    [Message("user", "")], temperature=temperature, max_tokens=room, stop=tuple(stop), seed=seed,
                    extra={PROMPT_TOKENS: tokens},
                )  # fmt: skip
                return self._model.complete(request).message.text
            except InputError as error:
                return error

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(one, texts))

    # ---- texts, as they are or as lm-evaluation-harness has them ready

    def render(self, messages: Sequence[Message], *, opening: bool = True) -> str:
        """A conversation as the model's chat template writes it."""
        return self._model.prompt.text(messages, opening=opening)

    def facts(self) -> Mapping[str, Any]:
        """`bos_token`, `eos_token`, `pad_token` and `chat_template`, as texts or None."""
        return self._model.token_facts()

    def _text(self, prompt: Prompt) -> tuple[str, bool]:
        """The text that is read, and whether the tokenizer may put its own tokens around it."""
        return self._as_read(prompt) if isinstance(prompt, str) else (self.render(prompt), False)

    def _as_read(self, text: str) -> tuple[str, bool]:
        opened = self._opening is not None and text.startswith(self._opening)
        return text, self._bos is not False and not opened

    def _encoded(self, pairs: Sequence[tuple[Prompt, str]]) -> list[tuple[Tokens, Tokens]]:
        split, texts = [], set()
        for prompt, continuation in pairs:
            text, special = self._text(prompt)
            context = text.rstrip()
            whole = text + continuation
            special = special and bool(context)
            split.append((context, whole, special))
            texts |= {(context, special), (whole, special)}
        ids = self._tokens(texts)
        found = []
        for context, whole, special in split:
            before, both = ids[context, special], ids[whole, special]
            if not context:
                before = [self._prefix] if both[:1] == [self._prefix] else []
            found.append((before or [self._prefix], both[len(before) :]))
        return found

    def _tokens(self, texts: Iterable[tuple[str, bool]]) -> dict[tuple[str, bool], Tokens]:
        """Of each (text, whether with the tokenizer's own tokens around it)."""
        found = {}
        for special in (False, True):
            some = [text for text, wanted in texts if wanted == special]
            try:
                encodings = self._tokenizer.encode_batch_fast(some, add_special_tokens=special)
            except (UnicodeEncodeError, TypeError) as error:
                raise InputError(f"One of the texts is not valid Unicode ({error}).", "Mend the data.") from error
            for text, encoding in zip(some, encodings, strict=True):
                ids = list(encoding.ids)
                found[text, special] = [self._prefix, *ids] if self._leads(special, ids) else ids
        return found

    def _leads(self, special: bool, ids: Tokens) -> bool:
        return self._bos is True and special and ids[:1] != [self._prefix]

    def _first_token(self) -> int:
        """What an empty context stands for: the token that texts begin with, or else the one that they end with."""
        facts, defaults = self._model.token_facts(), self._model.defaults
        for name in ("bos_token", "eos_token"):
            if (text := facts[name]) and (token := self._tokenizer.token_to_id(text)) is not None:
                return int(token)
        if defaults.bos is not None:
            return defaults.bos
        if defaults.eos:
            return min(defaults.eos)
        raise InputError(
            f"'{self.name}' has no token that texts begin or end with.",
            "Name it in its folder: bos_token in tokenizer_config.json.",
        )

    # ---- tokens

    def _fitting(self, pair: tuple[Tokens, Tokens]) -> tuple[Tokens, Tokens] | WindlassError:
        context, continuation = pair
        if not continuation:
            return InputError(
                "The continuation adds no token to its context.", "Its characters end one that began there."
            )
        over = len(context) + len(continuation) - 1 - self.context
        if over <= 0:
            return pair
        if not self._truncate or over >= len(context):
            return TooLong(
                f"{self.context + over} tokens must be read to score it, but the model reads at most {self.context}.",
                "Leave out examples, or cut what is too long (truncate).",
                by=over,
            )
        self.truncated += 1
        return context[over:], continuation

    def _scored(self, pairs: Sequence[tuple[Tokens, Tokens] | WindlassError]) -> list[Likelihood | WindlassError]:
        good = [pair for pair in pairs if not isinstance(pair, WindlassError)]
        scores = iter(self._scorer.loglikelihood(good) if good else [])
        return [pair if isinstance(pair, WindlassError) else Likelihood(*next(scores), len(pair[1])) for pair in pairs]

    def _with_room(self, tokens: Tokens, wanted: int) -> tuple[Tokens, int]:
        """A prompt, and how many tokens may be written behind it."""
        if self._truncate and len(tokens) + wanted > self.context > wanted:
            self.truncated += 1
            tokens = tokens[wanted - self.context :]
        if len(tokens) >= self.context:
            raise TooLong(
                f"The prompt has {len(tokens)} tokens, but the model reads at most {self.context}.",
                "Leave out examples, or cut what is too long (truncate).",
                by=len(tokens) - self.context + 1,
            )
        return tokens or [self._prefix], min(wanted, self.context - len(tokens))


def _ready(decoder: Decoder) -> None:
    """The same numbers, faster where many tokens are read at once."""
    pack(decoder)
    if native.unavailable() is None:
        fuse(decoder)


def _no_text() -> WindlassError:
    return InputError("The text is empty.", "There is nothing to score.")
