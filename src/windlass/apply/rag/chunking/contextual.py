"""A sentence above each passage that says what it is about in its document, written by a chat model.

As in Anthropic's "Introducing Contextual Retrieval" (2024): the model reads the document and one of its passages; what
it writes is embedded and searched with the passage, and never quoted. The prompt is `apply/prompts/contextual.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby

from windlass.apply.prompts import prompt
from windlass.apply.rag.chunking.settings import WRITTEN
from windlass.apply.wrappers.answers import Answers, answers_path
from windlass.apply.wrappers.budget import Budget, Budgeted
from windlass.apply.wrappers.cached import Cached
from windlass.apply.wrappers.ledger import Ledger, ledger_path
from windlass.apply.wrappers.wrapper import identity_of
from windlass.core.documents import Document, Passage
from windlass.core.files import sha256_json
from windlass.core.protocols import ChatModel
from windlass.core.spans import carried
from windlass.core.values import ChatRequest, ChatResponse, Message
from windlass.core.workspace import Workspace

PROMPT = "contextual"
_READ = 24_000
"""Characters of a document that the model reads around a passage."""
_MAX_TOKENS = 120


class ContextWriter:
    """Writes contexts, and counts what that took. Safe to share between threads, but for its counts.

    Raises what the model raises; `within` makes one whose answers are kept and whose spending is bounded.
    """

    def __init__(self, model: ChatModel, *, parallel: int = 8) -> None:
        """`parallel`: calls at once, after the first about a text, from which providers can keep what they read."""
        self.model: ChatModel = model
        self.parallel = parallel
        self._open: Sequence[Ledger | Answers] = ()
        self.asked = 0
        self.kept = 0
        """Of those asked, answered from the cache."""
        self.silent = 0
        """Passages that the model refused, or wrote nothing usable about: they have no context."""
        self.cost_usd: float | None = 0.0
        """None as soon as the price of one call is not known."""

    @classmethod
    def within(cls, ws: Workspace, model: ChatModel, budget: Budget, *, parallel: int = 8) -> ContextWriter:
        """With the workspace's cache, by the digest of all that is asked, and its ledger, under the budget's name or
        else `contexts`. A call that does not fit raises `OverBudget`; run again, nothing is paid for twice."""
        named = budget if budget.name else replace(budget, name="contexts")
        made = cls(model, parallel=parallel)
        made._open = [ledger := Ledger(ledger_path(ws.root)), answers := Answers(answers_path(ws.root))]
        made.model = Cached(Budgeted(model, named, ledger), answers)
        return made

    def close(self) -> None:
        """Closes the files that `within` opened; not the model."""
        for file in self._open:
            file.close()

    @property
    def digest(self) -> str:
        """Changes whenever what is written may. Raises `ConfigError` for a model that nothing tells from others."""
        return sha256_json([identity_of(self.model), prompt(PROMPT)[1], _READ, WRITTEN, _MAX_TOKENS])

    def write(self, document: Document, passages: Sequence[Passage]) -> list[Passage]:
        """The same passages, each with what was written above what its context said before. What no passage holds,
        since it is masked, is not shown to the model."""
        written: list[ChatResponse] = []
        for (low, high), alike in groupby(passages, partial(_part, length=len(document.text))):
            shown = "".join(_shown(document.text, passages, low, high)).strip()
            first, *rest = [_request(document, shown, passage) for passage in alike]
            written.append(self._ask(first))
            with ThreadPoolExecutor(self.parallel) as pool:
                written.extend(pool.map(carried(self._ask), rest))
        return [
            replace(passage, context="\n".join(part for part in (self._used(response), passage.context) if part))
            for passage, response in zip(passages, written, strict=True)
        ]

    def _ask(self, request: ChatRequest) -> ChatResponse:
        return self.model.complete(request)

    def _used(self, response: ChatResponse) -> str:
        self.asked += 1
        self.kept += response.kept is not None
        known = self.cost_usd is not None and response.cost_usd is not None
        self.cost_usd = self.cost_usd + response.cost_usd if known else None  # type: ignore[operator]
        text = " ".join(response.message.text.split())[:WRITTEN]
        if response.refused or not text:
            self.silent += 1
            return ""
        return text


def _request(document: Document, shown: str, passage: Passage) -> ChatRequest:
    """Those about the same part of a document begin alike to the byte, as providers' caches want it. Marks carry a code
    that whoever wrote the document could not know, so that its text cannot end them."""
    rules, _ = prompt(PROMPT)
    code = hashlib.sha256(document.text.encode("utf-8", "replace")).hexdigest()[:12]
    body = (
        f"<<document {code}>> {passage.title}\n{shown}\n<<end {code}>>\n\n"
        f"<<passage {code}>> {passage.heading}\n{passage.text}\n<<end {code}>>"
    )
    return ChatRequest([Message("system", rules), Message("user", body)], max_tokens=_MAX_TOKENS)


def _part(passage: Passage, length: int) -> tuple[int, int]:
    """One of few parts of a long document, half overlapping, in which the passage is not at the rim."""
    middle = (passage.start + passage.end) // 2
    low = max(0, middle - _READ // 4) // (_READ // 2) * (_READ // 2)
    low = min(low, max(0, length - _READ))
    return low, min(length, low + _READ)


def _shown(text: str, passages: Sequence[Passage], low: int, high: int) -> Iterator[str]:
    reach = low
    for passage in passages:
        start, end = max(passage.start, low), min(passage.end, high)
        if start >= end or end <= reach:
            continue
        gap = text[reach:start]
        yield gap if not gap.strip() else "\n[...]\n"
        yield text[max(start, reach) : end]
        reach = end
