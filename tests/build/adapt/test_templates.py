"""How conversations are written for bases without a template, and that nothing of them is left out silently."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tuned_world import CONTEXT, asked, echoes, make_home, write_rows

from windlass.build.adapt.data.conversations import Conversation, ConversationEncoder
from windlass.build.adapt.data.formats import conversation_of, tools_of
from windlass.build.adapt.data.rows import Row, rows_of
from windlass.build.adapt.data.templates import named_template
from windlass.build.adapt.objectives.sft import encoded_rows
from windlass.build.adapt.opening import open_inputs
from windlass.build.adapt.tuning import tune
from windlass.build.tokenizer import END_OF_TEXT, load_specials, load_tokenizer
from windlass.build.tokenizer.chat import CHATML, END_OF_TURN
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError
from windlass.core.values import ChatRequest, Message, ToolSpec
from windlass.core.workspace import Workspace
from windlass.serve.engine.dialect.tools import tools_json
from windlass.serve.engine.local import LocalModel
from windlass.serve.engine.wishes import Defaults

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "red"},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "green"},
]
CALL = {"type": "function", "function": {"name": "paint", "arguments": {"colour": "red"}}}
CALLED = [{"role": "user", "content": "red"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}]
TOOLS = [{"type": "function", "function": {"name": "paint", "parameters": {}}}]


@pytest.fixture(scope="module")
def plain_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base here knows no chat format."""
    return make_home(tmp_path_factory.mktemp("plain"), chat=False)


@pytest.fixture(scope="module")
def chat_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("chat"))


def template(home: Path, name: str) -> ChatTemplate:
    with Workspace(home) as ws:
        folder = ws.artifacts.get("base").path
    return named_template(name, folder, load_tokenizer(folder), load_specials(folder))


def test_chatml_is_the_one_of_our_tokenizers(chat_home: Path) -> None:
    ours = template(chat_home, "chatml")
    for opening in (False, True):
        theirs = ChatTemplate(CHATML, {}, where="tokenizer")
        assert ours.render_marked(TALK, add_generation_prompt=opening) == theirs.render_marked(
            TALK, add_generation_prompt=opening
        )


def test_plain_needs_no_token_but_the_end_of_text(plain_home: Path) -> None:
    text, marks = template(plain_home, "plain").render_marked(TALK, add_generation_prompt=True)
    assert text == (
        f"### system\nbe brief\n\n### user\nred\n\n### assistant\nblue{END_OF_TEXT}\n### user\ngreen\n\n### assistant\n"
    )
    assert [text[start:end] for start, end in marks] == [f"blue{END_OF_TEXT}"]


def test_tools_and_calls_are_written_and_learned(plain_home: Path) -> None:
    text, marks = template(plain_home, "plain").render_marked(CALLED, tools=TOOLS)
    (start, end), *_ = marks
    assert json.dumps(TOOLS[0]) in text[:start]
    call = text[start:end].removesuffix(END_OF_TEXT).removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert json.loads(call) == CALL["function"]


def test_arguments_in_json_text_are_written_as_values() -> None:
    spelled = [{"id": "c1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}]
    row = Row("row 3", {"messages": [{"role": "assistant", "content": None, "tool_calls": spelled}]})
    (turn,) = conversation_of(row).turns
    assert turn["tool_calls"][0]["function"] == CALL["function"]
    for broken in ("red", [{"name": "paint"}], [{"function": {"name": "paint", "arguments": "{"}}]):
        row = Row("row 3", {"messages": [{"role": "assistant", "tool_calls": broken}]})
        with pytest.raises(InputError, match=r"row 3: messages\[0\]: tool_calls is no list of function calls"):
            conversation_of(row)


def test_tools_are_written_as_the_engine_writes_them_when_it_is_asked() -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    asked = tools_json([ToolSpec("paint", "Paints.", schema), ToolSpec("clock")])
    spellings = [
        [{"type": "function", "function": {"parameters": schema, "description": "Paints.", "name": "paint"}}],
        [{"parameters": schema, "strict": True, "name": "paint", "description": "Paints."}],
    ]
    for spelled in spellings:
        rows = [*spelled, {"function": {"name": "clock"}, "type": "function"}]
        for given in (rows, json.dumps(rows)):
            found = tools_of(Row("row 3", {"tools": given}))
            assert json.dumps(found) == json.dumps(asked)  # in the same order too
    for broken in ("paint", {"description": "Paints."}, {"function": {"name": 3}}):
        with pytest.raises(InputError, match=r"row 3: tools\[1\] is no function with a name"):
            tools_of(Row("row 3", {"tools": [{"name": "clock"}, broken]}))


def test_of_a_prompt_nothing_is_learned(chat_home: Path) -> None:
    """Also what the assistant says in it: it is there to be read."""
    with Workspace(chat_home) as ws:
        folder = ws.artifacts.get("base").path
    tokenizer = load_tokenizer(folder)
    tokenizer.encode_special_tokens = False
    row = Row("row 3", {"system": "be brief", "prompt": TALK[1:], "completion": "brown"})
    whole = Row("row 4", {"messages": [*TALK, {"role": "assistant", "content": "brown"}]})
    for name in ("chatml", "plain"):
        encoder = ConversationEncoder(tokenizer, template(chat_home, name), end=None)
        encoded, all_of_it = (encoder.encode(conversation_of(one)) for one in (row, whole))
        assert encoded.tokens.tolist() == all_of_it.tokens.tolist()
        said, more = (
            tokenizer.decode(one.tokens[one.learned].tolist(), skip_special_tokens=True) for one in (encoded, all_of_it)
        )
        assert said.strip() == "brown" and "blue" in more


def test_a_template_that_leaves_calls_out_is_refused(chat_home: Path) -> None:
    with Workspace(chat_home) as ws:
        folder = ws.artifacts.get("base").path
    silent = ChatTemplate(CHATML, {}, where="tokenizer")
    encoder = ConversationEncoder(load_tokenizer(folder), silent, end=None)
    with pytest.raises(InputError, match="row 7: the assistant calls a tool, but the chat template does not write"):
        encoder.encode(Conversation(CALLED, "row 7"))
    with pytest.raises(InputError, match="it offers tools, but the chat template does not write them"):
        encoder.encode(Conversation(TALK[:3], "row 7", TOOLS))


def test_what_cannot_be_a_template_is_refused(plain_home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the vocabulary has no token <\|im_start\|>"):
        template(plain_home, "chatml")
    with pytest.raises(InputError, match="neither 'plain' nor 'chatml' nor a readable file"):
        template(plain_home, "chatlm")
    broken = tmp_path / "mine.jinja"
    broken.write_text("{% for x in %}", encoding="utf-8")
    with pytest.raises(InputError, match="broken at line 1"):
        template(plain_home, str(broken))


def test_a_base_without_a_template_learns_by_a_named_one(plain_home: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", echoes(60))
    with Workspace(plain_home) as ws:
        with pytest.raises(InputError, match="row 1: the base has no chat template"):
            tune(ws, asked(rows), say=lambda line: None)
        model = tune(ws, asked(rows, model__template="plain", adapter__merge=True), say=lambda line: None)
        stored = ChatTemplate.load(model.path)
        assert stored is not None and "### assistant" in stored.render(TALK, add_generation_prompt=True)
        before, after = (point.value for point in ws.store.metrics(model.record.run, "heldout_loss"))
        assert after < before


def test_a_base_without_a_template_learns_to_go_on(plain_home: Path, tmp_path: Path) -> None:
    """The prompt is read as the engine will read it, and only the completion with its end is learned."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"red {n} is", "completion": " blue"} for n in range(40)])
    said: list[str] = []
    with Workspace(plain_home) as ws:
        opened = open_inputs(ws, asked(rows))
        first = encoded_rows(opened, rows_of(rows))[0]
        spelled = opened.tokenizer.decode(first.tokens[first.learned].tolist(), skip_special_tokens=False)
        assert spelled == f" blue{END_OF_TEXT}"
        read = opened.tokenizer.encode("red 0 is", add_special_tokens=True).ids
        assert first.tokens[~first.learned].tolist()[-len(read) :] == read
        model = tune(ws, asked(rows), say=said.append)
        before, after = (point.value for point in ws.store.metrics(model.record.run, "heldout_loss"))
        assert after < 0.7 * before
    rows = write_rows(tmp_path / "empty.jsonl", [{"prompt": "red", "completion": " "}] * 3)
    with Workspace(plain_home) as ws, pytest.raises(InputError, match="row 1: the completion is empty"):
        tune(ws, asked(rows), say=said.append)


def test_overlong_examples_are_refused_or_counted_but_never_cropped(chat_home: Path, tmp_path: Path) -> None:
    long = {"prompt": "red " * 90, "completion": "blue"}
    rows = write_rows(tmp_path / "rows.jsonl", [*echoes(30), long, long])
    said: list[str] = []
    with Workspace(chat_home) as ws:
        with pytest.raises(InputError, match=f"2 of 32 examples are longer than a row of {CONTEXT} tokens"):
            tune(ws, asked(rows), say=said.append)
        model = tune(ws, asked(rows, data__overlong="drop", schedule__steps=2), say=said.append)
        assert model.card["overlong"] == 2
        assert any("left out: 2 of 32 examples, longer than 64 tokens" in line for line in said)
        rows = write_rows(tmp_path / "all.jsonl", [long] * 3)
        with pytest.raises(InputError, match="3 of 3 examples are longer"):
            tune(ws, asked(rows, data__overlong="drop"), say=said.append)
        with pytest.raises(InputError, match=r"model\.context is 128 tokens, but base@1 reads 64"):
            tune(ws, asked(rows, model__context=128), say=said.append)


def test_answers_end_where_the_template_ends_them(chat_home: Path, plain_home: Path, tmp_path: Path) -> None:
    """Else an engine would go on behind the end of a turn, where the model never learned what stands."""
    rows = write_rows(tmp_path / "rows.jsonl", echoes(80))
    with Workspace(chat_home) as ws:
        base = ws.artifacts.get("base").path
        whole = {"adapter__merge": True, "schedule__steps": 100}
        model = tune(ws, asked(rows, **whole), say=lambda line: None)
        turn, end = (load_tokenizer(base).token_to_id(mark) for mark in (END_OF_TURN, END_OF_TEXT))
        assert Defaults.of(base).eos == Defaults.of(model.path).eos == {end, turn}
        served = LocalModel.load(model.path, max_batch=1, policy="fp32")
        try:
            said = served.complete(ChatRequest((Message("user", "red blue"),), temperature=0.0, max_tokens=30))
        finally:
            served.close()
        assert said.finish_reason == "stop" and said.usage.output is not None and said.usage.output <= 8
        mine = tmp_path / "mine"
        shutil.copytree(base, mine)
        settings = {"eos_token_id": 7, "temperature": 0.5}
        (mine / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
        kept = Defaults.of(tune(ws, asked(rows, model__base=str(mine), **whole), say=lambda line: None).path)
        assert kept.eos == {end, turn, 7} and kept.sampling["temperature"] == 0.5
    with Workspace(plain_home) as ws:
        model = tune(ws, asked(rows, model__template="plain", **whole), say=lambda line: None)
        assert Defaults.of(model.path).eos == {load_specials(model.path).separator}
