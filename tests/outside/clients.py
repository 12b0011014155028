"""Other people's clients against a running server: `python clients.py CHECK URL FOLDER`, in their own environment.

Each function is one check; it fails by raising.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HI = [{"role": "user", "content": "the cat sat"}]


def openai(url: str, folder: Path) -> None:
    """The helpers of the official client join streamed calls to what the whole answer holds."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "x": {"enum": [1, 2]}},
        "required": ["name", "x"],
        "additionalProperties": False,
    }
    common: Any = {"model": "caller", "tool_choice": "required", "temperature": 0}
    chat: Any = {**common, "messages": HI, "max_tokens": 400, "reasoning_effort": "none"}
    tools: Any = [{"type": "function", "function": {"name": "point", "parameters": schema}}]
    with client.chat.completions.stream(tools=tools, **chat) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    whole = client.chat.completions.create(tools=tools, **chat)
    said = [call.function.arguments for call in whole.choices[0].message.tool_calls]
    assert said and [call.function.arguments for call in streamed] == said, streamed
    assert kinds.count("tool_calls.function.arguments.delta") > 2 * len(said), kinds
    tools = [{"type": "function", "name": "point", "parameters": schema}]
    common |= {"input": "the cat sat", "max_output_tokens": 400, "reasoning": {"effort": "none"}}
    with client.responses.stream(tools=tools, **common) as stream:
        deltas = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == "".join(item.arguments for item in final.output), final


def instructor(url: str, folder: Path) -> None:
    import instructor
    import openai
    from pydantic import BaseModel

    class Answer(BaseModel):
        a: int

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON):
        client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="unused"), mode=mode)
        made = client.chat.completions.create(model="speller", messages=HI, response_model=Answer, max_retries=0)
        assert made.a == 1, made


def langchain(url: str, folder: Path) -> None:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from pydantic import BaseModel

    class Answer(BaseModel):
        """An answer."""

        a: int

    tiny = ChatOpenAI(base_url=url, api_key="unused", model="tiny", max_tokens=8, seed=1, temperature=0)
    whole = tiny.invoke("the cat").content
    assert whole and whole == "".join(piece.content for piece in tiny.stream("the cat"))
    speller = ChatOpenAI(base_url=url, api_key="unused", model="speller")
    assert speller.with_structured_output(Answer, method="json_schema").invoke("hi") == Answer(a=1)
    calls = speller.bind_tools([Answer]).invoke("hi").tool_calls
    assert [(call["name"], call["args"]) for call in calls] == [("Answer", {"a": 1})], calls
    settings: Any = {"check_embedding_ctx_length": False}
    embedder = OpenAIEmbeddings(base_url=url, api_key="unused", model="letters", **settings)
    assert len(embedder.embed_query("aab")) == 4


def llama_index(url: str, folder: Path) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(
        model="tiny", api_base=url, api_key="unused", is_chat_model=True, max_tokens=8, temperature=0.0, max_retries=0
    )
    messages = [ChatMessage(role="user", content="the cat")]
    whole = model.chat(messages).message.content
    assert whole == "".join(piece.delta or "" for piece in model.stream_chat(messages))


def litellm(url: str, folder: Path) -> None:
    import litellm

    common: Any = {"model": "openai/tiny", "api_base": url, "api_key": "unused", "max_tokens": 8, "temperature": 0}
    whole = litellm.completion(messages=HI, **common)
    pieces = litellm.completion(messages=HI, stream=True, **common)
    assert whole.choices[0].message.content == "".join(p.choices[0].delta.content or "" for p in pieces)
    assert whole.usage.completion_tokens == 8
    vectors = litellm.embedding(model="openai/letters", input=["aab"], api_base=url, api_key="unused")
    assert len(vectors.data[0]["embedding"]) == 4
    try:
        litellm.completion(messages=HI, **common, top_k=10**9)
    except litellm.BadRequestError as error:
        assert "top_k" in str(error)
    else:
        raise AssertionError("a wrong parameter was accepted")


def lm_eval(url: str, folder: Path) -> None:
    """Log-likelihoods and generation, through the endpoints and the tokenizer of the server."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    questions = [
        {"q": f"the cat sat on {i}", "choices": [" the mat", " a hat", "!"], "answer": i % 3} for i in range(6)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {folder}/questions.jsonl\ntest_split: test\n"
    (folder / "choice.yaml").write_text(
        f'task: choice\n{data}output_type: multiple_choice\ndoc_to_text: "{{{{q}}}}"\ndoc_to_choice: choices\n'
        "doc_to_target: answer\ntarget_delimiter: ''\nnum_fewshot: 0\nmetric_list:\n  - metric: acc\n"
    )
    (folder / "write.yaml").write_text(
        f'task: write\n{data}output_type: generate_until\ndoc_to_text: "{{{{q}}}}"\ndoc_to_target: "x"\n'
        "num_fewshot: 0\ngeneration_kwargs:\n  until: ['\\n']\n  max_gen_toks: 8\n"
        "metric_list:\n  - metric: exact_match\n"
    )
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    arguments = f"model=tiny,base_url={url}/completions,tokenizer_backend=remote,max_length=1000,num_concurrent=1"
    found = simple_evaluate(
        model="local-completions", model_args=arguments, tasks=["choice", "write"], task_manager=tasks,
        log_samples=True,
    )  # fmt: skip
    scored = {tuple(map(float, one["filtered_resps"][0])) for one in found["samples"]["choice"]}
    assert len(found["samples"]["choice"]) == 6 and len(scored) > 1, scored
    assert all(one["resps"][0][0] for one in found["samples"]["write"])
    (folder / "scores.json").write_text(
        json.dumps([[float(choice[0]) for choice in one["filtered_resps"]] for one in found["samples"]["choice"]])
    )
    found = simple_evaluate(
        model="local-chat-completions",
        model_args=f"model=tiny,base_url={url}/chat/completions,num_concurrent=2",
        tasks=["write"], task_manager=tasks, apply_chat_template=True, log_samples=True,
    )  # fmt: skip
    assert all(one["resps"][0][0] for one in found["samples"]["write"])


if __name__ == "__main__":
    {one.__name__: one for one in (openai, instructor, langchain, llama_index, litellm, lm_eval)}[sys.argv[1]](
        f"{sys.argv[2]}/v1", Path(sys.argv[3])
    )
