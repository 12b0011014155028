"""POST /v1/rerank, and the same under /v2/rerank and /rerank: documents by how well they answer a query.

A reranker's scores are its own; an embedder's are the cosines of query and documents, which is less exact but works
with any embedder.
"""

from __future__ import annotations

from typing import Any

from windlass.core.protocols import Relevance
from windlass.serve.api.context import Context
from windlass.serve.api.envelope import READ_USAGE, read_usage
from windlass.serve.api.fields import Json, Table, anything, array, flag, integer, record, text, text_or
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj

PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")


def operations(context: Context) -> list[Operation]:
    known: dict[str, Any] = {**context.embedders, **context.rerankers}
    document = text_or(record({"text": text()}, ["text"]).then(lambda at, value: value["text"]))
    table: Table = {
        "model": context.model_field(known),
        "query": text(empty=False),
        "documents": array(document, least=1, most=context.limits.texts),
        "top_n": integer(1, 1 << 20),
        "return_documents": flag,
        "user": anything,
    }

    async def handle(caller: Caller, fields: Json) -> Json:
        name, query, documents = fields["model"], fields["query"], fields["documents"]
        context.named(known, name)

        def rank() -> Relevance:
            if name in context.rerankers:
                return context.rerankers[name].rank(query, documents)
            embedder = context.embedders[name]
            asked, found = embedder.embed([query], "query"), embedder.embed(documents)
            return Relevance((found.vectors @ asked.vectors[0]).tolist(), asked.tokens + found.tokens)

        relevance = await context.blocking(rank, caller)
        context.count(name, caller, input=relevance.tokens, cost=None)
        best = sorted(range(len(documents)), key=lambda i: -relevance.scores[i])[: fields.get("top_n", len(documents))]
        results = [
            {"index": i, "relevance_score": relevance.scores[i]}
            | ({"document": {"text": documents[i]}} if fields.get("return_documents") else {})
            for i in best
        ]
        return {"model": name, "results": results, "usage": read_usage(relevance.tokens)}

    return [
        Operation(
            method="POST",
            path=path,
            summary="Orders documents by how well they answer a query",
            scope="embed",
            table=table,
            required=("model", "query", "documents"),
            answer=ANSWER,
            handle=handle,
            errors=(404,),
        )
        for path in PATHS
    ]


ANSWER = obj(
    {
        "model": TEXT_,
        "results": {
            "type": "array",
            "items": obj(
                {"index": COUNT, "relevance_score": {"type": "number"}, "document": obj({"text": TEXT_})},
                ["index", "relevance_score"],
            ),
        },
        "usage": READ_USAGE,
    }
)
