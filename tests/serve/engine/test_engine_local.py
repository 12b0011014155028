from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from engine_world import END, TEMPLATE, make_folder  # noqa: E402

from windlass.build.transformer.config import Experts  # noqa: E402
from windlass.build.transformer.hf import load_model  # noqa: E402
from windlass.core.errors import InputError, Unsupported  # noqa: E402
from windlass.core.sqlite_store import SqliteStore  # noqa: E402
from windlass.core.trace import Recorder  # noqa: E402
from windlass.core.values import ChatRequest, ImagePart, Message, TextPart  # noqa: E402
from windlass.serve.engine import LocalModel  # noqa: E402
from windlass.serve.engine.engine import Closed, Engine  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return LocalModel.load(folder, name="tiny", policy="fp32")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    pytest.importorskip("jinja2")
    return LocalModel.load(make_folder(tmp_path_factory.mktemp("model") / "chat", template=TEMPLATE))


def ask(text: str = "the cat", **settings: object) -> ChatRequest:
    return ChatRequest([Message("user", text)], **settings)  # type: ignore[arg-type]


GPT2 = {
    "kv_heads": 4, "position": "learned", "norm": "layer", "qkv_bias": True, "output_bias": True, "mlp_bias": True,
    "gated": False, "activation": "gelu_tanh", "tied": True,
}  # fmt: skip
GEMMA = {
    "norm_placement": "sandwich", "norm_offset": True, "embedding_scale": 32**0.5, "tied": True, "window": 9,
    "pattern": "LG", "attention_cap": 20.0, "logit_cap": 9.0, "activation": "gelu_tanh", "norm_eps": 1e-6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("llama", {}),
        ("gpt2", GPT2),
        ("gemma2", GEMMA),
        ("mixtral", {"experts": Experts(4, 2, 64), "window": 11}),
        ("qwen3", {"qk_norm": True}),
    ],
)
def test_greedy_text_equals_transformers(tmp_path: Path, family: str, fields: dict[str, object]) -> None:
    import transformers

    folder = make_folder(tmp_path / family, **fields)
    assert json.loads((folder / "config.json").read_text())["model_type"] == family
    model = LocalModel.load(folder, policy="fp32")
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = model.prompt.tokenizer
    ids = [tokenizer.token_to_id(END), *tokenizer.encode("the cat").ids]
    prompt = torch.tensor([ids])
    settings = {"max_new_tokens": 40, "do_sample": False, "attention_mask": torch.ones_like(prompt), "pad_token_id": 0}
    made = peer.generate(prompt, **settings)[0, len(ids) :]
    response = model.complete(ask(temperature=0, max_tokens=40))
    assert response.message.text == tokenizer.decode(made.tolist())
    assert (response.usage.prompt, response.usage.output, response.finish_reason) == (len(ids), 40, "length")


def test_each_token_is_the_one_a_pass_without_cache_would_choose(folder: Path, model: LocalModel) -> None:
    decoder = load_model(folder)
    ids = model.prompt.tokens([Message("user", "on the mat")])
    with torch.inference_mode():
        for _ in range(30):
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    text = model.complete(ask("on the mat", temperature=0, max_tokens=30)).message.text
    assert text == model.prompt.tokenizer.decode(ids[-30:])


def test_deltas_add_up_to_the_message_and_are_many(model: LocalModel) -> None:
    deltas = list(model.stream(ask(seed=1, max_tokens=60)))
    assert deltas[-1].response is not None and all(d.response is None for d in deltas[:-1])
    assert "".join(d.text for d in deltas) == deltas[-1].response.message.text
    assert len(deltas) > 10


def test_the_same_seed_gives_the_same_text_also_in_company(model: LocalModel) -> None:
    alone = model.complete(ask(seed=5, max_tokens=50)).message.text
    assert alone != model.complete(ask(seed=6, max_tokens=50)).message.text
    texts: dict[int, str] = {}

    def work(i: int) -> None:
        texts[i] = model.complete(ask(seed=5, max_tokens=50)).message.text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(texts.values()) == {alone}


def test_requests_progress_side_by_side(model: LocalModel) -> None:
    long, short = model.stream(ask(seed=1)), model.stream(ask(seed=2, max_tokens=3))
    next(long)
    assert list(short)[-1].response is not None  # while the long one is in the middle of its answer
    assert list(long)[-1].response is not None


def test_stop_strings_end_the_text_before_them(model: LocalModel) -> None:
    whole = model.complete(ask(temperature=0, max_tokens=60)).message.text
    stop = whole[20:24]
    response = model.complete(ask(temperature=0, max_tokens=60, stop=[stop]))
    assert response.finish_reason == "stop" and response.message.text == whole[: whole.index(stop)]
    assert response.usage.output is not None and response.usage.output < 60


def test_the_end_token_ends_the_text(tmp_path: Path) -> None:
    ending = make_folder(tmp_path / "model", eos=True)
    configuration = json.loads((ending / "generation_config.json").read_text())
    plain = LocalModel.load(ending)
    whole = plain.complete(ask(temperature=0, max_tokens=20)).message.text
    # declare the third token of the greedy text to be the end
    third = plain.prompt.tokenizer.encode(whole).ids[2]
    (ending / "generation_config.json").write_text(json.dumps(configuration | {"eos_token_id": [0, third]}))
    response = LocalModel.load(ending).complete(ask(temperature=0, max_tokens=20))
    assert response.finish_reason == "stop" and whole.startswith(response.message.text)
    assert response.usage.output is not None and response.usage.output <= 20


def test_the_window_is_filled_to_the_last_position_and_never_beyond(model: LocalModel) -> None:
    response = model.complete(ask(seed=1))
    assert (response.usage.total, response.finish_reason) == (model.context, "length")
    room = model.context - (response.usage.prompt or 0)
    assert model.complete(ask(seed=1, max_tokens=room)).usage.output == room
    with pytest.raises(InputError, match=f"max_tokens is {room + 1}.*has room for {room}"):
        model.complete(ask(max_tokens=room + 1))


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(model: LocalModel) -> None:
    with pytest.raises(InputError, match=rf"The prompt has \d+ tokens.*at most {model.context}"):
        model.complete(ask("x" * 200))


def test_long_prompts_are_read_in_parts(tmp_path: Path) -> None:
    long = LocalModel.load(make_folder(tmp_path / "model", context=400))
    at_once = long.complete(ask("the mat sat " * 20, temperature=0, max_tokens=20))
    small = LocalModel.load(tmp_path / "model", max_batch=2, token_budget=7)
    assert small.complete(ask("the mat sat " * 20, temperature=0, max_tokens=20)).message == at_once.message


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_values_out_of_range_are_refused(model: LocalModel, settings: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        model.complete(ask(**settings))


def test_unknown_parameters_and_images_are_refused(model: LocalModel, chat: LocalModel) -> None:
    with pytest.raises(Unsupported, match="'verbosity'"):
        model.complete(ask(extra={"verbosity": "low"}))
    for one in (model, chat):
        with pytest.raises(Unsupported, match="image"):
            one.complete(ChatRequest([Message("user", [TextPart("see"), ImagePart(url="http://x/y.png")])]))


def test_a_base_model_takes_one_user_message(model: LocalModel) -> None:
    assert model.is_base
    for roles in (["system", "user"], ["assistant"], ["user", "assistant", "user"], []):
        with pytest.raises(Unsupported, match="base model"):
            model.complete(ChatRequest([Message(role, "x") for role in roles]))  # type: ignore[arg-type]


def test_an_empty_prompt_is_the_beginning_of_a_document(model: LocalModel) -> None:
    assert model.complete(ask("", max_tokens=3)).usage.input == 1


def test_a_chat_template_is_used_unless_the_prompt_is_raw(chat: LocalModel) -> None:
    messages = [Message("system", "s"), Message("user", "hé"), Message("assistant", "a"), Message("user", "q")]
    decode = chat.prompt.tokenizer.decode
    shown = decode(chat.prompt.tokens(messages), skip_special_tokens=False)
    assert shown == f"{END}<system>s</><user>hé</><assistant>a</><user>q</><assistant>"
    raw = chat.prompt.tokens([Message("user", "q")], raw=True)
    assert decode(raw, skip_special_tokens=False) == f"{END}q"
    assert not chat.is_base
    response = chat.complete(ask("q", max_tokens=2, extra={"raw_prompt": True}))
    assert response.usage.input == 2


def test_what_a_template_refuses_is_an_error_of_the_request(chat: LocalModel) -> None:
    with pytest.raises(InputError, match="no tools here"):
        chat.complete(ChatRequest([Message("tool", "x")]))


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    evil = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(InputError, match="chat template refuses"):
        LocalModel.load(make_folder(tmp_path / "evil", template=evil)).complete(ask())
    with pytest.raises(InputError, match="broken at line 1"):
        LocalModel.load(make_folder(tmp_path / "broken", template="{% for %}"))


def test_calls_are_traced(folder: Path, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "windlass.db")
    recorder = Recorder(store)
    traced = LocalModel.load(folder, name="tiny", recorder=recorder)
    response = traced.complete(ask(seed=3, max_tokens=5, stop=["zzz"]))
    assert response.trace_id is not None
    with pytest.raises(InputError):
        traced.complete(ask("x" * 999))
    left = traced.stream(ask(seed=3))
    next(left)
    left.close()  # type: ignore[attr-defined]
    recorder.flush()
    (span,) = store.trace(response.trace_id)
    assert (span.name, span.operation, span.status) == ("chat", "chat", "ok")
    assert span.input == json.loads(json.dumps([asdict(Message("user", "the cat"))]))
    assert span.output == {"role": "assistant", "content": response.message.text}
    wanted = {
        "gen_ai.request.model": "tiny", "gen_ai.request.seed": 3, "gen_ai.request.max_tokens": 5,
        "gen_ai.usage.input_tokens": response.usage.input, "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ["length"], "windlass.model.digest": traced.digest, "windlass.cost.usd": None,
        "windlass.model.policy": traced.engine.report.policy,
    }  # fmt: skip
    assert wanted.items() <= span.attributes.items()
    roots = [summary.root for summary in store.traces()]
    assert sorted(root.status for root in roots) == ["error", "ok", "ok"]
    (stopped,) = [root for root in roots if root.attributes.get("windlass.stopped_early")]
    assert stopped.attributes["gen_ai.usage.output_tokens"] >= 1
    store.close()


def test_a_reader_that_leaves_ends_the_work(model: LocalModel) -> None:
    stream = model.stream(ask(seed=1))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    end = time.monotonic() + 30
    while model.stats()["running"] and time.monotonic() < end:
        time.sleep(0.001)
    assert model.stats()["running"] == model.stats()["kv_held"] == 0


def test_a_prompt_that_was_read_before_is_reported_as_cached(folder: Path) -> None:
    model = LocalModel.load(folder)
    first, second = (model.complete(ask("the cat sat on the mat " * 5, temperature=0, max_tokens=5)) for _ in range(2))
    assert first.message == second.message and (first.usage.cache_read, first.usage.output) == (0, 5)
    assert second.usage.cache_read and second.usage.prompt == first.usage.prompt == first.usage.input
    assert model.stats()["hit_rate"] == second.usage.cache_read / (2 * (first.usage.prompt or 0))
    model.close()
    with pytest.raises(Closed):
        model.complete(ask())


def test_log_probabilities_of_answer_and_prompt(model: LocalModel) -> None:
    request = ask("on the mat", temperature=0, max_tokens=30, logprobs=2, extra={"prompt_logprobs": 1})
    deltas = list(model.stream(request))
    response = deltas[-1].response
    assert response is not None and len(response.logprobs) == 30
    assert [one for delta in deltas for one in delta.logprobs] == list(response.logprobs)
    assert b"".join(one.bytes or b"" for one in response.logprobs).decode(errors="replace") == response.message.text
    prompt = model.encode("on the mat")
    assert [one.id for one in response.prompt_logprobs] == prompt and response.prompt_logprobs[0].logprob is None
    answer = [one.id for one in response.logprobs if one.id is not None]
    with torch.inference_mode():
        logits = model.engine.decoder(torch.tensor([prompt + answer]))[0].log_softmax(-1)
    for place, one in enumerate([*response.prompt_logprobs, *response.logprobs]):
        if place:
            assert one.logprob == pytest.approx(float(logits[place - 1, one.id]), abs=1e-4)
            best = logits[place - 1].topk(len(one.top))
            assert [other.id for other in one.top] == best.indices.tolist() and len(one.top) in (1, 2)


def test_prompts_may_be_given_as_tokens(model: LocalModel) -> None:
    tokens = model.encode("the cat")
    by_tokens = model.complete(ask("", temperature=0, max_tokens=9, extra={"prompt_token_ids": tokens}))
    assert by_tokens.message == model.complete(ask("the cat", temperature=0, max_tokens=9)).message
    assert model.decode(tokens) == END + "the cat"
    with pytest.raises(InputError, match="99999 is not a token"):
        model.decode([99999])
    with pytest.raises(InputError, match="outside of the model's"):
        model.complete(ask("", max_tokens=1, extra={"prompt_token_ids": [99999]}))


def test_an_answer_obeys_its_constraint(model: LocalModel) -> None:
    pytest.importorskip("llguidance")
    chosen = model.complete(ask(seed=1, max_tokens=20, extra={"choice": ["yes", "no way"]}))
    assert chosen.message.text in ("yes", "no way") and chosen.finish_reason == "stop"
    digits = model.complete(ask(seed=1, max_tokens=20, extra={"regex": "[0-9]{4}"}))
    assert digits.message.text.isdecimal() and len(digits.message.text) == 4
    found = model.complete(
        ask(seed=1, max_tokens=60, schema={"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3})
    )
    assert set(json.loads(found.message.text)) <= {1, 2}
    with pytest.raises(InputError, match=r"several constraints at once: response_format, regex"):
        model.complete(ask(schema={"type": "object"}, extra={"regex": "a"}))


def test_end_tokens_can_be_added_and_ignored(tmp_path: Path) -> None:
    model = LocalModel.load(make_folder(tmp_path / "model", eos=True))
    tokens = model.encode("the cat")
    written = model.complete(ask(temperature=0, max_tokens=20, logprobs=0, extra={"ignore_eos": True})).logprobs
    assert len(written) == 20 and tokens
    stopped = model.complete(ask(temperature=0, max_tokens=20, extra={"stop_token_ids": [written[5].id]}))
    assert stopped.finish_reason == "stop" and (stopped.usage.output or 99) <= 6


def test_no_end_before_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", eos=True)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(0, 280, 2))}))
    model = LocalModel.load(folder)
    for least in (0, 1, 7, 12):
        response = model.complete(ask(temperature=0, max_tokens=12, extra={"min_tokens": least}))
        assert least <= (response.usage.output or 0) <= 12
        if least == 0:
            assert response.usage.output < 7 and response.finish_reason == "stop"
    assert response.finish_reason == "length"


def test_a_stop_string_may_be_part_of_the_text(model: LocalModel) -> None:
    whole = model.complete(ask(temperature=0, max_tokens=60)).message.text
    stop = whole[20:24]
    extra = {"include_stop_str_in_output": True}
    text = model.complete(ask(temperature=0, max_tokens=60, stop=[stop], extra=extra)).message.text
    assert text == whole[: whole.index(stop) + len(stop)]


def test_an_answer_may_be_searched_for_by_beams(folder: Path, model: LocalModel) -> None:
    import transformers

    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = model.prompt.tokenizer
    ids = [tokenizer.token_to_id(END), *tokenizer.encode("the cat").ids]
    prompt = torch.tensor([ids])
    made = peer.generate(
        prompt, max_new_tokens=15, num_beams=4, do_sample=False, length_penalty=0.5, pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )[0, len(ids) :]  # fmt: skip
    company = model.stream(ask(seed=3))
    next(company)  # while another request is being answered
    extra = {"beam_width": 4, "length_penalty": 0.5}
    response = model.complete(ask(max_tokens=15, extra=extra))
    assert response.message.text == tokenizer.decode(made.tolist())
    assert (response.usage.output, response.finish_reason) == (15, "length")
    company.close()  # type: ignore[attr-defined]
    for other in ({"logit_bias": {"5": 1}}, {"min_tokens": 3}, {"regex": "a+"}):
        with pytest.raises(Unsupported, match="Beam search does not know"):
            model.complete(ask(max_tokens=5, extra={**extra, **other}))
    with pytest.raises(Unsupported, match="'length_penalty' belongs to beam search"):
        model.complete(ask(max_tokens=5, extra={"length_penalty": 2.0}))
    for ids in ([50_000], [-1]):
        with pytest.raises(InputError, match="outside of the model's"):
            model.complete(ask(max_tokens=5, extra={**extra, "prompt_token_ids": ids}))


def test_facts_about_tokens(model: LocalModel, chat: LocalModel) -> None:
    assert model.token_facts() == {"bos_token": END, "eos_token": END, "pad_token": None, "chat_template": None}
    assert chat.token_facts()["chat_template"] == TEMPLATE
    messages = [Message("user", "q")]
    assert chat.decode(chat.encode_chat(messages)) == f"{END}<user>q</><assistant>"
    assert chat.decode(chat.encode_chat(messages, add_generation_prompt=False)) == f"{END}<user>q</>"


def test_the_digest_is_of_the_files(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert LocalModel.load(copy).digest == model.digest
    (copy / "generation_config.json").write_text("{}")
    assert LocalModel.load(copy).digest != model.digest
    assert LocalModel.load(copy, digest="abc").digest == "abc"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_broken_and_missing_files_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(b"no")
    with pytest.raises(InputError, match=name):
        LocalModel.load(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=name):
        LocalModel.load(copy)


def test_a_tokenizer_larger_than_the_model_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    value = json.loads((copy / "tokenizer.json").read_text())
    value["added_tokens"].append({**value["added_tokens"][0], "id": 5000, "content": "<|more|>"})
    (copy / "tokenizer.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="the tokenizer knows"):
        LocalModel.load(copy)


def test_the_arithmetic_is_the_fastest_that_is_faithful(folder: Path) -> None:
    model = LocalModel.load(folder)
    assert isinstance(model.engine, Engine) and model.engine.report is not None
    assert model.engine.report.asked == "auto" and model.arithmetic == str(model.engine.report)
    exact = LocalModel.load(folder, reproducible=True)
    assert exact.arithmetic.startswith("linear maps in fp32") and "reproducible" in exact.arithmetic
    assert LocalModel.load(folder, policy="fp32").arithmetic == "linear maps in fp32"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eos_token_id": "x"}, "'eos_token_id' is 'x', but must be the number of a token"),
        ({"eos_token_id": [1, -2]}, "'eos_token_id' is -2"),
        ({"temperature": "hot"}, r"generation_config\.json: temperature is 'hot'"),
    ],
)
def test_settings_of_the_folder_that_make_no_sense_are_named(
    tmp_path: Path, folder: Path, values: dict[str, object], said: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=said):
        LocalModel.load(copy)


def test_a_cache_that_does_not_fit_is_refused_before_loading(folder: Path) -> None:
    with pytest.raises(InputError, match="999,999,999,999 remembered tokens"):
        LocalModel.load(folder, kv_tokens=999_999_999_999)


def test_a_cache_of_less_than_a_block_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="A memory of 1 tokens serves nobody"):
        LocalModel.load(folder, kv_tokens=1)
