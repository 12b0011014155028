"""How one model writes what is not plain content, tool calls and reasoning, as its chat template shows.

The template says which of the known formats the model was trained on. For one request, this file brings together what
the answer must obey, and how it is taken apart again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders

from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError, Unsupported
from windlass.core.values import ChatRequest
from windlass.serve.engine.constraints.constraint import Constraint
from windlass.serve.engine.constraints.spelling import byte_level
from windlass.serve.engine.dialect import harmony
from windlass.serve.engine.dialect.calls import Format
from windlass.serve.engine.dialect.formats import find_format
from windlass.serve.engine.dialect.harmony import Channels
from windlass.serve.engine.dialect.reasoning import Sections, Tags, Thinking, find_tags
from windlass.serve.engine.dialect.tools import CallStream, End, Piece, Tools, grammar
from windlass.serve.engine.text import ByteDecoder, Characters, Detokenizer

if TYPE_CHECKING:
    from windlass.serve.engine.constraints.grammars import Grammars

FREE_FORMS: Mapping[str, Callable[[Grammars, Any, str], Constraint]] = {
    "regex": lambda grammars, pattern, before: grammars.regex(pattern, before=before),
    "choice": lambda grammars, choices, before: grammars.choice(choices, before=before),
    "grammar": lambda grammars, lark, before: grammars.grammar(lark, before=before),
}
"""What a request may ask of its answer besides a schema, by wire name."""


@dataclass(frozen=True, slots=True)
class Dialect:
    calls: Format | None
    tags: Tags | None
    harmony: bool
    """Whether everything is written in harmony's channels: calls, reasoning and content."""
    marks: frozenset[str]
    """Texts that a reader of answers must see, though they may be special tokens."""
    names: frozenset[str]
    """What the template asks for by name."""

    @classmethod
    def of(cls, template: ChatTemplate | None) -> Dialect:
        if template is None:
            return cls(None, None, False, frozenset(), frozenset())
        if harmony.speaks(template.source):
            return cls(None, None, True, harmony.MARKS, template.names)
        calls = find_format(template.source) if "tools" in template.names else None
        tags = find_tags(template.source)
        marks = (calls.marks if calls else ()) + ((tags.open, tags.close) if tags else ())
        return cls(calls, tags, False, frozenset(marks), template.names)

    def decoder(self, tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
        """Text of tokens without special ones, but with the marks."""
        hidden = self._hidden(tokenizer)
        return lambda ids: str(tokenizer.decode([i for i in ids if i not in hidden], skip_special_tokens=False))

    def characters(self, tokenizer: Tokenizer) -> Callable[[], Characters]:
        """What makes that text of tokens one by one, for each answer."""
        if not isinstance(tokenizer.decoder, decoders.ByteLevel):
            return functools.partial(Detokenizer, self.decoder(tokenizer))
        hidden = self._hidden(tokenizer)

        @functools.cache
        def written(token: int) -> bytes:
            word = None if token in hidden else tokenizer.id_to_token(token)
            return b"" if word is None else byte_level(word)

        return functools.partial(ByteDecoder, written)

    def _hidden(self, tokenizer: Tokenizer) -> set[int]:
        added = tokenizer.get_added_tokens_decoder().items()
        return {number for number, token in added if token.special and token.content not in self.marks}

    def switches(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Takes what the template shall know besides messages and tools out of `asked`, parameters by wire name.

        Raises `Unsupported` for what the template does not ask for.
        """
        given: dict[str, Any] = dict(asked.pop("chat_template_kwargs", None) or {})
        if (effort := asked.pop("reasoning_effort", None)) is not None:
            # "none" is a switch in most templates; degrees of effort are known to few.
            silent = effort == "none" and "enable_thinking" in self.names
            given |= {"enable_thinking": False} if silent else {"reasoning_effort": effort}
        for name in given:
            if name not in self.names or name in ("messages", "tools"):
                raise Unsupported(f"The model's chat template has no switch '{name[:80]}'.", "Leave it out.")
        return given

    def tools(self, request: ChatRequest, asked: dict[str, Any], *, model: str) -> Tools | None:
        """The tools of a request, taken out of `asked`; None where there are none.

        Raises `Unsupported` where the model was not trained to call tools, or a tool's schema cannot be enforced.
        """
        several = asked.pop("parallel_tool_calls", True)
        asked.pop("tools", None)
        asked.pop("tool_choice", None)
        if not request.tools:
            return None
        if self.calls is None and not self.harmony:
            raise Unsupported(
                f"The chat template of the model '{model}' teaches no format of tool calls that is known here.",
                "Use a model that was trained to call tools, or ask for JSON by response_format.",
            )
        return Tools(request.tools, request.tool_choice, several=several)

    def answer(
        self,
        asked: dict[str, Any],
        tools: Tools | None,
        *,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        ends: frozenset[int],
        grammars: Callable[[], Grammars],
    ) -> tuple[Constraint | None, Parts | Channels]:
        """What an answer must obey, taken out of `asked`, and how it is taken apart. `ends`: tokens that end it.

        Raises `InputError` or `Unsupported` naming the parameter.
        """
        constraint = self._obeyed(asked, tools, grammars)
        budget = asked.pop("reasoning_budget", None)
        callable = {} if tools is None else tools.callable
        if self.harmony:
            if budget is not None:
                raise Unsupported("'reasoning_budget' cannot be enforced here.", "Use 'reasoning_effort'.")
            return constraint, Channels(callable)
        if budget is not None and self.tags is None:
            raise Unsupported("This model does not reason, so 'reasoning_budget' means nothing.", "Leave it out.")
        last = str(tokenizer.decode(list(prompt[-16:]), skip_special_tokens=False)).rstrip()
        calls, sections = self.calls if callable else None, None
        if self.tags is not None and not last.endswith(self.tags.close):  # else the prompt has switched it off
            inside = last.endswith(self.tags.open)
            mark = calls.begin if calls is not None and calls.ends_reasoning else None
            sections = Sections(self.tags, inside=inside, calls=mark)
            if constraint is not None or budget is not None:
                constraint = _behind_reasoning(self.tags, constraint, budget, tokenizer, inside, ends, mark)
        return constraint, Parts(sections, None if calls is None else CallStream(calls, callable))

    def _obeyed(
        self, asked: dict[str, Any], tools: Tools | None, grammars: Callable[[], Grammars]
    ) -> Constraint | None:
        schema = asked.pop("response_format", None)
        free = {name: asked.pop(name) for name in FREE_FORMS if name in asked}
        if len(free) + (schema is not None) > 1 or (free and tools is not None):
            given = {"response_format": schema, "tools": tools, **free}
            named = ", ".join(name for name, value in given.items() if value is not None)
            raise InputError(f"An answer cannot obey several constraints at once: {named}.", "Keep one of them.")
        if tools is not None:
            lark = harmony.grammar(tools, schema) if self.calls is None else grammar(self.calls, tools, schema)
            return None if lark is None else grammars().grammar(lark, where="tools")
        before = harmony.BEFORE_FINAL if self.harmony else ""
        if schema is not None:
            return grammars().json_schema(schema, where="response_format", before=before)
        return next((FREE_FORMS[name](grammars(), value, before) for name, value in free.items()), None)


class Parts:
    """An answer taken apart as it is written: reasoning, then content and calls."""

    def __init__(self, sections: Sections | None = None, calls: CallStream | None = None) -> None:
        self._sections = sections
        self._calls = calls

    @property
    def thinking(self) -> bool:
        """Whether what comes next is still reasoning."""
        return self._sections is not None and self._sections.thinking

    def push(self, text: str) -> Piece:
        """What has become certain."""
        if self._sections is None and self._calls is None:
            return Piece(text=text)
        reasoning, content = ("", text) if self._sections is None else self._sections.push(text)
        return Piece(reasoning) + (Piece(text=content) if self._calls is None else self._calls.push(content))

    def finish(self) -> tuple[Piece, End]:
        """The rest, and how the answer ends."""
        reasoning, content = ("", "") if self._sections is None else self._sections.finish()
        if self._calls is None:
            return Piece(reasoning, content), End()
        piece = Piece(reasoning) + self._calls.push(content)
        last, end = self._calls.finish()
        return piece + last, end


def _behind_reasoning(
    tags: Tags,
    constraint: Constraint | None,
    budget: int | None,
    tokenizer: Tokenizer,
    inside: bool,
    ends: frozenset[int],
    mark: str | None,
) -> Constraint | None:
    """The constraint on an answer that may begin with reasoning, which `mark` may end."""
    start, end = tokenizer.token_to_id(tags.open), tokenizer.token_to_id(tags.close)
    if start is not None and end is not None:
        calls = None if mark is None else tokenizer.token_to_id(mark)
        return Thinking(constraint, start, end, inside=inside, ends=ends, budget=budget, calls=calls)
    if inside or budget is not None:
        raise Unsupported(
            f"The tokenizer has no token of its own for {tags.close}, so reasoning can be neither limited nor followed "
            "by a constrained answer.",
            "Leave the constraint out, or switch reasoning off.",
        )
    return constraint  # holds from the first word, which leaves no room for reasoning
