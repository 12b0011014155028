"""Chat templates render as transformers renders them, and mark what the assistant says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.build.tokenizer.chat import CHATML, chosen_template
from windlass.core.chat_template import ChatTemplate
from windlass.core.errors import InputError, Unsupported

TALK = [
    {"role": "system", "content": "Be brief.\n  "},
    {"role": "user", "content": "Grüße {{ 1 }} <|im_end|>?"},
    {"role": "assistant", "content": "Sechs.\n"},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "🙂 twice"},
]


def test_marks_are_what_the_assistant_says() -> None:
    text, marks = ChatTemplate(CHATML, {}, where="here").render_marked(TALK)
    assert [text[start:end] for start, end in marks] == ["Sechs.\n<|im_end|>", "🙂 twice<|im_end|>"]
    assert text.startswith("<|im_start|>system\nBe brief.\n  <|im_end|>\n<|im_start|>user\nGrüße {{ 1 }}")


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize(
    "source",
    [
        CHATML,
        "{{ bos_token }}{%- for m in messages %}\n  {%- if m.role == 'assistant' %}\n{% generation %}\n"
        "A: {{ m.content | trim }}{{ eos_token }}\n    {% endgeneration %}\n  {%- else %}\n{{ m.role }}: "
        "{{ m.content }}\n{%- if loop.index > 3 %}{% continue %}{% endif %}\n  {%- endif %}\n{%- endfor %}"
        "{{ {'ö': [1]} | tojson }}",
    ],
)
def test_transformers_renders_the_same(source: str, prompt: bool) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "?": 2}, unk_token="?"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    ours = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, where="here")
    text = theirs.apply_chat_template(TALK, chat_template=source, add_generation_prompt=prompt, tokenize=False)
    assert ours.render(TALK, add_generation_prompt=prompt) == text


CALLS = [
    {"role": "user", "content": "Wie wird das Wetter in Köln?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "wetter", "arguments": {"ort": "Köln", "tage": 2}}}],
    },
    {"role": "tool", "content": "<heiter> & 20 °C"},
]


def test_tools_and_switches_reach_the_template_as_in_transformers() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    source = (
        "{%- if tools %}{%- for tool in tools %}{{ tool | tojson }} {{ tool | tojson(indent=4) }}"
        "{{ tool.function | tojson(separators=(',', ':'), sort_keys=True, ensure_ascii=True) }}"
        "{%- endfor %}{%- endif %}"
        "{%- for m in messages %}{%- for c in m.tool_calls or [] %}<tool_call>"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>{%- endfor %}'
        "{{ m.content }}{%- endfor %}{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}"
    )
    tool = {"type": "function", "function": {"name": "wetter", "description": "<Orte> ö", "parameters": {}}}
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"?": 0}, unk_token="?")))
    ours = ChatTemplate(source, {}, where="here")
    assert {"messages", "tools", "enable_thinking"} <= ours.names and "m" not in ours.names
    for asked in ({}, {"tools": [tool]}, {"tools": [tool], "enable_thinking": False}):
        text = theirs.apply_chat_template(CALLS, chat_template=source, tokenize=False, **asked)
        assert ours.render(CALLS, **asked) == text


def test_a_template_comes_from_either_file(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None
    config = {"chat_template": "{{ eos_token }}", "eos_token": {"content": "<e>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = ChatTemplate.load(tmp_path)
    assert loaded is not None and loaded.render([]) == "<e>"
    (tmp_path / "chat_template.jinja").write_text("{{ eos_token * 2 }}")
    loaded = ChatTemplate.load(tmp_path)
    assert loaded is not None and loaded.render([]) == "<e><e>"


def test_broken_templates_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="here: the chat template is broken at line 2"):
        ChatTemplate("ok\n{% for %}", {}, where="here")
    with pytest.raises(InputError, match="refuses these messages: no system"):
        ChatTemplate("{{ raise_exception('no system') }}", {}, where="here").render([])
    with pytest.raises(InputError, match="refuses these messages"):  # the sandbox
        ChatTemplate("{{ ''.__class__.__mro__ }}", {}, where="here").render([])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": [{"name": "a"}]}))
    with pytest.raises(Unsupported, match="several chat templates"):
        ChatTemplate.load(tmp_path)


def test_a_template_to_learn_from_must_mark_the_assistant(tmp_path: Path) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(InputError, match="does not mark what the assistant says"):
        chosen_template(False, path)
    path.write_text("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}")
    assert chosen_template(False, path) == path.read_text()
    with pytest.raises(InputError, match="Both --chat"):
        chosen_template(True, path)
    with pytest.raises(InputError, match="cannot be read"):
        chosen_template(False, tmp_path / "gone.jinja")
    assert chosen_template(False, None) is None and chosen_template(True, None) == CHATML
