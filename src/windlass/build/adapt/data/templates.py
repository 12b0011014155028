"""Ways to write a conversation, for bases that come without one, and for those that shall learn another.

`plain` uses words that every tokenizer has and ends an answer with the end of text, which every decoder has seen.
`chatml` is what chat models of many families read; its two marks must be tokens of their own. Both write tool calls as
Hermes models do, a form that the serving engine reads back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from windlass.build.tokenizer import Specials
from windlass.build.tokenizer.chat import END_OF_TURN, TURN
from windlass.core.chat_template import TEMPLATE_FILE, ChatTemplate, special_tokens
from windlass.core.errors import InputError

_TOOLS = """\
{% if tools %}OPEN_system
You can call these functions:
{% for tool in tools %}
{{ tool | tojson + '\\n' }}
{%- endfor %}
A call is written as
<tool_call>
{"name": the function's name, "arguments": its arguments}
</tool_call>CLOSE
{% endif %}"""
_TURNS = """\
{%- for message in messages %}OPEN_{{ message['role'] }}
{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] or '' }}
{%- for call in message['tool_calls'] or [] %}{% if message['content'] or not loop.first %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n' + call['function'] | tojson + '\\n</tool_call>' }}
{%- endfor %}END{% endgeneration %}
{%- else %}{{ message['content'] }}CLOSE
{%- endif %}{{ '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}OPEN_assistant
{% endif %}"""


def named_template(name: str, folder: Path, tokenizer: Any, specials: Specials) -> ChatTemplate:
    """`plain`, `chatml`, or what stands in a file, for the base in `folder`.

    Raises `InputError` when the file cannot be read or is broken, when the vocabulary lacks the marks of ChatML, and
    when it has no token that ends a text.
    """
    if name == "plain":
        end = tokenizer.id_to_token(specials.separator)
        return ChatTemplate(_written("### ", "\n", end), {}, where="the template 'plain'")
    if name == "chatml":
        missing = [mark for mark in (TURN, END_OF_TURN) if tokenizer.token_to_id(mark) is None]
        if missing:
            raise InputError(
                f"model.template is 'chatml', but the vocabulary has no token {' and none '.join(missing)}.",
                'Use model.template = "plain", or a base whose tokenizer was trained with `--chat`.',
            )
        return ChatTemplate(_written(TURN, END_OF_TURN, END_OF_TURN), {}, where="the template 'chatml'")
    path = Path(name)
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"model.template is '{name}', which is neither 'plain' nor 'chatml' nor a readable file ({error}).",
            f"Name one of the two, or a file with a Jinja template such as {TEMPLATE_FILE}.",
        ) from error
    return ChatTemplate(source, special_tokens(folder), where=str(path))


def check_says(template: ChatTemplate, turns: Any, tools: Any) -> None:
    """Raises `InputError` when the template would leave out what a conversation holds: it never mentions tools."""
    if any(isinstance(turn, Mapping) and turn.get("tool_calls") for turn in turns) and (
        "tool_calls" not in template.source
    ):
        raise InputError(
            "the assistant calls a tool, but the chat template does not write tool calls, so nothing of the call "
            "would be learned.",
            'Use model.template = "plain" or "chatml", or a template that writes `message.tool_calls`.',
        )
    if tools and "tools" not in template.names:
        raise InputError(
            "it offers tools, but the chat template does not write them, so the model would not see what it can call.",
            'Use model.template = "plain" or "chatml", or a template that writes `tools`.',
        )


def _written(opening: str, closing: str, end: str) -> str:
    """The template with these marks: before a turn's role, behind a turn, and behind what the assistant says."""
    parts = {"OPEN_": opening, "CLOSE": _literal(closing), "END": _literal(end)}
    source = _TOOLS + _TURNS
    for place, mark in parts.items():
        source = source.replace(place, mark)
    return source


def _literal(text: str) -> str:
    """As an expression of Jinja, whose tags would trim white space that stood there as it is."""
    return f"{{{{ {json.dumps(text)} }}}}"
