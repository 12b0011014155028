"""POST /tokenize and /detokenize, GET /tokenizer_info: what a client needs to count and to score tokens itself."""

from __future__ import annotations

from collections.abc import Mapping

from windlass.core.protocols import ChatModel, Tokenizing
from windlass.serve.api.context import Context
from windlass.serve.api.fields import Json, Table, array, flag, integer, text
from windlass.serve.api.generate import MAX_TOKENS, VOCABULARY
from windlass.serve.api.messages import MESSAGE
from windlass.serve.api.operation import COUNT, TEXT_, Caller, Operation, obj
from windlass.serve.errors import BadField, HttpError


def operations(context: Context) -> list[Operation]:
    bases = _known(context.models.bases)

    def of(fields: Json) -> Tokenizing:
        """An adapter has the tokens of its base."""
        return context.chosen(fields, _known(context.models), bases, "whose tokens are known")

    async def tokenize(caller: Caller, fields: Json) -> Json:
        tokenizer = of(fields)
        if ("prompt" in fields) == ("messages" in fields):
            raise BadField("prompt", "Give either 'prompt' or 'messages'.")

        def encode() -> list[int]:
            if "prompt" in fields:
                return tokenizer.encode(fields["prompt"], special=fields.get("add_special_tokens", True))
            opening = fields.get("add_generation_prompt", True)
            return tokenizer.encode_chat(fields["messages"], add_generation_prompt=opening)

        tokens = await context.blocking(encode, caller)
        return {"count": len(tokens), "max_model_len": tokenizer.context, "tokens": tokens}

    async def detokenize(caller: Caller, fields: Json) -> Json:
        tokenizer = of(fields)
        return {"prompt": await context.blocking(lambda: tokenizer.decode(fields["tokens"]), caller)}

    async def info(caller: Caller, fields: Json) -> Json:
        if len(bases) != 1:
            raise HttpError(404, f"This server has {len(bases)} models whose tokens are known, not one.")
        return dict(next(iter(bases.values())).token_facts())

    model = context.model_field(_known(context.models))
    prompt: Table = {
        "model": model,
        "prompt": text(),
        "add_special_tokens": flag,
        "messages": array(MESSAGE, least=1, most=context.limits.messages),
        "add_generation_prompt": flag,
    }
    tokens: Table = {"model": model, "tokens": array(integer(0, VOCABULARY), most=MAX_TOKENS)}
    numbers: Json = {"type": "array", "items": COUNT}
    return [
        Operation(
            method="POST", path="/tokenize", summary="Turns a text or a conversation into tokens", scope="generate",
            table=prompt, answer=obj({"count": COUNT, "max_model_len": COUNT, "tokens": numbers}), handle=tokenize,
            errors=(404,),
        ),
        Operation(
            method="POST", path="/detokenize", summary="Turns tokens into their text", scope="generate", table=tokens,
            required=("tokens",), answer=obj({"prompt": TEXT_}), handle=detokenize, errors=(404,),
        ),
        Operation(
            method="GET", path="/tokenizer_info", summary="Special tokens and chat template", scope="generate",
            answer={"type": "object"}, handle=info, errors=(404,),
        ),
    ]  # fmt: skip


def _known(models: Mapping[str, ChatModel]) -> dict[str, Tokenizing]:
    return {name: model for name, model in models.items() if isinstance(model, Tokenizing)}
