"""What is known of a model's tokens: their texts and bytes, and the grammars that let only some of them be written."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from windlass.core.errors import InputError, Unsupported
from windlass.core.values import TokenLogprob
from windlass.serve.engine.constraints.spelling import spell

if TYPE_CHECKING:
    from windlass.serve.engine.constraints.grammars import Grammars


class Tokens:
    """Safe to share between threads."""

    def __init__(self, model: str, tokenizer: Tokenizer, eos: Collection[int]) -> None:
        """`model`: its name, for messages. `eos`: tokens that end an answer."""
        self._model, self._tokenizer, self._eos = model, tokenizer, eos
        self._grammars: dict[frozenset[str], Grammars] = {}
        """By the marks of a template's dialect, of which there are a handful."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included. Raises `InputError` for a number that is no token."""
        if unknown := [token for token in tokens if self._tokenizer.id_to_token(token) is None]:
            raise InputError(f"{unknown[0]} is not a token of the model '{self._model}'.")
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def grammars(self, visible: frozenset[str]) -> Grammars:
        """Makes constraints for these tokens, of which the special ones in `visible` may be written."""
        from windlass.serve.engine.constraints.grammars import Grammars

        if visible not in self._grammars:
            self._grammars[visible] = Grammars(self._tokenizer, self._eos, visible=visible)
        return self._grammars[visible]

    @functools.cached_property
    def _bytes(self) -> Sequence[bytes] | None:
        """What each token writes; None where the text is not the sum of its tokens."""
        try:
            return spell(self._tokenizer).tokens
        except Unsupported:
            return None

    def named(self, token: int, logprob: float | None, top: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        """A token with its text and bytes, and so those of `top`, the likeliest in its place."""
        text = str(self._tokenizer.decode([token], skip_special_tokens=False))
        written = self._bytes[token] if self._bytes is not None and token < len(self._bytes) else b""
        others = tuple(self.named(*one) for one in top)
        return TokenLogprob(text, logprob, token, written or text.encode(), others)
