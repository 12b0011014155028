"""Grammars as constraints: which tokens may come next.

A grammar is a JSON schema, a regular expression, a list of choices or a Lark grammar; llguidance parses it (Earley's
algorithm over automata that are built as they are needed, so that little is compiled ahead).

    constraint = Grammars(tokenizer, eos).json_schema({"type": "object"})
    while not constraint.ended:
        constraint.allow(logits)            # forbidden tokens become -inf
        constraint.accept(int(logits.argmax()))

Where the grammar leaves only one text to write, it is written as the tokenizer would split it, so `allow` leaves one
token and `forced()` tells all of them at once: whoever appends those without asking the model gets the same text, token
for token (jump-forward; Zheng et al., arXiv 2312.07104). A mark, such as `<|tool_call_end|>`, has a token of its own,
and models write it by that. So where a text is forced only because several marks that may follow begin alike, their
tokens are allowed too, and nobody jumps into the middle of a mark.

JSON is written without spaces between its parts. The tokens that end an answer are allowed where the grammar may end,
and nowhere else.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer

from windlass.core.errors import InputError, MissingExtra
from windlass.core.files import sha256_json
from windlass.serve.engine.constraints.constraint import Constraint
from windlass.serve.engine.constraints.json_schema import MAX_BYTES, prepare
from windlass.serve.engine.constraints.lark import WRITING, quoted
from windlass.serve.engine.constraints.spelling import Spelling, spell

try:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
except ImportError as missing:
    raise MissingExtra("Constrained output", "serve") from missing

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXT = 512 << 10
"""Characters of a regular expression, a grammar, or all choices together."""
CACHED = 64
"""Compiled grammars that are kept, the latest used ones."""


class Grammars:
    """Makes constraints for one tokenizer, and keeps the compiled ones. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, eos: Collection[int], *, visible: Collection[str] = ()) -> None:
        """`eos`: the tokens that end an answer. `visible`: special tokens that are text to the reader, such as
        `[TOOL_CALLS]`.

        Raises `Unsupported` when the text of the tokenizer is not the sum of its tokens.
        """
        self._spelling = spell(tokenizer, visible)
        self._vocabulary = _vocabulary(self._spelling, sorted(eos))
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    # `before`: a Lark grammar of what stands before the text that is asked for, which it calls `@answer`.

    def json_schema(self, schema: Mapping[str, Any] | bool, *, where: str = "schema", before: str = "") -> Constraint:
        """JSON that satisfies a schema. Raises as `json_schema.prepare` does: nothing in a schema is ever ignored."""
        return self._make(json_grammar(schema, where=where), where, before)

    def regex(self, pattern: str, *, where: str = "regex", before: str = "") -> Constraint:
        """The whole text matches `pattern`, in the syntax of Rust's `regex` crate: no looking around, no references."""
        return self._make(LLMatcher.grammar_from_regex(_bounded(pattern, where)), where, before)

    def choice(self, choices: Sequence[str], *, where: str = "choice", before: str = "") -> Constraint:
        """One of the given texts."""
        if not choices or not all(isinstance(text, str) and text for text in choices):
            raise InputError(f"'{where}' must be a list of texts that are not empty.")
        return self.grammar("start: " + " | ".join(map(quoted, choices)), where=where, before=before)

    def grammar(self, lark: str, *, where: str = "grammar", before: str = "") -> Constraint:
        """A Lark grammar, as llguidance reads it (`start` is where it begins)."""
        return self._make(LLMatcher.grammar_from_lark(_bounded(lark, where)), where, before)

    def _make(self, grammar: str, where: str, before: str) -> Constraint:
        grammar = _behind(before, grammar, "answer") if before else grammar
        key = sha256_json(grammar)
        with self._lock:
            if (found := self._compiled.get(key)) is not None:
                self._compiled.move_to_end(key)
                return _Matching(found.deep_copy(), self._spelling)
        compiled = self._compile(grammar, where)
        with self._lock:
            self._compiled[key] = compiled
            while len(self._compiled) > CACHED:
                self._compiled.popitem(last=False)
        return _Matching(compiled.deep_copy(), self._spelling)

    def _compile(self, grammar: str, where: str) -> LLMatcher:
        if self._spelling.lead:
            grammar = self._led(grammar)
        compiled = LLMatcher(self._vocabulary, grammar, log_level=0, limits=_limits())
        first = compiled.deep_copy()
        first.compute_bitmask()  # what no text satisfies shows here, and not only when the model is at work
        if compiled.is_error() or first.is_error():
            raise InputError(f"'{where}' cannot be used: {_reason(compiled if compiled.is_error() else first)}")
        if warnings := compiled.get_grammar_warnings():
            raise InputError(f"'{where}' cannot be used: {warnings[0]}")
        return compiled

    def _led(self, grammar: str) -> str:
        """A grammar behind the space that the tokenizer drops at the beginning of a text.

        Where the text itself may begin with a space, that first one must be written, or the reader would miss its own.
        """
        plain = LLMatcher(self._vocabulary, grammar, log_level=0, limits=_limits())
        must = self._spelling.always_led or _Matching(plain, self._spelling).may_begin_with(b" ")
        return _behind(f'start: " "{"" if must else "?"} @text', grammar, "text")


def _behind(head: str, grammar: str, name: str) -> str:
    """A grammar that a Lark grammar calls by a name."""
    inner = json.loads(grammar) if grammar.startswith("{") else {"grammars": [{"lark_grammar": grammar}]}
    first, *others = inner["grammars"]
    return json.dumps({"grammars": [{"lark_grammar": head}, first | {"name": name}, *others]})


class _Matching:
    """A `Constraint` by one of llguidance's matchers."""

    def __init__(self, matcher: LLMatcher, spelling: Spelling) -> None:
        self._matcher = matcher
        self._spelling = spelling

    @property
    def ended(self) -> bool:
        return bool(self._matcher.is_stopped())

    def allow(self, logits_V: Tensor) -> None:
        allowed = self._allowed()
        known = len(allowed)
        logits_V[known:] = -torch.inf  # places without a token, up to which some models are padded
        forbidden = torch.from_numpy(allowed == 0).to(logits_V.device)
        logits_V[:known].masked_fill_(forbidden, -torch.inf)

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise InputError(f"The constraint does not allow token {token} here: {_reason(self._matcher)}")

    def forced(self) -> list[int]:
        tokens = list(self._matcher.compute_ff_tokens())
        marks = [self._spelling.tokens[mark] for mark in self._spelling.marks]
        for place in range(len(tokens)) if marks else ():
            rest = self._spelling.text(tokens[place:])
            if any(mark.startswith(rest) and mark != rest for mark in marks):
                return tokens[:place]
        return tokens

    def rollback(self, count: int) -> None:
        if not self._matcher.rollback(count):
            raise InputError(f"The constraint cannot take back {count} tokens: {_reason(self._matcher)}")

    def copy(self) -> _Matching:
        return _Matching(self._matcher.deep_copy(), self._spelling)

    def may_begin_with(self, start: bytes) -> bool:
        allowed = np.flatnonzero(self._allowed()).tolist()
        return any(self._spelling.tokens[token].startswith(start) for token in allowed)

    def _allowed(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """1 for each token that may follow, 0 for the others."""
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise InputError(f"The constraint cannot go on: {_reason(self._matcher)}")
        packed = np.frombuffer(bits, np.uint8)
        allowed = np.unpackbits(packed, count=len(self._spelling.tokens), bitorder="little")
        if self._spelling.marks and np.count_nonzero(packed) == 1:  # hardly ever more than one token, a forced one
            allowed[[mark for mark in self._spelling.marks if self._matcher.validate_tokens([mark])]] = 1
        return allowed


class _Words:
    """A vocabulary as llguidance asks for it."""

    bos_token_id = None

    def __init__(self, spelling: Spelling, eos: int | None) -> None:
        self.eos_token_id = eos
        self.tokens = list(spelling.tokens)
        self.special_token_ids = sorted(spelling.special)
        self._spelling = spelling
        self.greedy: LLTokenizer | None = None

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokens of a text, byte for byte: by the tokenizer, or greedily where it would change the text."""
        given = text if isinstance(text, bytes) else text.encode()
        tokens = self._spelling.encode(given.decode())
        if self._spelling.text(tokens) == given or self.greedy is None:
            return tokens
        return list(self.greedy.greedy_tokenize(given.decode()))


def _vocabulary(spelling: Spelling, eos: Sequence[int]) -> LLTokenizer:
    words = _Words(spelling, eos[0] if eos else None)
    words.greedy = LLTokenizer(TokenizerWrapper(words), eos_token=list(eos) or None)
    return words.greedy


def json_grammar(schema: Mapping[str, Any] | bool, *, where: str = "schema") -> str:
    """A JSON schema as the grammar engine reads it. Raises as `prepare` does."""
    text = json.dumps(prepare(schema, where=where), ensure_ascii=False)
    return str(LLMatcher.grammar_from_json_schema(_bounded(text, where, 2 * MAX_BYTES), overrides=WRITING))


def _limits() -> LLParserLimits:
    """What one grammar may cost. The automata grow as text is written, so their states are bounded too."""
    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=50_000,
        max_grammar_size=250_000,
        verbose_errors=False,
    )


def _bounded(text: str, where: str, most: int = MAX_TEXT) -> str:
    if not isinstance(text, str):
        raise InputError(f"'{where}' must be a text.")
    if len(text) > most:
        raise InputError(f"'{where}' has {len(text)} characters, but at most {most} are read.", "Make it smaller.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"'{where}' holds half a character (a lone surrogate).") from None
    return text


def _reason(matcher: LLMatcher) -> str:
    """Why a matcher stopped. What llguidance says itself may go on for pages."""
    said = " ".join(str(matcher.get_error()).replace("<non-verbose/>", "").split())
    known = {"NoExtensionBias": "no text satisfies it.", "TooComplex": "it is too complex."}
    return next((told for name, told in known.items() if name in said), said[:300])
