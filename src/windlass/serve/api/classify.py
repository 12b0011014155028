"""POST /v1/classify, and the same under /classify: which of a model's labels each text has.

As in vLLM and Jina: `label` is the likeliest one, `probs` holds one number for each label, in the order of
`windlass.labels`. They add up to 1 where labels exclude each other, and are independent where a text may have several.
Of a regression, `probs` holds its numbers in their own units, as `windlass.numbers` says, and `label` is null. A pair
of texts, for models that judge how the second follows from the first, is a list of two.
"""

from __future__ import annotations

from typing import Any

from windlass.core.protocols import Classes
from windlass.serve.api.context import Context
from windlass.serve.api.envelope import list_answer, list_schema
from windlass.serve.api.fields import Check, Json, Table, anything, array, kind, text
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj
from windlass.serve.errors import BadField

PATHS = ("/v1/classify", "/classify")


def operations(context: Context) -> list[Operation]:
    table: Table = {
        "model": context.model_field(context.classifiers),
        "input": _input(context.limits.texts),
        "user": anything,
    }

    async def handle(caller: Caller, fields: Json) -> Json:
        name, texts = fields["model"], fields["input"]
        classifier = context.named(context.classifiers, name)

        def classify() -> Classes:
            return classifier.classify(texts)

        found = await context.blocking(classify, caller)
        context.count(name, caller, input=found.tokens, cost=None)
        labels = list(classifier.labels)
        data = [
            {
                "index": i, "label": None if found.numbers else labels[int(row.argmax())], "probs": row.tolist(),
                "num_classes": len(labels),
            }
            for i, row in enumerate(found.probabilities)
        ]  # fmt: skip
        about = {"labels": labels, "numbers": found.numbers, "truncated": found.truncated}
        return list_answer(name, data, tokens=found.tokens, **about)

    return [
        Operation(
            method="POST", path=path, summary="Says which label each text has", scope="embed", table=table,
            required=("model", "input"), answer=ANSWER, handle=handle, errors=(404,),
        )
        for path in PATHS
    ]  # fmt: skip


def _input(most: int) -> Check:
    """One text, or a list of texts and of pairs; gives a list."""
    single, pair = text(), array(text(), least=2, most=2)

    def read_one(at: str, value: Any) -> str | tuple[str, str]:
        if isinstance(value, list):
            first, second = pair(at, value)
            return first, second
        if not isinstance(value, str):
            raise BadField(at, f"'{at}' is {kind(value)}, but must be a text or a pair of texts.")
        return value

    several = array(Check({"anyOf": [single.schema, pair.schema]}, read_one), least=1, most=most)

    def read(at: str, value: Any) -> list[str | tuple[str, str]]:
        found: list[str | tuple[str, str]] = several(at, [value] if isinstance(value, str) else value)
        return found

    return Check({"anyOf": [single.schema, several.schema]}, read)


ANSWER = list_schema(
    obj(
        {
            "index": COUNT,
            "label": {"type": ["string", "null"]},
            "probs": {"type": "array", "items": {"type": "number"}},
            "num_classes": COUNT,
        }
    ),
    about={"labels": {"type": "array", "items": TEXT_}, "numbers": {"type": "boolean"}, "truncated": COUNT},
)
