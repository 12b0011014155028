"""Searching again with what was found: some questions need a passage that only another passage leads to.

After each search a language model reads what there is and either asks for what is still missing, or says that it is
enough (as in IRCoT: Trivedi et al., arXiv 2212.10509). It decides what is searched for and nothing else: filter and
labels stay those of the question, whatever a passage tells it to do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from windlass.apply.rag.retrieving.step import Asked, Step, about, fused
from windlass.core.errors import InputError, ProviderError
from windlass.core.protocols import ChatModel, Hit, Index
from windlass.core.spans import Span
from windlass.core.trace import Recorder

PROMPT = "retrieve-hop"
_SAYS = re.compile(r"^\s*(?:SEARCH:[ \t]*(?P<query>\S.*)|ENOUGH\b)", re.MULTILINE)


class MultiHop(Step):
    name = "multi_hop"

    def __init__(
        self, index: Index, model: ChatModel, again: int = 2, *, shown: int = 8, recorder: Recorder | None = None
    ) -> None:
        """`again`: searches after the first, at most. `shown`: passages that the model reads."""
        super().__init__(index, recorder)
        if again < 1 or shown < 1:
            raise InputError("A search in hops searches again at least once, and shows at least one passage.")
        self.model, self.again, self.shown = model, again, shown

    def _search(self, asked: Asked, span: Span) -> list[Hit]:
        found = [asked.on(self.index)]
        queries, stopped = [asked.query], "searched as often as allowed"
        for _ in range(self.again):
            said = self._helped(span, lambda: self._next(asked.query, queries, found))
            if said is None:
                stopped = "the model failed"
            elif not said:
                stopped = "enough was found"
            elif said.casefold() in map(str.casefold, queries):
                stopped = "the model asked the same again"
            else:
                queries.append(said)
                seen = {hit.passage for hits in found for hit in hits}
                found.append(self._hop(asked.instead(said), seen))
                if seen.issuperset(hit.passage for hit in found[-1]):
                    stopped = "nothing new was found"
                else:
                    continue
            break
        span["windlass.queries"] = queries[1:]
        span["windlass.stopped"] = stopped
        return fused(found, asked.k)

    def _hop(self, asked: Asked, seen: set[int]) -> list[Hit]:
        with self.recorder.span("hop", "retrieval") as span:
            span.input = asked.query
            hits = asked.on(self.index)
            span["windlass.new"] = sum(hit.passage not in seen for hit in hits)
            span.output = [{"document": hit.citation.document, "start": hit.citation.start} for hit in hits]
        return hits

    def _next(self, question: str, queries: Sequence[str], found: Sequence[Sequence[Hit]]) -> str:
        """What to search for; empty when it is enough. Raises `ProviderError` for an answer that is neither."""
        hits = {hit.passage: hit for hit in (*found[-1], *fused(found, self.shown))}
        texts = [about(hit) for hit in list(hits.values())[: self.shown]]
        # whoever wrote a passage cannot know the code that ends it
        code = hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()[:12]
        passages = [f"<<passage {code}>>\n{text}\n<<end {code}>>" for text in texts]
        searched = "\n".join(f"- {query}" for query in queries)
        said = self._said(
            self.model,
            PROMPT,
            "\n\n".join([*passages, f"Question: {question}", f"Searched for already:\n{searched}"]),
            tokens=200,
        )
        match = _SAYS.search(said)
        if match is None:
            raise ProviderError(f"{self.model.name} neither searches nor says that it is enough: {said[:80]!r}.")
        return (match["query"] or "").strip().strip('"“”')
