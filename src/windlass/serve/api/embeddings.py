"""POST /v1/embeddings."""

from __future__ import annotations

import base64

from windlass.core import semconv
from windlass.core.protocols import Embeddings
from windlass.serve.api.context import Context
from windlass.serve.api.envelope import list_answer, list_schema
from windlass.serve.api.fields import Check, Json, Table, anything, array, integer, one_of, text, text_or
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj
from windlass.serve.errors import BadField


def operation(context: Context) -> Operation:
    table: Table = {
        "model": context.model_field(context.embedders),
        "input": texts(context.limits.texts),
        "encoding_format": one_of("float", "base64"),
        "dimensions": integer(1, 1 << 20),
        "user": anything,
    }

    async def handle(caller: Caller, fields: Json) -> Json:
        name: str = fields["model"]
        embedder = context.named(context.embedders, name)
        if fields.get("dimensions", embedder.dimension) != embedder.dimension:
            raise BadField(
                "dimensions", f"'dimensions' is {fields['dimensions']}, but '{name}' gives {embedder.dimension}."
            )

        def embed() -> Embeddings:
            with context.recorder.span("embeddings", "embeddings") as span:
                span.attributes.update(
                    {
                        semconv.PROVIDER: "windlass",
                        semconv.REQUEST_MODEL: name,
                        semconv.EMBEDDER_DIGEST: embedder.digest,
                        semconv.EMBEDDING_DIMENSION: embedder.dimension,
                    }
                )
                result = embedder.embed(fields["input"])
                span[semconv.INPUT_TOKENS] = result.tokens
                return result

        result = await context.blocking(embed, caller)
        context.count(name, caller, input=result.tokens, cost=None)
        packed = fields.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(row.tobytes()).decode() if packed else row.tolist(),
            }
            for i, row in enumerate(result.vectors.astype("<f4"))
        ]
        return list_answer(name, data, tokens=result.tokens, truncated=result.truncated)

    return Operation(
        method="POST",
        path="/v1/embeddings",
        summary="Turns texts into vectors",
        scope="embed",
        table=table,
        required=("model", "input"),
        answer=ANSWER,
        handle=handle,
        errors=(404,),
    )


def texts(most: int) -> Check:
    """One text, or a list of them; gives a list."""
    several = array(text(), least=1, most=most)

    def refuse_tokens(at: str, value: object) -> object:
        if isinstance(value, list) and value and isinstance(value[0], int | list):
            raise BadField(
                at,
                f"'{at}' holds token numbers; which text they stand for only their own tokenizer knows.",
                "Send texts (in LangChain: check_embedding_ctx_length=False).",
            )
        return [value] if isinstance(value, str) else several(at, value)

    return Check(text_or(several).schema, refuse_tokens)


ANSWER = list_schema(
    obj(
        {
            "object": {"const": "embedding"},
            "index": COUNT,
            "embedding": {"anyOf": [TEXT_, {"type": "array", "items": {"type": "number"}}]},
        }
    ),
    about={"truncated": COUNT},
)
"""`truncated`: how many texts were longer than the model reads."""
