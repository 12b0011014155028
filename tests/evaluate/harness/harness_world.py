"""A language model whose likelihoods anybody can recompute, and benchmarks on files of a few rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from windlass.core.errors import InputError, WindlassError
from windlass.core.protocols import Likelihood, Prompt


def said(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "".join(f"<{turn.role}>{turn.text}" for turn in prompt)


def likelihood(context: str, text: str) -> Likelihood:
    """A token is a character; one is likelier the nearer its code point is to that of the one before it."""
    whole = (context or "\n") + text
    logprob = -sum(1 + abs(ord(a) - ord(b)) % 11 for a, b in zip(whole[-len(text) - 1 :], text))
    return Likelihood(float(logprob), text.isupper(), len(text))


class Nearby:
    """Implements `LanguageModel`. What holds `refuse` is an error; `stop_after` calls it dies."""

    name, digest = "nearby", "d" * 64

    def __init__(
        self, *, refuse: str | None = None, stop_after: int | None = None, answers: Sequence[str] = ()
    ) -> None:
        self.refuse, self.stop_after = refuse, stop_after
        self.answers = list(answers)
        self.asked: list[tuple[str, ...]] = []
        self.calls = 0

    def identity(self) -> Mapping[str, Any]:
        return {"model": self.digest}

    def close(self) -> None: ...

    def loglikelihood(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Likelihood | WindlassError]:
        self._count()
        self.asked += [(said(context), text) for context, text in pairs]
        return [self._or_refused(said(context) + text, likelihood(said(context), text)) for context, text in pairs]

    def rolling(self, texts: Sequence[str]) -> list[Likelihood | WindlassError]:
        self._count()
        self.asked += [(text,) for text in texts]
        return [self._or_refused(text, likelihood("", text)) for text in texts]

    def write(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str | WindlassError]:  # fmt: skip
        self._count()
        self.asked += [(said(prompt), str(seed)) for prompt in prompts]
        texts = [said(prompt) for prompt in prompts]
        chosen = [self.answers[len(text) % len(self.answers)] for text in texts]
        return [InputError("refused") if self.refuse and self.refuse in a else b for a, b in zip(texts, chosen)]

    def _count(self) -> None:
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1

    def _or_refused(self, text: str, found: Likelihood) -> Likelihood | WindlassError:
        return InputError("refused") if self.refuse and self.refuse in text else found


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_benchmark(path: Path, text: str) -> str:
    path.write_text('what = "A test."\n' + text, encoding="utf-8")
    return str(path)
