"""Who answers: a model as it is, or with an adapter; and all that an answer needs of it."""

from __future__ import annotations

from dataclasses import dataclass

from windlass.core.trace import Recorder
from windlass.serve.engine.engine import Engine
from windlass.serve.engine.prompt import Prompt
from windlass.serve.engine.source import SourceEngine
from windlass.serve.engine.tokens import Tokens
from windlass.serve.engine.wishes import Defaults


@dataclass(frozen=True, slots=True)
class Voice:
    name: str
    digest: str
    """Of the model, without an adapter."""
    engine: Engine | SourceEngine
    prompt: Prompt
    """The model's, or with the chat template that the adapter brings."""
    defaults: Defaults
    tokens: Tokens
    recorder: Recorder
    adapter: str | None = None
    """Digest of the adapter, which the engine knows by `name`."""

    @property
    def context(self) -> int:
        """The window: tokens of prompt and answer together; of an encoder-decoder, of each."""
        return self.engine.context

    @property
    def policy(self) -> str:
        """The arithmetic of its matrices, one of `linears.POLICIES`."""
        report = self.engine.report if isinstance(self.engine, Engine) else None
        return "fp32" if report is None else report.policy
