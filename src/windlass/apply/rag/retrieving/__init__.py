"""Better searches on top of any index: each file one idea, each class an `Index` itself, so that they nest.

    Reranked(MultiQuery(index, model), reranker).search("Who oils the pump?", 5, access=["staff"])

`composed` nests those that `RetrieveSettings` name, in the order in which they make sense. Each search of a step is a
span with what it did; a helper that fails is named there, and the search goes on without it.
"""

from __future__ import annotations

from windlass.apply.rag.retrieving.composing import Helpers, RetrieveSettings, composed
from windlass.apply.rag.retrieving.decay import Decayed
from windlass.apply.rag.retrieving.feedback import Feedback
from windlass.apply.rag.retrieving.hyde import Hyde
from windlass.apply.rag.retrieving.mmr import Diverse
from windlass.apply.rag.retrieving.multi_hop import MultiHop
from windlass.apply.rag.retrieving.multi_query import MultiQuery
from windlass.apply.rag.retrieving.rerank import Reranked
from windlass.apply.rag.retrieving.rewriting import Rewritten
from windlass.apply.rag.retrieving.self_query import SelfQuery
from windlass.apply.rag.retrieving.step import Asked, Step

__all__ = [
    "Asked", "Decayed", "Diverse", "Feedback", "Helpers", "Hyde", "MultiHop", "MultiQuery", "Reranked",
    "RetrieveSettings", "Rewritten", "SelfQuery", "Step", "composed",
]  # fmt: skip
