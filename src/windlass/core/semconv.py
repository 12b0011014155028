"""The names of span attributes: one table for all of windlass, and how other tools and versions call the same things.

The names are those of OpenTelemetry's GenAI conventions, which moved out of the main conventions with v1.42 into
`open-telemetry/semantic-conventions-genai` (status: development). Ingest translates what arrives to these names and
stores one shape; export translates back. Cost has no name there, so windlass has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

Dialect = Literal["current", "v1.41", "openinference"]

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"

REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_TOP_K: Final = "gen_ai.request.top_k"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_STOP: Final = "gen_ai.request.stop_sequences"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STREAM: Final = "gen_ai.request.stream"

RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
"""Seconds."""

INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
"""All tokens of the prompt, cached ones among them (`Usage.prompt`)."""
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
"""All tokens of the completion, reasoning among them (`Usage.completion`)."""
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

CONVERSATION: Final = "gen_ai.conversation.id"
PROMPT_NAME: Final = "gen_ai.prompt.name"
PROMPT_VERSION: Final = "gen_ai.prompt.version"
AGENT_ID: Final = "gen_ai.agent.id"
AGENT_NAME: Final = "gen_ai.agent.name"
WORKFLOW: Final = "gen_ai.workflow.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
RETRIEVAL_QUERY: Final = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS: Final = "gen_ai.retrieval.documents"
RETRIEVAL_TOP_K: Final = "gen_ai.retrieval.top_k"
DATA_SOURCE: Final = "gen_ai.data_source.id"
EMBEDDING_DIMENSION: Final = "gen_ai.embeddings.dimension.count"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

COST_USD: Final = "windlass.cost.usd"
"""US dollars; None when the price is not known, never 0 for that reason."""
KEPT: Final = "windlass.kept"
"""The answer comes out of a cache: `exact`, or `similar` to an earlier question."""
KEPT_SIMILARITY: Final = "windlass.kept.similarity"
SAVED_USD: Final = "windlass.saved.usd"
"""What the earlier call cost that a kept answer stands for; None when that is not known."""
ABSTAINED: Final = "windlass.abstained"
FALLBACK: Final = "windlass.fallback"
"""Why a step went on without its helper, or without something that the helper said."""
VARIANT_DIGEST: Final = "windlass.variant.digest"
PROMPT_DIGEST: Final = "windlass.prompt.digest"
EVALUATION: Final = "windlass.evaluation"
"""On the first span of an item that was evaluated: which evaluation it belongs to. Such a trace is no traffic."""
EVALUATED_ITEM: Final = "windlass.evaluation.item"
EVALUATED_REPEAT: Final = "windlass.evaluation.repeat"
INDEX_DIGEST: Final = "windlass.index.digest"
MODEL_DIGEST: Final = "windlass.model.digest"
MODEL_POLICY: Final = "windlass.model.policy"
"""The arithmetic in which a local model wrote: fp32, bf16, int8 or int4."""
EMBEDDER_DIGEST: Final = "windlass.embedder.digest"
ADAPTER_DIGEST: Final = "windlass.adapter.digest"

OPERATIONS: Final = (
    "chat",
    "text_completion",
    "generate_content",
    "embeddings",
    "retrieval",
    "execute_tool",
    "create_agent",
    "invoke_agent",
    "invoke_workflow",
    "plan",
)
"""Values of `OPERATION`."""

_TO_CURRENT: Mapping[Dialect, Mapping[str, str]] = {
    "current": {},
    "v1.41": {
        "gen_ai.usage.cache_creation.input_tokens": CACHE_WRITE_TOKENS,
        # Names that versions before it used and instrumentations still send.
        "gen_ai.system": PROVIDER,
        "gen_ai.usage.prompt_tokens": INPUT_TOKENS,
        "gen_ai.usage.completion_tokens": OUTPUT_TOKENS,
    },
    "openinference": {
        "llm.provider": PROVIDER,
        "llm.model_name": RESPONSE_MODEL,
        "embedding.model_name": REQUEST_MODEL,
        "llm.finish_reason": FINISH_REASONS,
        "llm.token_count.prompt": INPUT_TOKENS,
        "llm.token_count.completion": OUTPUT_TOKENS,
        "llm.token_count.prompt_details.cache_read": CACHE_READ_TOKENS,
        "llm.token_count.prompt_details.cache_write": CACHE_WRITE_TOKENS,
        "llm.token_count.completion_details.reasoning": REASONING_TOKENS,
        "llm.cost.total": COST_USD,
        "session.id": CONVERSATION,
        "agent.name": AGENT_NAME,
        "tool.name": TOOL_NAME,
        "tool_call.id": TOOL_CALL_ID,
        "tool_call.function.arguments": TOOL_ARGUMENTS,
    },
}

_EXPORT: Mapping[Dialect, Mapping[str, str]] = {
    "current": {},
    "v1.41": {CACHE_WRITE_TOKENS: "gen_ai.usage.cache_creation.input_tokens"},
    "openinference": {new: old for old, new in _TO_CURRENT["openinference"].items()},
}

_OPENINFERENCE_KIND: Mapping[str, str] = {
    "LLM": "chat",
    "EMBEDDING": "embeddings",
    "RETRIEVER": "retrieval",
    "TOOL": "execute_tool",
    "AGENT": "invoke_agent",
    "CHAIN": "invoke_workflow",
}


def to_current(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under their current names, whatever known dialect they came in; unknown names stay as they are.

    A current name that is present already wins over an older one.
    """
    result: dict[str, Any] = {}
    old: dict[str, Any] = {}
    for name, value in attributes.items():
        current = _TO_CURRENT["v1.41"].get(name) or _TO_CURRENT["openinference"].get(name)
        if current is not None:
            old[current] = [value] if current == FINISH_REASONS and isinstance(value, str) else value
        elif name == "openinference.span.kind":
            old[OPERATION] = _OPENINFERENCE_KIND.get(str(value).upper(), value)
        else:
            result[name] = value
    return {**old, **result}


def to_dialect(attributes: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Attributes with current names as a tool that speaks `dialect` expects them."""
    names = _EXPORT[dialect]
    result = {names.get(name, name): value for name, value in attributes.items()}
    if dialect == "openinference":
        operation = result.pop(OPERATION, None)
        if operation is not None:
            kinds = {value: kind for kind, value in _OPENINFERENCE_KIND.items()}
            result["openinference.span.kind"] = kinds.get(str(operation), "CHAIN")
    return result
