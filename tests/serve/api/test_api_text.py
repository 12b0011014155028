"""Chat, completions, tokens and rerank, through the official client, over a model that honours everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")
from serving_fakes import Letters, Overlap, Speller  # noqa: E402

from windlass.serve.app import create_app  # noqa: E402
from windlass.serve.run import ServerThread  # noqa: E402

MODEL = Speller()
HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}, "strict": True}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    app = create_app({"speller": MODEL}, {"letters": Letters()}, rerankers={"overlap": Overlap()})
    with ServerThread(app) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as made:
        yield made


def chat(client: Any, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "speller", "messages": HI, **fields})


def test_several_answers_draw_from_seeds_of_their_own(client: Any) -> None:
    first, again = (chat(client, n=3, seed=5, max_tokens=4) for _ in range(2))
    texts = [c.message.content for c in first.choices]
    assert [c.index for c in first.choices] == [0, 1, 2] and texts[0] == "ffff"
    assert MODEL.requests[-3].seed == 5 and len({r.seed for r in MODEL.requests[-3:]}) == 3
    assert texts == [c.message.content for c in again.choices]
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (2, 12)


def test_several_answers_streamed(client: Any) -> None:
    chunks = list(chat(client, n=2, seed=1, stream=True, stream_options={"include_usage": True}))
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts[0] == "b" * 8 and len(texts[1]) == 8
    assert sum(c.choices[0].finish_reason == "stop" for c in chunks[:-1]) == 2
    assert chunks[-1].usage.prompt_tokens == 2 and chunks[-1].usage.completion_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities(client: Any, stream: bool) -> None:
    answer = chat(client, logprobs=True, top_logprobs=2, max_tokens=2, stream=stream)
    if stream:
        found = [t for c in answer if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    else:
        found = answer.choices[0].logprobs.content
    assert [(t.token, t.logprob, t.bytes) for t in found] == [("a", -0.5, [97])] * 2
    assert [(t.token, t.logprob) for t in found[0].top_logprobs] == [("z", -2.0), ("z", -3.0)]
    assert MODEL.requests[-1].logprobs == 2


def test_tools_and_their_choice(client: Any) -> None:
    answer = chat(client, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look"}})
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"a": 1}'
    request = MODEL.requests[-1]
    assert (request.tools[0].name, request.tools[0].strict, request.tool_choice) == ("look", True, "look")
    assert chat(client, tools=[TOOL], tool_choice="none").choices[0].message.content
    streamed = list(chat(client, tools=[TOOL], stream=True))
    assert streamed[-1].choices[0].delta.tool_calls[0].function.name == "look"


def test_a_schema_is_handed_over(client: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}
    assert chat(client, response_format=form).choices[0].message.content == '{"a": 1}'
    assert MODEL.requests[-1].schema == schema
    chat(client, response_format={"type": "json_object"})
    assert MODEL.requests[-1].schema == {"type": "object"}
    chat(client, response_format={"type": "text"})
    assert MODEL.requests[-1].schema is None


def test_reasoning_is_apart_and_can_be_sent_back(client: Any) -> None:
    message = chat(client, reasoning_effort="low").choices[0].message
    assert message.reasoning_content == "Hm." and message.content == "a" * 8
    chat(client, messages=[*HI, message.model_dump(), *HI])
    assert MODEL.requests[-1].messages[1].reasoning == "Hm."
    pieces = [c.choices[0].delta for c in chat(client, reasoning_effort="low", stream=True)]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in pieces) == "Hm."


def test_parameters_beyond_openais_reach_the_model_and_neutral_ones_do_not(client: Any) -> None:
    extra = {"top_k": 5, "min_p": 0.1, "typical_p": 0.9, "repetition_penalty": 1.1, "regex": "a+", "priority": -1}
    chat(client, extra_body=extra, logit_bias={"7": -100}, presence_penalty=0.5)
    assert MODEL.requests[-1].extra == {**extra, "logit_bias": {7: -100.0}, "presence_penalty": 0.5}
    neutral = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "priority": 0, "parallel_tool_calls": True}
    chat(client, extra_body=neutral, presence_penalty=0, logit_bias={})
    assert MODEL.requests[-1].extra == {}


# completions ---------------------------------------------------------------------------------------------------------


def go_on(client: Any, prompt: Any, **fields: Any) -> Any:
    return client.completions.create(model="speller", prompt=prompt, **fields)


@pytest.mark.parametrize("prompt", ["xy", [120, 121]])
def test_echo_with_log_probabilities_scores_the_prompt(client: Any, prompt: Any) -> None:
    choice = go_on(client, prompt, echo=True, logprobs=1, max_tokens=1).choices[0]
    assert choice.text == "xya"
    assert choice.logprobs.tokens == ["x", "y", "a"] and choice.logprobs.text_offset == [0, 1, 2]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5]
    assert choice.logprobs.top_logprobs == [None, {"z": -2.0, "y": -0.5}, {"z": -2.0, "a": -0.5}]


def test_only_the_prompt_is_scored_where_nothing_new_is_wanted(client: Any) -> None:
    choice = go_on(client, "xy", echo=True, logprobs=0, max_tokens=0).choices[0]
    assert (choice.text, choice.logprobs.tokens, choice.finish_reason) == ("xy", ["x", "y"], "length")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        go_on(client, "xy", max_tokens=0)


@pytest.mark.parametrize("prompts", [["x", "yy"], [[120], [121, 121]]])
def test_several_prompts_and_answers(client: Any, prompts: Any) -> None:
    answer = go_on(client, prompts, n=2, seed=3, echo=True, max_tokens=1)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert [c.text[0] for c in answer.choices] == ["x", "x", "y", "y"] and answer.choices[2].text == "yyd"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    chunks = list(go_on(client, prompts, n=2, seed=3, echo=True, max_tokens=1, stream=True))
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [c.text for c in answer.choices]


def test_the_best_of_several_is_the_likeliest(client: Any) -> None:
    answer = go_on(client, "x", n=1, best_of=4, seed=3)
    drawn = [request.seed % 7 for request in MODEL.requests[-4:]]
    best = min(MODEL.requests[-4:], key=lambda r: (r.seed or 0) % 7)
    assert answer.choices[0].text == chr(97 + best.seed % 26) * 8 and len(set(drawn)) > 1
    assert answer.choices[0].logprobs is None and answer.usage.completion_tokens == 32
    for wrong in ({"best_of": 1, "n": 2}, {"best_of": 2, "stream": True}):
        with pytest.raises(openai.BadRequestError, match="best_of"):
            go_on(client, "x", **wrong)


@pytest.mark.parametrize("prompt", [[], [[]], [1, "x"], ["x", 1], [-1], [True], {}, [[1], "x"]])
def test_prompts_that_are_none(http: httpx.Client, prompt: Any) -> None:
    answer = http.post("/v1/completions", json={"model": "speller", "prompt": prompt})
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("prompt")


# tokens, rerank, models ----------------------------------------------------------------------------------------------


def test_tokens_there_and_back(http: httpx.Client) -> None:
    answer = http.post("/tokenize", json={"prompt": "ab"}).json()
    assert answer == {"count": 3, "max_model_len": 100, "tokens": [2, 97, 98]}
    plain = http.post("/tokenize", json={"model": "speller", "prompt": "ab", "add_special_tokens": False}).json()
    assert http.post("/detokenize", json={"tokens": plain["tokens"]}).json() == {"prompt": "ab"}
    assert http.post("/tokenize", json={"messages": HI}).json()["tokens"] == [104, 105, 3]
    assert http.get("/tokenizer_info").json()["eos_token"] == "\x03"
    for wrong in ({}, {"prompt": "a", "messages": HI}):
        assert http.post("/tokenize", json=wrong).status_code == 400
    assert http.post("/detokenize", json={"tokens": [0x110000]}).status_code == 400
    assert http.post("/tokenize", json={"model": "letters", "prompt": "a"}).status_code == 404


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_documents_are_ranked(http: httpx.Client, path: str) -> None:
    body = {"model": "overlap", "query": "abc", "documents": ["xyz", "ab", {"text": "abc"}], "top_n": 2}
    answer = http.post(path, json=body | {"return_documents": True}).json()
    assert [(r["index"], r["relevance_score"]) for r in answer["results"]] == [(2, 3.0), (1, 2.0)]
    assert answer["results"][0]["document"] == {"text": "abc"} and answer["usage"]["total_tokens"] == 11
    cosine = http.post(path, json={"model": "letters", "query": "aaa", "documents": ["bbb", "aaa"]}).json()
    assert cosine["results"][0]["index"] == 1 and cosine["results"][0]["relevance_score"] == pytest.approx(1)


def test_models_say_what_they_are(client: Any, http: httpx.Client) -> None:
    kinds = {m.id: m.windlass["kinds"] for m in client.models.list().data}
    assert kinds == {"speller": ["chat"], "letters": ["embeddings"], "overlap": ["rerank"]}
    assert client.models.retrieve("speller").windlass["context"] == 100
    assert 'windlass_engine{figure="waiting",model="speller"} 3' in http.get("/metrics").text


def test_token_numbers_are_no_texts_to_embed(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"model": "letters", "input": [[1, 2]]})
    assert answer.status_code == 400 and "token numbers" in answer.json()["error"]["message"]
