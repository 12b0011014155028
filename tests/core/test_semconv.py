"""Attribute names: the current ones, and the way from and to other dialects."""

from __future__ import annotations

import pytest

from windlass.core import semconv


def names() -> dict[str, str]:
    return {k: v for k, v in vars(semconv).items() if k.isupper() and isinstance(v, str) and not k.startswith("_")}


def test_names_are_unique_and_in_a_known_namespace() -> None:
    assert len(set(names().values())) == len(names()) > 40
    for name in names().values():
        assert name.startswith(("gen_ai.", "windlass.", "server.", "error.")), name


def test_old_names_become_current_ones() -> None:
    assert semconv.to_current(
        {
            "gen_ai.system": "openai",
            "gen_ai.usage.prompt_tokens": 5,
            "gen_ai.usage.cache_creation.input_tokens": 2,
            "my.own": 1,
        }
    ) == {semconv.PROVIDER: "openai", semconv.INPUT_TOKENS: 5, semconv.CACHE_WRITE_TOKENS: 2, "my.own": 1}


def test_a_current_name_wins_over_an_old_one() -> None:
    for attributes in (
        {"gen_ai.system": "old", semconv.PROVIDER: "new"},
        {semconv.PROVIDER: "new", "gen_ai.system": "old"},
    ):
        assert semconv.to_current(attributes) == {semconv.PROVIDER: "new"}


def test_openinference_goes_in_and_out() -> None:
    foreign = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4.1-mini",
        "llm.token_count.prompt": 10,
        "llm.token_count.completion": 4,
        "llm.finish_reason": "stop",
    }
    ours = semconv.to_current(foreign)
    assert ours == {
        semconv.OPERATION: "chat",
        semconv.RESPONSE_MODEL: "gpt-4.1-mini",
        semconv.INPUT_TOKENS: 10,
        semconv.OUTPUT_TOKENS: 4,
        semconv.FINISH_REASONS: ["stop"],
    }
    back = semconv.to_dialect(ours, "openinference")
    assert back == {**foreign, "llm.finish_reason": ["stop"]}
    assert semconv.to_dialect({semconv.OPERATION: "plan"}, "openinference") == {"openinference.span.kind": "CHAIN"}


@pytest.mark.parametrize("dialect", ["current", "v1.41", "openinference"])
def test_going_out_and_coming_back_changes_nothing(dialect: semconv.Dialect) -> None:
    ours = {name: ["x"] for name in names().values() if name != semconv.OPERATION}
    assert semconv.to_current(semconv.to_dialect(ours, dialect)) == ours
    for operation in ("chat", "embeddings", "retrieval", "execute_tool", "invoke_agent", "invoke_workflow"):
        assert semconv.to_current(semconv.to_dialect({semconv.OPERATION: operation}, dialect)) == {
            semconv.OPERATION: operation
        }
