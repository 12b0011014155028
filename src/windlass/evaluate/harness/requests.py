"""What a benchmark asks of a model: three kinds of requests, each with a key by which its reply is known again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import WindlassError
from windlass.core.files import sha256_json
from windlass.core.protocols import LanguageModel, Likelihood, Prompt

Reply = Likelihood | str


@dataclass(frozen=True)
class Continue:
    """How likely is this continuation of this context?"""

    context: Prompt
    text: str

    @functools.cached_property
    def key(self) -> str:
        return sha256_json(["continue", *self.order])

    @property
    def order(self) -> tuple[str, ...]:
        """Requests in this order share as long beginnings with their neighbours as can be."""
        return (_said(self.context), self.text)


@dataclass(frozen=True)
class Read:
    """How likely is this text, from its first token on?"""

    text: str

    @functools.cached_property
    def key(self) -> str:
        return sha256_json(["read", self.text])

    @property
    def order(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True)
class Write:
    """What do you write behind this prompt?"""

    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0

    @functools.cached_property
    def key(self) -> str:
        return sha256_json(["write", *self.order, *self.settings])

    @property
    def order(self) -> tuple[str, ...]:
        return (_said(self.prompt),)

    @property
    def settings(self) -> tuple[Any, ...]:
        """Requests that share them are asked together."""
        return (self.max_tokens, self.stop, self.temperature, self.seed)


Request = Continue | Read | Write


def ask(model: LanguageModel, requests: Sequence[Request]) -> Mapping[str, Reply | WindlassError]:
    """The replies by the keys of their requests."""
    replies: dict[str, Reply | WindlassError] = {}
    if pairs := [one for one in requests if isinstance(one, Continue)]:
        found = model.loglikelihood([(one.context, one.text) for one in pairs])
        replies |= zip((one.key for one in pairs), found, strict=True)
    if texts := [one for one in requests if isinstance(one, Read)]:
        replies |= zip((one.key for one in texts), model.rolling([one.text for one in texts]), strict=True)
    groups: dict[tuple[Any, ...], list[Write]] = {}
    for one in requests:
        if isinstance(one, Write):
            groups.setdefault(one.settings, []).append(one)
    for group in groups.values():
        first = group[0]
        said = model.write(
            [one.prompt for one in group],
            max_tokens=first.max_tokens, stop=first.stop, temperature=first.temperature, seed=first.seed,
        )  # fmt: skip
        replies |= zip((one.key for one in group), said, strict=True)
    return replies


def _said(prompt: Prompt) -> str:
    """A text as it is; of a conversation its turns one after another, so that a shared beginning stays one."""
    if isinstance(prompt, str):
        return prompt
    return "".join(f"\0{turn.role}\0{turn.text}" for turn in prompt)
